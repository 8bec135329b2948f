"""The same items of two evaluations side by side, and every reason why they may not be compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.config.gate import GateConfig
from harness.gate.sequential import first_items
from harness.records.gate import Direction, Stopped
from harness.records.stages import TaskIdentity
from harness.results.columns import NONE, Column
from harness.results.evidence import Evidence, weighting_errors
from harness.stats.checks import FloatArray

# Whether more or less of a metric is better: as the task says, else the policy's rule, else what lm-eval registers.


# Metrics in lm-eval's registry (lm_eval/api/metrics.py), by their higher_is_better
HIGHER = frozenset(
    "acc acc_all acc_bytes acc_mutual_info acc_norm bleu chrf chrf++ exact_match f1 likelihood mcc".split()  # noqa: SIM905
)
LOWER = frozenset(("brier_score", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "ter"))

Directions = Callable[[str, str], Direction | None]


def directions_of(baseline: Evidence, candidate: Evidence, policy: GateConfig | None) -> Directions:
    """(task, metric) → its direction; None where neither task, rule nor registry says one."""
    sides = (baseline, candidate)

    def direction(task: str, metric: str) -> Direction | None:
        name = metric.split(",")[0]
        stated = [side.identities[task] for side in sides if name not in side.identities[task].undirected]
        if stated:
            return "lower" if any(name in identity.lower_is_better for identity in stated) else "higher"
        return _ruled(policy, keys_of(candidate, task, metric)) or _registered(name)

    return direction


def keys_of(evidence: Evidence, task: str, metric: str) -> list[str]:
    """The names that a rule may match: of the metric on its task, and on every group with the task."""
    groups = [group for group, tasks in evidence.groups.items() if task in tasks]
    return [f"{evidence.suite}/{name}/{metric}" for name in (task, *groups)]


def is_gated(policy: GateConfig | None, keys: Sequence[str]) -> bool:
    """Whether a deciding rule matches any of the keys, before an info rule does."""
    matching = (next((r for r in policy.rules if fnmatchcase(key, r.metric)), None) for key in keys) if policy else ()
    return any(rule is not None and rule.role != "info" for rule in matching)


def _ruled(policy: GateConfig | None, keys: Sequence[str]) -> Direction | None:
    rules = policy.rules if policy else []
    matching = (rule for rule in rules if any(fnmatchcase(key, rule.metric) for key in keys))
    return next((rule.direction for rule in matching if rule.direction is not None), None)


def _registered(name: str) -> Direction | None:
    return "higher" if name in HIGHER else "lower" if name in LOWER else None


SAME = ("version", "num_fewshot", "generation")


@dataclass(frozen=True)
class Pairs:
    """One metric on the items both sides have, sorted by doc_hash; arrays of shape (n,), values as reported.

    `places` are the rows of the baseline's and the candidate's file. `planned_baseline` is the baseline's mean over all
    planned items where the candidate was asked the first of them only.
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
        """candidate − baseline, turned so that larger is better."""
        difference = self.right.values - self.left.values
        return difference if self.direction == "higher" else -difference

    @property
    def binary(self) -> bool:
        return all(bool(((values == 0) | (values == 1)).all()) for values in (self.left.values, self.right.values))

    def codes(self, field: str) -> npt.NDArray[np.int32]:
        """The number of each item's value of a document field, NONE where it has none."""
        return self.right.fields.get(field, np.full(len(self), NONE, dtype=np.int32))

    def unclustered(self, field: str) -> str | None:
        """Why the items cannot be clustered by a document field; None when each has it, the same on both sides."""
        lacking = max(int((side.coded(field) == "").sum()) for side in (self.left, self.right))
        if lacking:
            told = f"task {self.task}: {lacking} of {len(self)} items have no {field}"
            return f"{told}, which the policy clusters by; correct the rule's cluster key or the documents"
        if changed := int((self.left.coded(field) != self.right.coded(field)).sum()):
            return f"task {self.task}: the {field} of {changed} items, which the policy clusters by, differs"
        return None

    def resliced(self, field: str) -> str | None:
        """Why the items cannot be sliced by a document field; None when each has the same value on both sides."""
        if changed := int((self.left.coded(field) != self.right.coded(field)).sum()):
            told = f"task {self.task}: the {field} of {changed} items, which slices are made of, differs"
            return f"{told} between the two sides; evaluate both on the same documents"
        return None

    def by_slice(self, field: str) -> dict[str, "Pairs"]:
        """The pairs of each value of a document field that any item has, by name."""
        codes = self.right.fields.get(field)
        if codes is None or (codes == NONE).all():
            return {}
        names = self.right.names[field]
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
        parts = {name: np.sort(order[starts[i] : starts[i + 1]]) for i, name in enumerate(names)}
        return {name: self.only(parts[name]) for name in sorted(parts) if len(parts[name])}

    def only(self, index: Any) -> "Pairs":
        return Pairs(self.task, self.metric, self.direction, self.left.only(index), self.right.only(index))


def pairing_errors(baseline: Evidence, candidate: Evidence) -> list[str]:
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
        if sorted(baseline.groups.get(group, [])) != sorted(candidate.groups.get(group, [])):
            faults.append(f"group {group} does not hold the same tasks on both sides")
        for side in (baseline, candidate):
            if missing := sorted(set(side.groups.get(group, [])) - set(side.samples)):
                faults.append(f"group {group} of {side.label} lacks {', '.join(missing)}")
    faults += weighting_errors(baseline.equal_weights, candidate.equal_weights)
    for task in sorted(set(baseline.identities) & set(candidate.identities)):
        faults += _identity_errors(task, baseline, candidate)
    return faults


