"""Chooses the test for a metric by its data: right/wrong, other scores, clustered items, or the strata of a group.

`width` is the length of the metric's range; in every test, margins, floors and differences are shares of it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.records.gate import MetricComparison, Stratum
from harness.stats.clustered import (
    clustered_harm_p,
    clustered_interval,
    clustered_noninferiority_p,
    effective_items,
)
from harness.stats.continuous import (
    FEW_FOR_INTERVAL,
    harm_p_continuous,
    interval_continuous,
    noninferiority_p_continuous,
    skewed,
    unseen_drop_p,
    without_spread,
)
from harness.stats.paired import mcnemar_midp_harm, noninferiority_p, superiority_p, tango_interval
from harness.stats.power import n_for_floor, n_for_noninferiority
from harness.stats.proportion import clopper_pearson_lower, clopper_pearson_upper
from harness.stats.stratified import stratified_harm_p, stratified_interval, stratified_noninferiority_p

SEED = 0


def pass_p(metric: MetricComparison, margin: float, width: float) -> float:
    """One-sided p of H0: Δ ≤ −margin; small when the candidate is not worse by the margin."""
    if _counted(metric) and width == 1:
        return noninferiority_p(metric.only_baseline_right or 0, metric.only_candidate_right or 0, metric.n, margin)
    return _noninferiority_p(metric, differences(metric) / width, margin)


def gain_p(metric: MetricComparison, margin: float, width: float) -> float:
    """One-sided p of H0: Δ ≤ +margin; small when the candidate is better by more than the margin.

    Never below the chance that the items show none of the total losses that would bring the gain down to the margin.
    """
    lost, gained = metric.only_baseline_right, metric.only_candidate_right
    counted = 0.0
    if lost is not None and gained is not None and width == 1 and not metric.equal_weights:
        counted = superiority_p(lost, gained, metric.n, margin)
        if _counted(metric):
            return counted
    d = differences(metric) / width
    items = float(metric.n) if metric.clusters is None else effective_items(d, np.array(metric.clusters))
    unseen = unseen_drop_p(d, -margin, items)
    return max(counted, unseen, _noninferiority_p(metric, d - 2 * margin, margin))  # Δ − 2 margin ≤ −margin


def shortfall_p(metric: MetricComparison, margin: float, width: float) -> float:
    """One-sided p of H0: Δ ≥ +margin; small when the candidate is not better by the margin (roles turned)."""
    if _counted(metric) and width == 1:
        return noninferiority_p(metric.only_candidate_right or 0, metric.only_baseline_right or 0, metric.n, margin)
    return _noninferiority_p(metric, -differences(metric) / width, margin)


def _noninferiority_p(metric: MetricComparison, d: Any, margin: float) -> float:
    """One-sided p of H0: mean of d ≤ −margin, by the metric's clusters or strata."""
    if metric.clusters is not None:
        return clustered_noninferiority_p(d, np.array(metric.clusters), margin, SEED)
    if _stratified(metric):
        return stratified_noninferiority_p(d, _labels(metric.strata or []), margin, metric.equal_weights)
    return noninferiority_p_continuous(d, margin, SEED)


def fail_p(metric: MetricComparison) -> float:
    """One-sided p of H0: Δ ≥ 0; small when the candidate is worse."""
    if _counted(metric):
        return mcnemar_midp_harm(metric.only_baseline_right or 0, metric.only_candidate_right or 0)
    if untestable_reason(metric) is not None:
        return 1.0
    d = differences(metric)
    if metric.clusters is not None:
        return clustered_harm_p(d, np.array(metric.clusters), SEED)
    if _stratified(metric):
        return stratified_harm_p(d, _labels(metric.strata or []), metric.equal_weights)
    return harm_p_continuous(d, SEED)


