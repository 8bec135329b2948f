"""Tests and intervals for clustered items: several questions on one passage, several turns of one dialogue.

Values (differences d = candidate − baseline, or plain scores) have shape (n,); `clusters` holds a label for each, shape
(n,). Clusters are independent of each other, the items of one cluster are not. The mean is over items. The order of the
items and the names of the clusters change nothing.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import t

from harness.stats.bounded import bounded_mean_p
from harness.stats.checks import FloatArray, require_open_unit, require_sample

FEW_CLUSTERS = 20
ENUMERATED = 12
DRAWS = 10_000
# With fewer, where a cluster fails as a whole in one case of twenty, the interval covers 64 to 93% (docs/gate.md).
FEW_CLUSTERS_FOR_INTERVAL = 200
Labels = npt.NDArray[Any]


def clustered_mean_p(values: FloatArray, clusters: Labels, bound: float, weights: FloatArray | None = None) -> float:
    """One-sided p of H0: mean ≤ bound, whatever the items of a cluster share; small when the mean is larger.

    Values are at least −1. With `weights`, shape (n,) and 1 on average, they are weighted already, so at least −weight.
    Under H0 the sums of (value − bound·weight) over the clusters have a mean of at most 0. They are tested as bounded
    values (`bounded_mean_p`), which allows for what no cluster of the sample shows: the heaviest one might have failed
    in all its items.
    Raises ValueError on fewer than 2 clusters, unequal lengths, non-finite values, or a value below −weight.
    """
    _, sums, sizes = _by_cluster(values, clusters, weights)
    return bounded_mean_p(sums - bound * sizes, 0.0, -(1 + bound) * float(sizes.max()))


def clustered_lower(scores: FloatArray, clusters: Labels, alpha: float, weights: FloatArray | None = None) -> float:
    """Lower bound of the mean of scores of at least 0, whatever the items of a cluster share.

    The true mean is below it with chance at most alpha; `weights` as in `clustered_mean_p`. Raises ValueError as that
    function, or for an alpha outside (0, 1).
    """
    require_open_unit("alpha", alpha)
    _, sums, sizes = _by_cluster(scores, clusters, weights)

    def excess(bound: float) -> float:
        return bounded_mean_p(sums - bound * sizes, 0.0, -bound * float(sizes.max())) - alpha

    highest = float((sums / sizes).max())
    return float(brentq(excess, 1e-9, highest, xtol=1e-12)) if highest > 1e-9 and excess(1e-9) < 0 else 0.0


def clustered_interval(d: FloatArray, clusters: Labels, level: float, seed: int) -> tuple[float, float]:
    """Two-sided interval for the mean: cluster-robust t with G − 1 degrees of freedom (Cameron & Miller 2015).

    With fewer than 20 clusters the limits come from the means of random sets of clusters, which inverts the sign-flip
    test of cluster sums (typical values, Hartigan 1969). With too few clusters for the level (under 6 for 95%), or with
    equal cluster means, the limits are as far as scores in [0, 1] can reach. It cannot cover what no cluster shows.
    Raises ValueError on fewer than 2 clusters, unequal lengths, non-finite values or a level outside (0, 1).
    """
    require_open_unit("level", level)
    sample, sums, sizes = _by_cluster(d, clusters)
    mean, tail = float(sums.sum() / sizes.sum()), (1 - level) / 2
    farthest = max(1.0, float(np.abs(sample).max()))
    error = _standard_error(sums, sizes)
    if error <= 1e-12:
        reach = (1 - tail ** (1 / len(sums))) * (farthest + abs(mean))
        return mean - reach, mean + reach
    if len(sums) >= FEW_CLUSTERS:
        reach = float(t.isf(tail, len(sums) - 1)) * error
        return mean - reach, mean + reach
    means = np.sort(_subset_means(sums, sizes, seed))
    outside = math.floor(tail * (len(means) + 1))
    if outside == 0:
        return -farthest, farthest
    return float(means[outside - 1]), float(means[-outside])


def design_effect(d: FloatArray, clusters: Labels) -> float:
    """How many times the variance of the mean exceeds that of independent items; 1 without any spread (Kish 1965)."""
    sample, sums, sizes = _by_cluster(d, clusters)
    independent = float(sample.var(ddof=1)) / len(sample)
    return _standard_error(sums, sizes) ** 2 / independent if independent > 0 else 1.0


def effective_items(d: FloatArray, clusters: Labels) -> float:
    """The effective sample size: so many independent items give the mean the same variance; n/design effect, at most n.

    Without any spread the design effect is unknown, and the size is the number of clusters.
    """
    sample, sums, _ = _by_cluster(d, clusters)
    if float(np.ptp(sample)) == 0:
        return float(len(sums))
    return len(sample) / max(1.0, design_effect(d, clusters))


def effective_clusters(clusters: Labels) -> float:
    """So many clusters of equal size give a mean the same variance, if all items of a cluster are alike (Kish 1965)."""
    sizes = np.unique(clusters, return_counts=True)[1]
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def cluster_spread(d: FloatArray, clusters: Labels, weights: FloatArray) -> tuple[int, float, float]:
    """What planning needs: the number of clusters, the variance of their values, and the largest size over the average.

    The values have the mean of the items, and their variance over the number of clusters is that of the mean.
    """
    _, sums, sizes = _by_cluster(d, clusters, weights)
    return len(sums), float(_cluster_values(sums, sizes).var(ddof=1)), float(sizes.max() / sizes.mean())


def _by_cluster(
    values: FloatArray, clusters: Labels, weights: FloatArray | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The sorted values, and the sum and the size of each cluster, both shape (clusters,); weights add up to its size.

    Sums run over sorted values, and clusters are in the order of these sums, so nothing depends on the items' order.
    """
    sample = require_sample(values)
    own = np.ones_like(sample) if weights is None else np.asarray(weights, dtype=np.float64)
    if not np.shape(clusters) == own.shape == sample.shape:
        raise ValueError(f"need a cluster for each difference, got {np.shape(clusters)} and {sample.shape}")
    index = np.unique(clusters, return_inverse=True)[1]
    order = np.lexsort((own, sample, index))
    starts = np.flatnonzero(np.diff(index[order], prepend=-1))
    if len(starts) < 2:
        raise ValueError("need at least 2 clusters")
    sums, sizes = np.add.reduceat(sample[order], starts), np.add.reduceat(own[order], starts)
    place = np.lexsort((sizes, sums))
    return np.sort(sample), sums[place], sizes[place]


