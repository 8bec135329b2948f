"""Chooses the test for a metric by its data: right/wrong, other scores, clustered items, or the strata of a group.

`width` is the length of the metric's range; in every test, margins, floors and differences are shares of it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.records.gate import MetricComparison, Stratum
from harness.stats.bounded import bounded_mean_p
from harness.stats.clustered import (
    FEW_CLUSTERS_FOR_INTERVAL,
    cluster_spread,
    clustered_interval,
    clustered_lower,
    clustered_mean_p,
    effective_clusters,
)
from harness.stats.continuous import FEW_FOR_INTERVAL, interval_continuous, skewed, without_spread
from harness.stats.paired import mcnemar_midp_harm, noninferiority_p, superiority_p, tango_interval
from harness.stats.power import n_for_bounded_mean, n_for_floor, n_for_noninferiority
from harness.stats.proportion import clopper_pearson_lower, clopper_pearson_upper
from harness.stats.stratified import stratified_interval

SEED = 0


def pass_p(metric: MetricComparison, margin: float, width: float) -> float:
    """One-sided p of H0: Δ ≤ −margin; small when the candidate is not worse by the margin."""
    if counted(metric) and width == 1:
        return noninferiority_p(metric.only_baseline_right or 0, metric.only_candidate_right or 0, metric.n, margin)
    return _above_p(metric, weighted_differences(metric) / width, -margin)


def gain_p(metric: MetricComparison, margin: float, width: float) -> float:
    """One-sided p of H0: Δ ≤ +margin; small when the candidate is better by more than the margin."""
    if counted(metric) and width == 1:
        return superiority_p(metric.only_baseline_right or 0, metric.only_candidate_right or 0, metric.n, margin)
    return _above_p(metric, weighted_differences(metric) / width, margin)


def shortfall_p(metric: MetricComparison, margin: float, width: float) -> float:
    """One-sided p of H0: Δ ≥ +margin; small when the candidate is not better by the margin (roles turned)."""
    if counted(metric) and width == 1:
        return noninferiority_p(metric.only_candidate_right or 0, metric.only_baseline_right or 0, metric.n, margin)
    return _above_p(metric, -weighted_differences(metric) / width, -margin)


def fail_p(metric: MetricComparison, width: float) -> float:
    """One-sided p of H0: Δ ≥ 0; small when the candidate is worse."""
    if counted(metric):
        return mcnemar_midp_harm(metric.only_baseline_right or 0, metric.only_candidate_right or 0)
    if untestable_reason(metric) is not None:
        return 1.0
    return _above_p(metric, -weighted_differences(metric) / width, 0.0)


def _above_p(metric: MetricComparison, d: Any, bound: float) -> float:
    """One-sided p of H0: mean of the weighted differences d ≤ bound, by the metric's clusters."""
    if metric.clusters is None and not metric.equal_weights:
        return bounded_mean_p(d, bound, -1.0)
    return clustered_mean_p(d, clusters(metric), bound, weights(metric))


def interval(metric: MetricComparison, level: float) -> tuple[float, float]:
    """Two-sided interval of Δ; as wide as the range allows where the items are too few for any test."""
    if counted(metric):
        return tango_interval(metric.only_baseline_right or 0, metric.only_candidate_right or 0, metric.n, level)
    if untestable_reason(metric) is not None:
        reach = max(1.0, metric.highest - metric.lowest)
        return -reach, reach
    d = differences(metric)
    if metric.clusters is not None:
        return clustered_interval(d, clusters(metric), level, SEED)
    if _stratified(metric):
        return stratified_interval(d, _labels(metric.strata or []), level, metric.equal_weights)
    return interval_continuous(d, level, SEED)


def interval_doubt(metric: MetricComparison) -> str | None:
    """Why `interval` may cover the truth less often than it says; None where simulation shows that it covers.

    No interval covers what the sample lacks: where one item in twenty moves, an interval of 30 items covers 78%.
    """
    if metric.clusters is not None:
        groups, alike = len(set(metric.clusters)), effective_clusters(clusters(metric))
        if groups < 2 or alike >= FEW_CLUSTERS_FOR_INTERVAL:
            return None
        sizes = f", of sizes that make them count like {alike:.0f}" if alike < 0.9 * groups else ""
        return (
            f"not to be trusted: {groups} clusters are few{sizes}, and one that fails as a whole may not be among them"
        )
    if counted(metric) or _stratified(metric) or not 2 <= metric.n < FEW_FOR_INTERVAL:
        return None
    d = differences(metric)
    if without_spread(d):
        return None
    why = "their scores are skewed" if skewed(d) else "a rare large change may not be among them"
    return f"not to be trusted: {metric.n} items are few, and {why}"