def interval(metric: MetricComparison, level: float) -> tuple[float, float]:
    """Two-sided interval of Δ; as wide as the range allows where the items are too few for any test."""
    if _counted(metric):
        return tango_interval(metric.only_baseline_right or 0, metric.only_candidate_right or 0, metric.n, level)
    if untestable_reason(metric) is not None:
        reach = max(1.0, metric.highest - metric.lowest)
        return -reach, reach
    d = differences(metric)
    if metric.clusters is not None:
        return clustered_interval(d, np.array(metric.clusters), level, SEED)
    if _stratified(metric):
        return stratified_interval(d, _labels(metric.strata or []), level, metric.equal_weights)
    return interval_continuous(d, level, SEED)


def interval_doubt(metric: MetricComparison) -> str | None:
    """Why `interval` may cover the truth less often than it says; None where simulation shows that it covers.

    No interval covers what the sample lacks: where one item in twenty moves, an interval of 30 items covers 78%.
    """
    if _counted(metric) or metric.clusters is not None or _stratified(metric) or not 2 <= metric.n < FEW_FOR_INTERVAL:
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

    Clopper–Pearson at alpha = (lower bound's, upper bound's), on the effective sample size where items are clustered.
    Scores between 0 and 1 vary less than right/wrong scores of the same mean, so the bounds hold for them too.
    """
    share = (metric.candidate - lowest) / width
    share = share if metric.direction == "higher" else 1 - share
    n = max(1, math.floor(metric.effective_n or metric.n))
    min_right, max_right = math.floor(share * n + 1e-9), min(n, math.ceil(share * n - 1e-9))
    return clopper_pearson_lower(min_right, n, alpha[0]), clopper_pearson_upper(max_right, n, alpha[1])


def items_to_decide(metric: MetricComparison, margin: float, width: float, alpha: float, power: float) -> int:
    """Items with which an equal model passes with the given power, at the observed discordance.

    Where the sample is that large already, the models seem to differ: then the items that decide at the observed Δ.
    """
    if metric.only_baseline_right is not None and metric.only_candidate_right is not None and width == 1:
        spread = (metric.only_baseline_right + metric.only_candidate_right) / metric.n
    else:
        spread = min(1.0, float(np.var(differences(metric) / width)))
    design = metric.n / (metric.effective_n or metric.n)
    needed = math.ceil(n_for_noninferiority(margin, spread, alpha, power) * design)
    if needed > metric.n:
        return needed
    delta = metric.delta / width
    if delta <= -margin:
        seemingly = n_for_noninferiority(min(-delta, 0.999), spread, alpha, power)
    else:
        seemingly = n_for_noninferiority(margin, spread, alpha, power, min(delta, 0.0))
    return max(math.ceil(seemingly * design), metric.n + 1)


def items_for_floor(share: float, floor: float, alpha: float, power: float) -> int | None:
    """Items that show whether this share reaches or misses the floor; None when it lies on the floor."""
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


def untestable_reason(metric: MetricComparison) -> str | None:
    """Why the metric's items allow no test; None where they do."""
    if not _counted(metric) and metric.n < 2:
        return "was measured on a single item, which allows no test"
    if metric.clusters is not None and len(set(metric.clusters)) <= 1:
        return f"was measured on a single cluster of {metric.clustered_by}, which allows no test"
    if metric.equal_weights and metric.clusters is None and not _stratified(metric):
        return "weighs its tasks equally, but one of them has a single item, which allows no test"
    return None


def _counted(metric: MetricComparison) -> bool:
    plain = metric.differences is None and metric.clusters is None and not metric.equal_weights
    return plain and metric.only_baseline_right is not None


def _stratified(metric: MetricComparison) -> bool:
    return metric.strata is not None and len(metric.strata) > 1 and all(stratum.n > 1 for stratum in metric.strata)


def _labels(strata: Sequence[Stratum]) -> Any:
    """The number of each item's stratum, in the order of the differences."""
    return np.repeat(np.arange(len(strata)), [stratum.n for stratum in strata])