def _identity_errors(task: str, baseline: Evidence, candidate: Evidence) -> list[str]:
    left, right = baseline.identities[task], candidate.identities[task]
    faults = [
        f"task {task}: {name} differs ({getattr(left, name)} and {getattr(right, name)})"
        for name in SAME
        if getattr(left, name) != getattr(right, name)
    ]
    if sorted(left.lower_is_better) != sorted(right.lower_is_better):
        faults.append(f"task {task}: the two sides disagree on whether higher or lower is better")
    for side, identity in ((baseline, left), (candidate, right)):
        if identity.scored != identity.asked:
            why = "; ".join(f"{n}: {reason}" for reason, n in identity.failures.items())
            told = f"task {task}: {identity.asked - identity.scored} items of {side.label} have no score"
            faults.append(f"{told} ({why})" if why else told)
        for metric, column in sorted(side.samples.get(task, {}).items()):
            if column.unscored:
                faults.append(f"task {task}: {column.unscored} items of {side.label} have no score of {metric}")
    return faults


def pair_task(
    baseline: Evidence, candidate: Evidence, task: str, direction: Callable[[str, str], Direction | None]
) -> tuple[list[Pairs], list[str], Stopped | None]:
    """Every metric of a task on the common items, what makes them incomparable, and whether the task ended early.

    A metric without a direction is shown as if more were better; no rule may decide on it.
    """
    left, right = baseline.samples[task], candidate.samples[task]
    identity = candidate.identities[task]
    faults = [f"task {task}: metric {metric} exists on one side only" for metric in sorted(set(left) ^ set(right))]
    stopped, told = _stopped(task, baseline.identities[task], identity, left, right)
    faults += told
    pairs = []
    for metric in sorted(set(left) & set(right)):
        a, b = left[metric], right[metric]
        planned = None
        if stopped is not None:
            planned, a = float(a.values.mean()), a.only(np.isin(a.items, b.items))
            if not np.isfinite(planned):
                faults.append(f"task {task}: {metric} of the baseline is not a number for some items")
                continue
        one, told = _pair(task, metric, a, b, direction(task, metric) or "higher")
        faults += told
        pairs += [replace(one, planned_baseline=planned)] if one is not None else []
    return pairs, faults, stopped


def _stopped(
    task: str, left: TaskIdentity, right: TaskIdentity, before: Mapping[str, Column], after: Mapping[str, Column]
) -> tuple[Stopped | None, list[str]]:
    """How far a declared early stop went, and why it is not the one that was declared.

    The baseline is cut to the candidate's items in this case only, and only when they are the first of the order.
    """
    if left.stopped_at is not None:
        return None, [f"task {task}: the baseline stopped after {left.stopped_at} items; a baseline is evaluated whole"]
    if right.stopped_at is None:
        return None, []
    if right.planned is None or right.order_seed is None:
        return None, [
            f"task {task}: it stopped after {right.stopped_at} items, but nobody knows of how many or in which order"
        ]
    planned, asked = _documents(before), _documents(after)
    if len(planned) != right.planned:
        return None, [f"task {task}: {right.planned} items were planned, the baseline has {len(planned)}"]
    if asked != set(first_items(sorted(planned), right.order_seed, task, right.stopped_at)):
        return None, [
            f"task {task}: its {len(asked)} items are not the first {right.stopped_at} of the order that was fixed "
            f"beforehand (seed {right.order_seed})"
        ]
    if right.stopped_at == right.planned:
        return None, []
    return Stopped(items=right.stopped_at, planned=right.planned, seed=right.order_seed), []


def _documents(columns: Mapping[str, Column]) -> set[int]:
    return {doc for column in columns.values() for doc in column.docs.tolist()}


def _pair(task: str, metric: str, a: Column, b: Column, direction: Direction) -> tuple[Pairs | None, list[str]]:
    faults = []
    if not np.array_equal(a.items, b.items):
        common, at_left, at_right = np.intersect1d(a.items, b.items, assume_unique=True, return_indices=True)
        lone = len(a) + len(b) - 2 * len(common)
        faults.append(f"task {task}: {lone} items have a {metric} on one side only")
        a, b = a.only(at_left), b.only(at_right)
    for what, left, right in (("prompts", a.prompts, b.prompts), ("targets", a.targets, b.targets)):
        if changed := int((left != right).sum()):
            faults.append(f"task {task}: the {what} of {changed} items differ between the two sides")
    if changed := int((a.samples != b.samples).sum()):
        faults.append(f"task {task}: {changed} items were answered more often on one side than on the other")
    if not len(a):
        return None, faults
    if not all(np.isfinite(side.values).all() for side in (a, b)):
        return None, [*faults, f"task {task}: {metric} is not a number for some items"]
    return Pairs(task, metric, direction, a, b), faults


def _short(digest: str) -> str:
    return digest[:12] or "unknown"


def group_pairs(groups: Mapping[str, Sequence[str]], pairs: Sequence[Pairs]) -> dict[tuple[str, str], list[Pairs]]:
    """(group, metric) → the pairs of its tasks, where all of them have the metric."""
    by_task = {(one.task, one.metric): one for one in pairs}
    found = {}
    for group, tasks in groups.items():
        for metric in sorted({one.metric for one in pairs}):
            if tasks and all((task, metric) in by_task for task in tasks):
                found[group, metric] = [by_task[task, metric] for task in tasks]
    return found
