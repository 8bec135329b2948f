"""A group's metric over its subjects: the subjects are fixed, items are drawn within each (Cochran 1977, chapter 5).

Differences d = candidate − baseline have shape (n,), strata holds the subject of each, shape (n,). Pooled weights
(lm-eval's `weight_by_size: true`) count items equally, equal weights count subjects equally. Only the spread within
subjects is error: the pooled variance also holds the spread between them, so tests on pooled counts stay valid.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from harness.stats.checks import FloatArray, require_open_unit, require_sample

Labels = npt.NDArray[Any]


def stratified_mean(d: FloatArray, strata: Labels, equal_weights: bool = False) -> float:
    """The weighted mean of the strata's means."""
    return _estimate(d, strata, equal_weights)[0]


def stratified_noninferiority_p(d: FloatArray, strata: Labels, margin: float, equal_weights: bool = False) -> float:
    """One-sided p of H0: weighted mean ≤ −margin by t with Satterthwaite's degrees of freedom (Satterthwaite 1946).

    Raises ValueError on a stratum of one item, unequal lengths, non-finite differences or a margin outside (0, 1).
    """
    require_open_unit("margin", margin)
    mean, error, freedom = _estimate(d, strata, equal_weights)
    return _above_p(mean + margin, error, freedom, len(d))


def stratified_harm_p(d: FloatArray, strata: Labels, equal_weights: bool = False) -> float:
    """One-sided p of H0: weighted mean ≥ 0, small when the candidate is worse; 1 when all differences are 0."""
    mean, error, freedom = _estimate(d, strata, equal_weights)
    if mean == 0 and error == 0:
        return 1.0
    return _above_p(-mean, error, freedom, len(d))


def stratified_interval(
    d: FloatArray, strata: Labels, level: float, equal_weights: bool = False
) -> tuple[float, float]:
    """Two-sided t interval for the weighted mean.

    Where no stratum has any spread, it reaches as far as total failures could hide from n items.
    """
    require_open_unit("level", level)
    mean, error, freedom = _estimate(d, strata, equal_weights)
    tail = (1 - level) / 2
    reach = float(t.isf(tail, freedom)) * error if error > 0 else 1 - tail ** (1 / len(d))
    return mean - reach, mean + reach


def _estimate(d: FloatArray, strata: Labels, equal_weights: bool) -> tuple[float, float, float]:
    """Weighted mean, its standard error, and the degrees of freedom."""
    sample = require_sample(d)
    if np.shape(strata) != sample.shape:
        raise ValueError(f"need a stratum for each difference, got {np.shape(strata)} and {sample.shape}")
    index = np.unique(strata, return_inverse=True)[1]
    sizes = np.bincount(index).astype(np.float64)
    if sizes.min() < 2:
        raise ValueError("every stratum needs at least 2 items")
    means = np.bincount(index, weights=sample) / sizes
    variances = np.bincount(index, weights=(sample - means[index]) ** 2) / (sizes - 1)
    weights = np.full(len(sizes), 1 / len(sizes)) if equal_weights else sizes / sizes.sum()
    parts = weights**2 * variances / sizes
    total = float(parts.sum())
    if total <= 1e-24:
        return float(weights @ means), 0.0, float(sizes.sum() - len(sizes))
    freedom = total**2 / float((parts**2 / (sizes - 1)).sum())
    return float(weights @ means), math.sqrt(total), freedom


def _above_p(distance: float, error: float, freedom: float, n: int) -> float:
    """p of a weighted mean that lies `distance` above the bound; never below the chance of unseen total failures."""
    if error == 0 and distance <= 0:
        return 1.0
    unseen = (1 - min(max(distance, 0.0), 1.0)) ** n
    return max(unseen, float(t.sf(distance / error, freedom)) if error > 0 else 0.0)
