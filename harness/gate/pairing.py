"""Pairs the items of two evaluations, and lists every reason why they cannot be compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.config.gate import GateConfig
from harness.core.console import plural
from harness.gate.sequential import first_items
from harness.records.gate import Direction, Stopped
from harness.records.stages import TaskIdentity, slice_name
from harness.results.columns import NONE, Column
from harness.results.evidence import Evidence, weighting_errors
from harness.stats.checks import FloatArray

# Metrics in lm-eval's registry (lm_eval/api/metrics.py), by their higher_is_better
HIGHER = frozenset(
    "acc acc_all acc_bytes acc_mutual_info acc_norm bleu chrf chrf++ exact_match f1 likelihood mcc".split()  # noqa: SIM905
)
LOWER = frozenset(("brier_score", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "ter"))

Directions = Callable[[str, str], Direction | None]


def directions_of(baseline: Evidence, candidate: Evidence, policy: GateConfig | None) -> Directions:
    """The direction by (task, metric): the task's own, else a rule's, else that of lm-eval's registry, else None."""
    sides = (baseline, candidate)

    def direction(task: str, metric: str) -> Direction | None:
        name = metric.split(",")[0]
        stated = [side.identities[task] for side in sides if name not in side.identities[task].undirected]
        if stated:
            return "lower" if any(name in identity.lower_is_better for identity in stated) else "higher"
        keys = keys_of(candidate, task, metric)
        for rule in policy.rules if policy else []:
            if rule.direction is not None and any(fnmatchcase(key, rule.metric) for key in keys):
                return rule.direction
        return "higher" if name in HIGHER else "lower" if name in LOWER else None

    return direction


def keys_of(evidence: Evidence, task: str, metric: str) -> list[str]:
    """The keys that a rule may match: of the metric on its task, and on every group that holds the task."""
    groups = [group for group, tasks in evidence.groups.items() if task in tasks]
    return [f"{evidence.suite}/{name}/{metric}" for name in (task, *groups)]


def is_gated(policy: GateConfig | None, keys: Sequence[str]) -> bool:
    """Whether a deciding rule matches any of the keys, before an info rule does."""
    matching = (next((r for r in policy.rules if fnmatchcase(key, r.metric)), None) for key in keys) if policy else ()
    return any(rule is not None and rule.role != "info" for rule in matching)


MUST_MATCH = {
    "version": "the version differs",
    "num_fewshot": "num_fewshot differs",
    "generation": "the generation arguments differ",
}


@dataclass(frozen=True)
class Pairs:
    """One metric on the items that both sides have, sorted by doc_hash: `left` the baseline, `right` the candidate.

    Columns have length n and hold values as the task reports them. `planned_baseline` is the baseline's mean over all
    planned items, where the candidate's evaluation stopped early.
    """

    task: str
    metric: str
    direction: Direction
    left: Column
    right: Column
    planned_baseline: float | None = None

    def __len__(self) -> int:
        return len(self.left)

    @property
    def difference(self) -> FloatArray:
        """candidate − baseline, shape (n,); positive where the candidate is better, whatever the metric's direction."""
        difference = self.right.values - self.left.values
        return difference if self.direction == "higher" else -difference

    @property
    def binary(self) -> bool:
        return all(bool(((values == 0) | (values == 1)).all()) for values in (self.left.values, self.right.values))

    def codes(self, field: str) -> npt.NDArray[np.int32]:
        """The number of each item's value of a document field, NONE where it has none."""
        return self.right.fields.get(field, np.full(len(self), NONE, dtype=np.int32))

    def cluster_error(self, field: str) -> str | None:
        """Why the items cannot be clustered by a document field; None when each has it, the same on both sides."""
        lacking = max(int((side.coded(field) == "").sum()) for side in (self.left, self.right))
        if lacking:
            verb = "has" if lacking == 1 else "have"
            return (
                f"task {self.task}: {lacking} of {plural(len(self), 'item')} {verb} no {field}, which the policy "
                "clusters by; correct the rule's cluster key or the documents"
            )
        if changed := int((self.left.coded(field) != self.right.coded(field)).sum()):
            return (
                f"task {self.task}: {field}, which the policy clusters by, differs between the two sides for "
                f"{plural(changed, 'item')}; evaluate both on the same documents"
            )
        return None

    def slice_error(self, field: str) -> str | None:
        """Why the items cannot be sliced by a document field; None when each has the same value on both sides."""
        if changed := int((self.left.coded(field) != self.right.coded(field)).sum()):
            return (
                f"task {self.task}: {field}, which names the slices, differs between the two sides for "
                f"{plural(changed, 'item')}; evaluate both on the same documents"
            )
        return None

    def by_slice(self, field: str) -> dict[str, "Pairs"]:
        """The pairs of each value of a document field that any item has, by name.

        A value "all" gets another name (`slice_name`); where no item has another value, there are no slices.
        """
        codes = self.right.fields.get(field)
        if codes is None or (codes == NONE).all():
            return {}
        names = self.right.names[field]
        if list(names) == ["all"]:
            return {}
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
        parts = {name: np.sort(order[starts[i] : starts[i + 1]]) for i, name in enumerate(names)}
        return {slice_name(name): self.only(parts[name]) for name in sorted(parts) if len(parts[name])}

    def only(self, index: Any) -> "Pairs":
        return Pairs(self.task, self.metric, self.direction, self.left.only(index), self.right.only(index))