def floor_bounds(
    metric: MetricComparison, lowest: float, width: float, alpha: tuple[float, float]
) -> tuple[float, float]:
    """One-sided bounds of the candidate's mean, as a share of its range counted from the worse end.

    Clopper–Pearson at alpha = (lower bound's, upper bound's). Scores between 0 and 1 vary less than right/wrong scores
    of the same mean, so the bounds hold for them too. Clustered or weighted items: `clustered_lower`.
    """
    if metric.scores is not None:
        own, groups = weights(metric), clusters(metric)
        shares = (np.array(metric.scores) - own * lowest) / width
        good, bad = (shares, own - shares) if metric.direction == "higher" else (own - shares, shares)
        good, bad = np.maximum(good, 0.0), np.maximum(bad, 0.0)  # rounding
        return clustered_lower(good, groups, alpha[0], own), 1 - clustered_lower(bad, groups, alpha[1], own)
    share = (metric.candidate - lowest) / width
    share = share if metric.direction == "higher" else 1 - share
    min_right, max_right = math.floor(share * metric.n + 1e-9), min(metric.n, math.ceil(share * metric.n - 1e-9))
    return clopper_pearson_lower(min_right, metric.n, alpha[0]), clopper_pearson_upper(max_right, metric.n, alpha[1])


def items_to_decide(metric: MetricComparison, margin: float, width: float, alpha: float, power: float) -> int:
    """Items with which an equal model passes with the given power, at the observed spread.

    Clusters are taken as large as those of the sample. Where the sample is that large already, the models seem to
    differ: then the items that decide at the observed Δ.
    """
    if counted(metric) and width == 1:
        discordance = ((metric.only_baseline_right or 0) + (metric.only_candidate_right or 0)) / metric.n

        def items(drop: float, delta: float) -> int:
            return n_for_noninferiority(drop, discordance, alpha, power, delta)
    else:
        d = weighted_differences(metric) / width
        groups, variance, heaviest = cluster_spread(d, clusters(metric), weights(metric))

        def items(drop: float, delta: float) -> int:
            return math.ceil(n_for_bounded_mean(drop, variance, heaviest, alpha, power, delta) * metric.n / groups)

    needed, delta = items(margin, 0.0), metric.delta / width
    if needed > metric.n:
        return needed
    seemingly = items(min(-delta, 0.999), 0.0) if delta <= -margin else items(margin, min(delta, 0.0))
    return max(seemingly, metric.n + 1)


def items_for_floor(
    metric: MetricComparison, share: float, floor: float, width: float, alpha: float, power: float
) -> int | None:
    """Items that show whether this share reaches or misses the floor; None when it lies on the floor."""
    if share == floor:
        return None
    if metric.scores is not None:
        scores = np.array(metric.scores) / width
        groups, variance, heaviest = cluster_spread(scores, clusters(metric), weights(metric))
        needed = n_for_bounded_mean(abs(share - floor), variance, heaviest, alpha, power)
        return math.ceil(needed * metric.n / groups)
    if share > floor:
        return n_for_floor(share, floor, alpha, power)
    return n_for_floor(1 - share, 1 - floor, alpha, power)


def differences(metric: MetricComparison) -> Any:
    """Δ item by item, shape (n,). Those of a right/wrong metric are rebuilt from its counts, in no order of the items.

    Those of a group that weighs its tasks equally are in the order of its tasks.
    """
    if metric.differences is not None:
        return np.array(metric.differences)
    if metric.equal_weights:
        counts = [(one.lost, one.gained, one.n - one.lost - one.gained) for one in metric.strata or []]
        return np.concatenate([np.repeat([-1.0, 1.0, 0.0], count) for count in counts])
    lost, gained = metric.only_baseline_right or 0, metric.only_candidate_right or 0
    return np.repeat([-1.0, 1.0, 0.0], [lost, gained, metric.n - lost - gained])


def weighted_differences(metric: MetricComparison) -> Any:
    """Δ item by item as it counts in the mean, shape (n,): times the weight of the item's task."""
    d = differences(metric)
    return d if metric.clusters is not None else weights(metric) * d  # those of clusters are weighted already


def weights(metric: MetricComparison) -> Any:
    """The weight of each item, shape (n,), 1 on average: equal, or such that each task of the group counts the same."""
    sizes = [stratum.n for stratum in metric.strata or []]
    if not metric.equal_weights or not sizes:
        return np.ones(metric.n)
    return np.repeat(metric.n / (len(sizes) * np.array(sizes)), sizes)


def clusters(metric: MetricComparison) -> Any:
    """The cluster of each item, shape (n,); each is one of its own where items are independent."""
    return np.arange(metric.n) if metric.clusters is None else np.array(metric.clusters)


def counted(metric: MetricComparison) -> bool:
    """Whether the counts of a right/wrong metric say all that its tests need."""
    plain = metric.differences is None and metric.clusters is None and not metric.equal_weights
    return plain and metric.only_baseline_right is not None


def untestable_reason(metric: MetricComparison) -> str | None:
    """Why the metric's items allow no test; None where they do."""
    if not counted(metric) and metric.n < 2:
        return "was measured on a single item, which allows no test"
    if metric.clusters is not None and len(set(metric.clusters)) <= 1:
        return f"was measured on a single cluster of {metric.clustered_by}, which allows no test"
    if metric.equal_weights and metric.clusters is None and not _stratified(metric):
        return "weighs its tasks equally, but one of them has a single item, which allows no test"
    return None


def _stratified(metric: MetricComparison) -> bool:
    return metric.strata is not None and len(metric.strata) > 1 and all(stratum.n > 1 for stratum in metric.strata)


def _labels(strata: Sequence[Stratum]) -> Any:
    """The number of each item's stratum, in the order of the differences."""
    return np.repeat(np.arange(len(strata)), [stratum.n for stratum in strata])
