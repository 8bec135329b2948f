"""Intervals for a group of tasks: the tasks are fixed, items are drawn in each (Cochran 1977, chapter 5).

Differences d = candidate − baseline have shape (n,); `strata` holds the task of each, shape (n,). Pooled weights
(lm-eval's `weight_by_size: true`) count items equally, equal weights count tasks equally. Only the spread within tasks
is error. The pooled variance also has the spread between them, so tests on pooled counts remain valid.
"""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import t

from harness.stats.checks import FloatArray, require_open_unit, require_sample
from harness.stats.clustered import Labels

ROUNDING = 1e-12  # error of sums of weights


def stratified_interval(d: FloatArray, strata: Labels, level: float, equal_weights: bool) -> tuple[float, float]:
    """Two-sided t interval for the weighted mean.

    Where no stratum has any spread, it reaches as far as total failures could go unseen in n items.
    """
    require_open_unit("level", level)
    mean, error, freedom = _estimate(d, strata, equal_weights)
    tail = (1 - level) / 2
    reach = float(t.isf(tail, freedom)) * error if error > 0 else _hidden(strata, tail, equal_weights)
    return mean - reach, mean + reach


def _estimate(d: FloatArray, strata: Labels, equal_weights: bool) -> tuple[float, float, float]:
    """Weighted mean, its standard error, and the degrees of freedom."""
    sample = require_sample(d)
    if np.shape(strata) != sample.shape:
        raise ValueError(f"need a stratum for each difference, got {np.shape(strata)} and {sample.shape}")
    index = np.unique(strata, return_inverse=True)[1]
    order = np.lexsort((sample, index))
    sample, index = sample[order], index[order]
    sizes = np.bincount(index).astype(np.float64)
    if sizes.min() < 2:
        raise ValueError("every stratum needs at least 2 items")
    means = np.bincount(index, weights=sample) / sizes
    variances = np.bincount(index, weights=(sample - means[index]) ** 2) / (sizes - 1)
    weights = _weights(sizes, equal_weights)
    parts = weights**2 * variances / sizes
    total = float(parts.sum())
    if total <= 1e-24:
        return float(weights @ means), 0.0, float(sizes.sum() - len(sizes))
    freedom = total**2 / float((parts**2 / (sizes - 1)).sum())
    return float(weights @ means), math.sqrt(total), freedom


def _weights(sizes: FloatArray, equal_weights: bool) -> FloatArray:
    return np.full(len(sizes), 1 / len(sizes)) if equal_weights else sizes / sizes.sum()


def _unseen_p(sizes: FloatArray, weights: FloatArray, drop: float) -> float:
    """The largest chance that no item shows the total failures that bring the weighted mean down by `drop`.

    Shares s of the strata maximise Π(1 − s)^size subject to Σ weight·s = drop: 1 − s = level·size/weight, at most 1.
    """
    if drop <= ROUNDING:
        return 1.0
    if drop >= 1 - ROUNDING:
        return 0.0
    ratio = sizes / weights

    def kept(level: float) -> FloatArray:
        return np.asarray(np.minimum(1.0, level * ratio), dtype=np.float64)

    level = brentq(lambda level: float(weights @ (1 - kept(level))) - drop, 0.0, 1 / float(ratio.min()), xtol=1e-15)
    return float(np.prod(kept(float(level)) ** sizes))


def _hidden(strata: Labels, tail: float, equal_weights: bool) -> float:
    """The largest drop of the weighted mean that goes unseen with chance `tail`."""
    sizes = np.unique(strata, return_counts=True)[1].astype(np.float64)
    weights = _weights(sizes, equal_weights)
    return float(brentq(lambda drop: _unseen_p(sizes, weights, drop) - tail, 0.0, 1 - 1e-9))