def pairing_errors(baseline: Evidence, candidate: Evidence) -> list[str]:
    """Differences between two evaluations that make their items incomparable, one sentence each."""
    errors = []
    if baseline.contract_sha256 != candidate.contract_sha256:
        errors.append(
            "the prompt contracts differ: the two models did not get the same prompts "
            f"({_short(baseline.contract_sha256)} and {_short(candidate.contract_sha256)})"
        )
    for task in sorted(set(baseline.samples) ^ set(candidate.samples)):
        errors.append(f"task {task} was evaluated on one side only; evaluate it on both")
    for group in sorted(set(baseline.groups) | set(candidate.groups)):
        if sorted(baseline.groups.get(group, [])) != sorted(candidate.groups.get(group, [])):
            errors.append(f"group {group} does not hold the same tasks on both sides")
        for side in (baseline, candidate):
            if missing := sorted(set(side.groups.get(group, [])) - set(side.samples)):
                errors.append(f"group {group} of {side.label} lacks {', '.join(missing)}")
    errors += weighting_errors(baseline.equal_weights, candidate.equal_weights)
    for task in sorted(set(baseline.identities) & set(candidate.identities)):
        errors += _identity_errors(task, baseline, candidate)
    return errors


def _identity_errors(task: str, baseline: Evidence, candidate: Evidence) -> list[str]:
    left, right = baseline.identities[task], candidate.identities[task]
    errors = [
        f"task {task}: {error} ({_stated(left, name)} and {_stated(right, name)}); evaluate both alike"
        for name, error in MUST_MATCH.items()
        if getattr(left, name) != getattr(right, name)
    ]
    if sorted(left.lower_is_better) != sorted(right.lower_is_better):
        errors.append(f"task {task}: the two sides disagree on whether higher or lower is better")
    for side, identity in ((baseline, left), (candidate, right)):
        if identity.scored != identity.asked:
            why = "; ".join(f"{n}: {reason}" for reason, n in identity.failures.items())
            error = f"task {task}: {_without_score(identity.asked - identity.scored, side.label)}"
            errors.append(f"{error} ({why})" if why else error)
        for metric, column in sorted(side.samples.get(task, {}).items()):
            if column.unscored:
                errors.append(f"task {task}: {_without_score(column.unscored, side.label)} of {metric}")
    return errors


def _stated(identity: TaskIdentity, name: str) -> str:
    value = getattr(identity, name)
    return "not stated, n-shot is missing in the results" if value is None else str(value)


def _without_score(count: int, label: str) -> str:
    return f"{plural(count, 'item')} of {label} {'has' if count == 1 else 'have'} no score"


