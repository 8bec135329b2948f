"""Compares a candidate with a baseline, item by item: differences with intervals, flips, forgetting."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import fsum
from typing import Any

import numpy as np

from harness.config.gate import GateConfig
from harness.gate.pairing import (
    Pairs,
    directions_of,
    group_pairs,
    is_gated,
    keys_of,
    pair_task,
    pairing_errors,
)
from harness.gate.policy import cluster_field, rules_for
from harness.gate.significance import SEED, interval, interval_doubt
from harness.records.gate import (
    Adjusted,
    Comparison,
    Flip,
    Forgetting,
    MetricComparison,
    Relative,
    Side,
    Stopped,
    Stratum,
)
from harness.results.evidence import Evidence
from harness.results.samples import texts
from harness.stats.clustered import effective_items
from harness.stats.forgetting import chance_adjusted_flips, relative_drop, suite_summary

MAX_FLIPS = 100  # a metric
LEVEL = 0.95


def compare(baseline: Evidence, candidate: Evidence, policy: GateConfig | None = None) -> Comparison:
    """All metrics that both sides have, by task, slice and group, and every reason why they cannot be compared.

    The policy says which items depend on each other (cluster keys), what a slice is, and which metrics are guards.
    """
    errors = pairing_errors(baseline, candidate)
    direction = directions_of(baseline, candidate, policy)
    pairs: list[Pairs] = []
    stopped: dict[str, Stopped] = {}
    for task in sorted(set(baseline.samples) & set(candidate.samples)):
        of_task, more, early = pair_task(baseline, candidate, task, direction)
        errors += [
            f"task {task}: it is unknown whether higher or lower {one.metric} is better; set the rule's direction"
            for one in of_task
            if direction(task, one.metric) is None and is_gated(policy, keys_of(candidate, task, one.metric))
        ]
        pairs += of_task
        errors += more
        stopped |= {task: early} if early is not None else {}
    measure = _Measure(candidate.suite, policy)
    metrics = [metric for one in pairs for metric in measure.task(one)]
    metrics += measure.groups(baseline, candidate, pairs)
    errors += measure.errors
    return Comparison(
        baseline=_side(baseline),
        candidate=_side(candidate),
        metrics=metrics,
        flips=[flip for one in pairs for flip in _flips(one)],
        faults=errors,
        forgetting=_forgetting(pairs, metrics, policy),
        stopped=stopped,
        flip_share=dict(candidate.flip_share),
        evaluated=sorted({*baseline.samples, *candidate.samples, *baseline.groups, *candidate.groups}),
    )


def compare_distinct(baseline: Evidence, candidate: Evidence, policy: GateConfig | None = None) -> Comparison:
    """As `compare`; a baseline that is the candidate's own evaluation is an error, since no test on it can fail."""
    comparison = compare(baseline, candidate, policy)
    if baseline.sha256 != candidate.sha256:
        return comparison
    error = f"the baseline {baseline.label} is the candidate's own evaluation; name another baseline"
    return comparison.model_copy(update={"faults": [error, *comparison.faults]})


def compare_all(
    baseline: Evidence, candidate: Evidence, others: Mapping[str, Evidence], policy: GateConfig | None = None
) -> Comparison:
    """As `compare_distinct`, with the candidate against every further baseline too; `others` are by the policy's name.

    A further baseline that is the same evaluation as `baseline` is only named (`same`). Flips against further baselines
    are left out.
    """
    comparison = compare_distinct(baseline, candidate, policy)
    same = [name for name, other in others.items() if other.sha256 == baseline.sha256]
    further = [
        compare_distinct(replace(other, label=name), candidate, policy).model_copy(update={"flips": []})
        for name, other in others.items()
        if name not in same
    ]
    return comparison.model_copy(update={"others": further, "same": same})


