"""Tests and intervals for clustered items: several questions on one passage, several turns of one dialogue.

Differences d = candidate − baseline (or plain scores) have shape (n,); `clusters` holds a label for each, shape (n,).
Clusters are independent of each other, the items of one cluster are not. The mean is over items.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from harness.stats.checks import FloatArray, require_open_unit, require_sample
from harness.stats.continuous import skewed, unseen_drop_p
from harness.stats.paired import mcnemar_midp_harm, noninferiority_p, tango_statistic
from harness.stats.resampling import bca_p

FEW_CLUSTERS = 20
ENUMERATED = 12
DRAWS = 10_000
Labels = npt.NDArray[Any]


def clustered_noninferiority_p(d: FloatArray, clusters: Labels, margin: float, seed: int) -> float:
    """One-sided p of H0: mean ≤ −margin: cluster-robust t (Cameron & Miller 2015).

    Its degrees of freedom are `effective_freedom`: with G − 1 it passes too often where few clusters hold most of the
    spread, as those of a small task do in a group whose tasks weigh the same. With fewer than 20 clusters, the wild
    cluster bootstrap with the null imposed (Cameron, Gelbach & Miller 2008), which for a mean flips the signs of
    cluster sums. For right/wrong scores p is at least that of Tango's statistic over the root of the design effect
    (Rao & Scott 1992), by t with the same degrees of freedom in place of the normal: t alone passes too often where
    losses are rare and lie in few clusters. For other skewed scores it is at least that of the BCa cluster bootstrap.
    It is never below the p of the same items taken as independent, nor below the chance that the effective sample
    shows none of the total failures that would make up the margin.
    Raises ValueError on fewer than 2 clusters, unequal lengths, non-finite differences or a margin outside (0, 1).
    """
    require_open_unit("margin", margin)
    sample, sums, sizes = _by_cluster(d, clusters)
    unseen = unseen_drop_p(sample, margin, effective_items(sample, clusters))
    p = max(unseen, _mean_above_p(sums, sizes, -margin, seed))
    if not _right_wrong(sample):
        return max(p, _skewed_p(sums, sizes, -margin, seed))
    lost, gained = _flips(sample)
    statistic = tango_statistic(lost, gained, len(sample), -margin)
    adjusted = t.sf(statistic / math.sqrt(max(1.0, design_effect(sample, clusters))), effective_freedom(sums, sizes))
    return max(p, float(adjusted), noninferiority_p(lost, gained, len(sample), margin))


def clustered_harm_p(d: FloatArray, clusters: Labels, seed: int) -> float:
    """One-sided p of H0: mean ≥ 0, small when the candidate is worse; 1 when all differences are 0.

    The tests are those of non-inferiority, with mid-p McNemar for right/wrong items taken as independent.
    Raises ValueError on fewer than 2 clusters or non-finite differences.
    """
    sample, sums, sizes = _by_cluster(-require_sample(d), clusters)
    if not np.any(sample):
        return 1.0
    unseen = unseen_drop_p(sample, 0.0, effective_items(sample, clusters))
    right_wrong = _right_wrong(sample)
    other = mcnemar_midp_harm(*_flips(-sample)) if right_wrong else _skewed_p(sums, sizes, 0.0, seed)
    return max(unseen, other, _mean_above_p(sums, sizes, 0.0, seed))


def clustered_interval(d: FloatArray, clusters: Labels, level: float, seed: int) -> tuple[float, float]:
    """Two-sided interval for the mean: cluster-robust t with G − 1 degrees of freedom.

    With those of the tests it would cover too much. With fewer than 20 clusters the limits come from the means of
    random sets of clusters, which inverts the sign-flip test of cluster sums (typical values, Hartigan 1969). With too
    few clusters for the level (under 6 for 95%), or with equal cluster means, the limits are as far as scores
    in [0, 1] can reach.
    Raises ValueError on fewer than 2 clusters, unequal lengths, non-finite values or a level outside (0, 1).
    """
    require_open_unit("level", level)
    sample, sums, sizes = _by_cluster(d, clusters)
    mean, tail = float(sample.mean()), (1 - level) / 2
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
    return len(sample) / max(1.0, design_effect(sample, clusters))


def effective_freedom(sums: FloatArray, sizes: FloatArray) -> float:
    """Degrees of freedom of the variance between clusters: 2σ⁴/Var(σ²), at most G − 1 (Satterthwaite 1946).

    Var(σ²) = σ⁴·(excess kurtosis/G + 2/(G − 1)), estimated from the clusters (Pan & Wall 2002): where few clusters hold
    most of the spread, σ² is known less well. `sums` and `sizes` of the clusters have shape (clusters,).
    """
    values = _cluster_values(sums, sizes)
    centred = values - values.mean()
    spread, groups = float((centred**2).mean()), len(values)
    if spread <= 1e-24:
        return float(groups - 1)
    excess = max(float((centred**4).mean()) / spread**2 - 3, 0.0)
    return min(groups - 1.0, 2 / (excess / groups + 2 / (groups - 1)))


def _by_cluster(d: FloatArray, clusters: Labels) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The sample, and the sum and size of each cluster, both shape (clusters,)."""
    sample = require_sample(d)
    if np.shape(clusters) != sample.shape:
        raise ValueError(f"need a cluster for each difference, got {np.shape(clusters)} and {sample.shape}")
    index = np.unique(clusters, return_inverse=True)[1]
    sizes = np.bincount(index).astype(np.float64)
    if len(sizes) < 2:
        raise ValueError("need at least 2 clusters")
    return sample, np.asarray(np.bincount(index, weights=sample), dtype=np.float64), sizes


def _mean_above_p(sums: FloatArray, sizes: FloatArray, bound: float, seed: int) -> float:
    """One-sided p of H0: mean ≤ bound. Without spread between clusters it is 0 for a mean above the bound, else 1."""
    distance = float(sums.sum() / sizes.sum()) - bound
    error = _standard_error(sums, sizes)
    if error <= 1e-12:
        return 0.0 if distance > 0 else 1.0
    if len(sums) >= FEW_CLUSTERS:
        return float(t.sf(distance / error, effective_freedom(sums, sizes)))
    # Flipping the signs of a set of clusters reaches the observed sum exactly when their mean is at most the bound.
    means = _subset_means(sums, sizes, seed)
    return float((1 + np.count_nonzero(means <= bound + 1e-12)) / (1 + len(means)))


def _skewed_p(sums: FloatArray, sizes: FloatArray, bound: float, seed: int) -> float:
    """The BCa bootstrap's p where the clusters are skewed, else 0."""
    values = _cluster_values(sums, sizes)
    return bca_p(values, bound, seed) if skewed(values) else 0.0


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


def _right_wrong(sample: FloatArray) -> bool:
    return bool(np.isin(sample, (-1.0, 0.0, 1.0)).all())


def _flips(d: FloatArray) -> tuple[int, int]:
    return int((d < 0).sum()), int((d > 0).sum())