def pair_task(
    baseline: Evidence, candidate: Evidence, task: str, direction: Callable[[str, str], Direction | None]
) -> tuple[list[Pairs], list[str], Stopped | None]:
    """Every metric of a task on the common items, what makes them incomparable, and the early stop, if there was one.

    A metric of unknown direction is shown as if higher were better; no rule may decide on it.
    """
    left, right = baseline.samples[task], candidate.samples[task]
    identity = candidate.identities[task]
    errors = [f"task {task}: metric {metric} exists on one side only" for metric in sorted(set(left) ^ set(right))]
    stopped, more = _stopped(task, baseline.identities[task], identity, left, right)
    errors += more
    pairs = []
    for metric in sorted(set(left) & set(right)):
        a, b = left[metric], right[metric]
        planned = None
        if stopped is not None:
            planned, a = float(a.values.mean()), a.only(np.isin(a.items, b.items))
            if not np.isfinite(planned):
                errors.append(f"task {task}: {metric} of the baseline is not a number for some items")
                continue
        one, more = _pair(task, metric, a, b, direction(task, metric) or "higher")
        errors += more
        pairs += [replace(one, planned_baseline=planned)] if one is not None else []
    return pairs, errors, stopped


def _stopped(
    task: str, left: TaskIdentity, right: TaskIdentity, before: Mapping[str, Column], after: Mapping[str, Column]
) -> tuple[Stopped | None, list[str]]:
    """The early stop that the candidate's record declares, and why its items contradict it.

    Only then is the baseline cut to the candidate's items, and only if these are the first ones of the recorded order.
    """
    if left.stopped_at is not None:
        return None, [
            f"task {task}: the baseline stopped after {left.stopped_at} items; evaluate a baseline on all items"
        ]
    if right.stopped_at is None:
        return None, []
    if right.planned is None or right.order_seed is None:
        return None, [
            f"task {task}: it stopped after {right.stopped_at} items, but how many were planned, or in which order, "
            "is not recorded"
        ]
    planned, answered = _documents(before), _documents(after)
    if len(planned) != right.planned:
        return None, [f"task {task}: {right.planned} items were planned, but the baseline has {len(planned)}"]
    if answered != set(first_items(sorted(planned), right.order_seed, task, right.stopped_at)):
        return None, [
            f"task {task}: its {len(answered)} items are not the first {right.stopped_at} of the order that was fixed "
            f"beforehand (seed {right.order_seed})"
        ]
    if right.stopped_at == right.planned:
        return None, []
    return Stopped(items=right.stopped_at, planned=right.planned, seed=right.order_seed), []


def _documents(columns: Mapping[str, Column]) -> set[int]:
    return {doc for column in columns.values() for doc in column.docs.tolist()}


def _pair(task: str, metric: str, a: Column, b: Column, direction: Direction) -> tuple[Pairs | None, list[str]]:
    errors = []
    if not np.array_equal(a.items, b.items):
        common, at_left, at_right = np.intersect1d(a.items, b.items, assume_unique=True, return_indices=True)
        lone = len(a) + len(b) - 2 * len(common)
        verb = "has" if lone == 1 else "have"
        lonely = f"{plural(lone, 'item')} {verb} {metric} on one side only"
        errors.append(f"task {task}: {lonely}; evaluate both on the same items")
        a, b = a.only(at_left), b.only(at_right)
    for what, left, right in (("prompts", a.prompts, b.prompts), ("targets", a.targets, b.targets)):
        if changed := int((left != right).sum()):
            errors.append(f"task {task}: the {what} of {plural(changed, 'item')} differ between the two sides")
    if changed := int((a.samples != b.samples).sum()):
        verb = "was" if changed == 1 else "were"
        errors.append(
            f"task {task}: {plural(changed, 'item')} {verb} answered more often on one side than on the other"
        )
    if not len(a):
        return None, errors
    if not all(np.isfinite(side.values).all() for side in (a, b)):
        return None, [*errors, f"task {task}: {metric} is not a number for some items"]
    return Pairs(task, metric, direction, a, b), errors


def _short(digest: str) -> str:
    return digest[:12] or "unknown"


def group_pairs(groups: Mapping[str, Sequence[str]], pairs: Sequence[Pairs]) -> dict[tuple[str, str], list[Pairs]]:
    """By (group, metric): the pairs of the group's tasks, where all of them have the metric."""
    by_task = {(one.task, one.metric): one for one in pairs}
    found = {}
    for group, tasks in groups.items():
        for metric in sorted({one.metric for one in pairs}):
            if tasks and all((task, metric) in by_task for task in tasks):
                found[group, metric] = [by_task[task, metric] for task in tasks]
    return found