def _cluster_values(sums: FloatArray, sizes: FloatArray) -> FloatArray:
    """A value for each cluster: their mean is the mean over items, their standard error the cluster-robust one."""
    mean = sums.sum() / sizes.sum()
    return np.asarray(mean + len(sums) * (sums - sizes * mean) / sizes.sum(), dtype=np.float64)


def _standard_error(sums: FloatArray, sizes: FloatArray) -> float:
    """Cluster-robust standard error of the mean over items, with the factor G/(G − 1)."""
    return float(_cluster_values(sums, sizes).std(ddof=1)) / math.sqrt(len(sums))


def _subset_means(sums: FloatArray, sizes: FloatArray, seed: int) -> FloatArray:
    """Item means of all non-empty sets of clusters; with more than 12 clusters, of 10,000 random sets."""
    groups = len(sums)
    if groups <= ENUMERATED:
        chosen = (np.arange(1, 2**groups)[:, None] >> np.arange(groups)) & 1
    else:
        chosen = np.random.default_rng(seed).integers(0, 2, size=(DRAWS, groups))
        chosen = chosen[chosen.any(axis=1)]
    totals = chosen.astype(np.float64) @ np.column_stack([sums, sizes])
    return np.asarray(totals[:, 0] / totals[:, 1], dtype=np.float64)
