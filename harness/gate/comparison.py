"""Candidate against baseline, paired item by item. Reads evaluations; knows no policy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.gate.evidence import Evidence
from harness.records import Comparison, Flip, MetricComparison, Side
from harness.stats.continuous import interval_continuous
from harness.stats.paired import tango_interval

MAX_FLIPS = 100  # a metric
LEVEL = 0.95
SEED = 0


@dataclass(frozen=True)
class _Pairs:
    """Values of one metric on the same items, in the same order: shape (n,), larger is better."""

    items: list[str]
    baseline: np.ndarray[Any, np.dtype[np.float64]]
    candidate: np.ndarray[Any, np.dtype[np.float64]]


def compare(baseline: Evidence, candidate: Evidence) -> Comparison:
    """All metrics both sides have, and every reason why they may not be compared."""
    faults = incomparable(baseline, candidate)
    metrics: list[MetricComparison] = []
    flips: list[Flip] = []
    for task in sorted(set(baseline.samples) & set(candidate.samples)):
        for metric, pairs in _paired(baseline, candidate, task, faults):
            metrics.append(_metric(candidate.suite, task, metric, pairs))
            flips += _flips(baseline, candidate, task, metric, pairs)
    metrics += _grouped(baseline, candidate, metrics)
    return Comparison(
        baseline=_side(baseline),
        candidate=_side(candidate),
        metrics=metrics,
        flips=flips,
        faults=faults,
    )


def incomparable(baseline: Evidence, candidate: Evidence) -> list[str]:
    """Differences between two evaluations that make their items incomparable, in words."""
    faults = []
    if baseline.contract_sha256 != candidate.contract_sha256:
        faults.append(
            "the prompt contracts differ: the two models were not asked in the same way "
            f"({_short(baseline.contract_sha256)} and {_short(candidate.contract_sha256)})"
        )
    for task in sorted(set(baseline.samples) ^ set(candidate.samples)):
        faults.append(f"task {task} was evaluated on one side only")
    for group in sorted(set(baseline.groups) | set(candidate.groups)):
        if baseline.groups.get(group) != candidate.groups.get(group):
            faults.append(f"group {group} does not hold the same tasks on both sides")
    for task in sorted(set(baseline.identities) & set(candidate.identities)):
        left, right = baseline.identities[task], candidate.identities[task]
        for field in ("version", "num_fewshot", "generation"):
            if getattr(left, field) != getattr(right, field):
                faults.append(f"task {task}: {field} differs ({getattr(left, field)} and {getattr(right, field)})")
        for side, identity in ((baseline, left), (candidate, right)):
            if identity.scored != identity.asked:
                faults.append(f"task {task}: {identity.asked - identity.scored} items of {side.label} have no score")
    return faults


def _paired(baseline: Evidence, candidate: Evidence, task: str, faults: list[str]) -> Iterator[tuple[str, _Pairs]]:
    """The metrics of a task on the common items; differing item sets and prompts are added to `faults`."""
    left, right = baseline.samples[task], candidate.samples[task]
    metrics = sorted(set(left) & set(right))
    for metric in sorted(set(left) ^ set(right)):
        faults.append(f"task {task}: metric {metric} exists on one side only")
    for metric in metrics:
        a, b = left[metric], right[metric]
        if set(a) != set(b):
            faults.append(f"task {task}: {len(set(a) ^ set(b))} items have a {metric} on one side only")
        items = sorted(set(a) & set(b))
        regraded = sum(a[item].target_hash != b[item].target_hash for item in items)
        if regraded:
            faults.append(f"task {task}: the targets of {regraded} items differ between the two sides")
        changed = [item for item in items if a[item].prompt_hash != b[item].prompt_hash]
        if changed:
            faults.append(f"task {task}: the prompts of {len(changed)} items differ between the two sides")
        values = [np.array([side[item].value for item in items], dtype=np.float64) for side in (a, b)]
        if items and not all(np.isfinite(v).all() for v in values):
            faults.append(f"task {task}: {metric} is not a number for some items")
        elif items:
            yield metric, _Pairs(items, *values)


def _metric(suite: str, task: str, metric: str, pairs: _Pairs) -> MetricComparison:
    n = len(pairs.items)
    difference = pairs.candidate - pairs.baseline
    binary = bool(np.isin(np.concatenate([pairs.baseline, pairs.candidate]), (0.0, 1.0)).all())
    lost, gained = int((difference < 0).sum()), int((difference > 0).sum())
    low, high = _interval(lost, gained, n, binary, difference)
    return MetricComparison(
        suite=suite,
        task=task,
        metric=metric,
        n=n,
        baseline=float(pairs.baseline.mean()),
        candidate=float(pairs.candidate.mean()),
        delta=float(difference.mean()),
        ci_low=low,
        ci_high=high,
        only_baseline_right=lost if binary else None,
        only_candidate_right=gained if binary else None,
        differences=None if binary else difference.tolist(),
    )


def _interval(lost: int, gained: int, n: int, binary: bool, difference: Any) -> tuple[float, float]:
    if binary:
        return tango_interval(lost, gained, n, LEVEL)
    if n < 2:
        return -1.0, 1.0
    return interval_continuous(difference, LEVEL, SEED)


def _grouped(
    baseline: Evidence, candidate: Evidence, metrics: Sequence[MetricComparison]
) -> Iterator[MetricComparison]:
    """A group's metric on its pooled items (each of its tasks is one stratum of them)."""
    by_task = {(m.task, m.metric): m for m in metrics}
    for group, tasks in candidate.groups.items():
        if baseline.groups.get(group) != tasks:
            continue
        shared = set.intersection(*({m.metric for m in metrics if m.task == task} for task in tasks))
        for metric in sorted(shared):
            parts = [by_task[task, metric] for task in tasks]
            yield _pooled(group, metric, parts)