class _Measure:
    """Turns pairs into metrics under one policy; `errors` say which cluster and slice keys some items lack."""

    def __init__(self, suite: str, policy: GateConfig | None):
        self._suite = suite
        self._slice_key = policy.slice_key if policy else "slice"
        self._cluster = cluster_field(policy)
        self._errors: dict[str, None] = {}

    @property
    def errors(self) -> list[str]:
        return list(self._errors)

    def task(self, pairs: Pairs) -> Iterator[MetricComparison]:
        """The metric on all items, then on each slice."""
        if error := pairs.slice_error(self._slice_key):
            self._errors[error] = None
        yield self._metric(pairs.task, "all", [pairs])
        for name, part in pairs.by_slice(self._slice_key).items():
            yield self._metric(pairs.task, name, [part])

    def groups(self, baseline: Evidence, candidate: Evidence, pairs: Sequence[Pairs]) -> list[MetricComparison]:
        """A group's metric on its pooled items (each of its tasks is one stratum of them)."""
        same = {group: tasks for group, tasks in candidate.groups.items() if group in baseline.groups}
        grouped = group_pairs(same, pairs)
        equally = {**baseline.equal_weights, **candidate.equal_weights}
        return [self._metric(key[0], "all", parts, equally.get(key, False)) for key, parts in grouped.items()]

    def _metric(self, task: str, slice_: str, parts: Sequence[Pairs], equally: bool = False) -> MetricComparison:
        first = parts[0]
        before = np.concatenate([part.left.values for part in parts])
        after = np.concatenate([part.right.values for part in parts])
        difference = np.concatenate([part.difference for part in parts])
        binary = all(part.binary for part in parts)
        lost, gained = int((difference < 0).sum()), int((difference > 0).sum())
        field = self._cluster(f"{self._suite}/{task}/{first.metric}")
        self._errors |= dict.fromkeys(error for part in parts if field and (error := part.cluster_error(field)))
        clusters = _clusters(parts, field)
        strata = None
        if len(parts) > 1 or task != first.task:
            signs = [(part.task, np.sign(part.difference)) for part in parts]
            strata = [
                Stratum(task=name, lost=int((sign < 0).sum()), gained=int((sign > 0).sum()), n=len(sign))
                for name, sign in signs
            ]
        weights = _weights(parts, equally)
        # The tests take weighted differences for cluster sums; strata have weights of their own.
        kept = difference if clusters is None else weights * difference
        metric = MetricComparison(
            suite=self._suite,
            task=task,
            slice=slice_,
            metric=first.metric,
            n=len(difference),
            baseline=_mean(weights * before),
            candidate=_mean(weights * after),
            delta=_mean(weights * difference),
            ci_low=-1.0,
            ci_high=1.0,
            only_baseline_right=lost if binary else None,
            only_candidate_right=gained if binary else None,
            direction=first.direction,
            beyond_chance=_beyond_chance(parts, before, after) if binary and not equally else None,
            relative_drop=_relative(weights * before, weights * after, first.direction, clusters is not None),
            lowest=float(min(before.min(), after.min())),
            highest=float(max(before.max(), after.max())),
            differences=None if binary and clusters is None else kept.tolist(),
            scores=None if clusters is None and not equally else (weights * after).tolist(),
            clusters=None if clusters is None else clusters.tolist(),
            clustered_by=field if clusters is not None else None,
            strata=strata,
            equal_weights=equally,
            effective_n=_effective(after, weights, clusters),
            planned_baseline=first.planned_baseline if task == first.task else None,
        )
        low, high = interval(metric, LEVEL)
        return metric.model_copy(update={"ci_low": low, "ci_high": high, "interval_doubt": interval_doubt(metric)})


def _mean(values: Any) -> float:
    """The mean, from a sum without rounding: the order of the items changes no bit."""
    whole = bool((values == np.rint(values)).all())
    return (float(values.sum()) if whole else fsum(values.tolist())) / len(values)


def _weights(parts: Sequence[Pairs], equally: bool) -> Any:
    """The weight of each item, 1 on average: equal for all items, or such that each part counts the same."""
    sizes = np.array([len(part) for part in parts])
    of_parts = sizes.sum() / (len(sizes) * sizes) if equally else np.ones(len(sizes))
    return np.repeat(of_parts, sizes)


def _effective(after: Any, weights: Any, clusters: Any) -> float | None:
    """The effective sample size (Kish 1965); None where items are independent and weigh the same."""
    if clusters is not None and len(set(clusters.tolist())) > 1:
        return float(effective_items(weights * after, clusters))
    unequal = clusters is None and np.ptp(weights) > 0
    return float(weights.sum() ** 2 / (weights**2).sum()) if unequal else None