def _pooled(group: str, metric: str, parts: Sequence[MetricComparison]) -> MetricComparison:
    n = sum(part.n for part in parts)
    binary = all(part.differences is None for part in parts)
    difference = np.concatenate([_differences(part) for part in parts])
    lost, gained = int((difference < 0).sum()), int((difference > 0).sum())
    low, high = _interval(lost, gained, n, binary, difference)
    return MetricComparison(
        suite=parts[0].suite,
        task=group,
        metric=metric,
        n=n,
        baseline=sum(part.baseline * part.n for part in parts) / n,
        candidate=sum(part.candidate * part.n for part in parts) / n,
        delta=float(difference.mean()),
        ci_low=low,
        ci_high=high,
        only_baseline_right=lost if binary else None,
        only_candidate_right=gained if binary else None,
        differences=None if binary else difference.tolist(),
    )


def _differences(part: MetricComparison) -> Any:
    """candidate − baseline item by item; for right/wrong metrics rebuilt from the flips (their order is of no use)."""
    if part.differences is not None:
        return np.array(part.differences)
    lost, gained = part.only_baseline_right or 0, part.only_candidate_right or 0
    return np.repeat([-1.0, 1.0, 0.0], [lost, gained, part.n - lost - gained])


def _flips(baseline: Evidence, candidate: Evidence, task: str, metric: str, pairs: _Pairs) -> list[Flip]:
    """Items whose value changed, regressions first."""
    difference = pairs.candidate - pairs.baseline
    changed = np.concatenate([np.flatnonzero(difference < 0), np.flatnonzero(difference > 0)])[:MAX_FLIPS]
    flips = []
    for index in changed:
        item = pairs.items[index]
        before, after = baseline.samples[task][metric][item], candidate.samples[task][metric][item]
        flips.append(
            Flip(
                task=task,
                metric=metric,
                item=item,
                prompt=before.prompt,
                baseline_response=before.response,
                candidate_response=after.response,
                baseline_value=float(pairs.baseline[index]),
                candidate_value=float(pairs.candidate[index]),
            )
        )
    return flips


def _side(evidence: Evidence) -> Side:
    return Side(label=evidence.label, weights_sha256=evidence.weights_sha256, contract_sha256=evidence.contract_sha256)


def _short(digest: str) -> str:
    return digest[:12] or "unknown"