def _clusters(parts: Sequence[Pairs], field: str | None) -> Any:
    """The number of each item's cluster, over all parts; None without a cluster key, or where an item lacks it."""
    if field is None or any(part.cluster_error(field) for part in parts):
        return None
    codes: list[Any] = []
    for part in parts:
        base = max((int(own.max()) + 1 for own in codes), default=0)
        codes.append(part.codes(field) + base)
    return np.concatenate(codes)


def _beyond_chance(parts: Sequence[Pairs], before: Any, after: Any) -> Adjusted | None:
    """Flips that guessing does not explain, where every item is multiple choice; with several numbers of choices, their
    harmonic mean."""
    choices = np.concatenate([part.right.choices for part in parts])
    if (choices < 2).any():
        return None
    lost, gained = int((before > after).sum()), int((before < after).sum())
    both_wrong = int(((before == 0) & (after == 0)).sum())
    typical = round(1 / float((1 / choices).mean()))
    return Adjusted.model_validate(vars(chance_adjusted_flips(lost, gained, both_wrong, len(before), typical, LEVEL)))


def _relative(before: Any, after: Any, direction: str, clustered: bool) -> Relative | None:
    if len(before) < 2 or min(before.min(), after.min()) < 0:
        return None
    relative = relative_drop(before, after, LEVEL)
    if relative is None:
        return None
    drop, low, high = relative.drop, relative.low, relative.high
    if direction == "lower":
        drop, low, high = -drop, -high, -low
    # Fieller's interval assumes independent items, and has no width where no item changed.
    unknown = clustered or low == high
    limits = [None if unknown or not np.isfinite(limit) else limit for limit in (low, high)]
    return Relative(drop=drop, low=limits[0], high=limits[1])


def _forgetting(
    pairs: Sequence[Pairs], metrics: Sequence[MetricComparison], policy: GateConfig | None
) -> Forgetting | None:
    """Forgetting over the tasks that a guard covers; without a policy, over each task's first right/wrong metric."""
    guarded: set[tuple[str, str]] = set()
    if policy is not None:
        for metric in metrics:
            if metric.slice == "all" and any(rule.role == "guard" for rule in rules_for(policy, metric)):
                tasks = [part.task for part in metric.strata] if metric.strata else [metric.task]
                guarded |= {(task, metric.metric) for task in tasks}
    chosen: dict[str, Pairs] = {}
    for one in pairs:
        counts = one.binary if policy is None else (one.task, one.metric) in guarded
        if counts and len(one) > 1:
            chosen.setdefault(one.task, one)
    if not chosen:
        return None
    summary = suite_summary([one.difference for one in chosen.values()], LEVEL, SEED)
    worst = list(chosen.values())[summary.worst_index]
    values = {name: value for name, value in vars(summary).items() if name not in ("worst", "worst_index")}
    return Forgetting(worst=f"{worst.task}/{worst.metric}", worst_delta=summary.worst, **values)


def _flips(pairs: Pairs) -> Iterator[Flip]:
    """Items whose value changed, regressions first."""
    difference = pairs.difference
    changed = np.concatenate([np.flatnonzero(difference < 0), np.flatnonzero(difference > 0)])[:MAX_FLIPS]
    for index in changed:
        prompt, before = texts(pairs.left.path, int(pairs.left.places[index]))
        _, after = texts(pairs.right.path, int(pairs.right.places[index]))
        yield Flip(
            task=pairs.task,
            metric=pairs.metric,
            item=pairs.left.items[index].decode(errors="replace"),
            prompt=prompt,
            baseline_response=before,
            candidate_response=after,
            baseline_value=float(pairs.left.values[index]),
            candidate_value=float(pairs.right.values[index]),
            direction=pairs.direction,
        )


def _side(evidence: Evidence) -> Side:
    return Side(
        label=evidence.label,
        weights_sha256=evidence.weights_sha256,
        contract_sha256=evidence.contract_sha256,
        evidence_sha256=evidence.sha256,
    )
