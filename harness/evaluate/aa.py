"""The A/A check: one model asked twice, in other batches. What changes between the two is noise, not training."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.evaluate.answers import Answers
from harness.evaluate.plan import Item, Items, Plan
from harness.store import write_json

FILE = "aa.json"
Values = dict[str, dict[int, Any]]


@dataclass(frozen=True)
class Agreement:
    """How far two passes agree, task by task.

    `items` were scored in both; `flip_share` of them changed in any metric, `metrics` says in which; `answers_differ`
    is the share whose answers changed at all; `max_nats` the largest change of a log-likelihood (None without any).
    """

    tasks: dict[str, dict[str, Any]]

    @property
    def flip_shares(self) -> dict[str, float]:
        return {task: found["flip_share"] for task, found in self.tasks.items() if found["flip_share"] is not None}

    def __str__(self) -> str:
        changed = [f"{task} {share:.1%}" for task, share in self.flip_shares.items() if share]
        nats = max((found["max_nats"] for found in self.tasks.values() if found["max_nats"] is not None), default=None)
        told = f"items that flip: {', '.join(changed) or 'none'}"
        return told if nats is None else f"{told}; log-likelihoods differ by up to {nats:.3f} nats"

    def save(self, path: Path) -> None:
        write_json(path, {"second_pass": "opposite order, journal bypassed", "tasks": self.tasks})


def agreement(plan: Plan, first: Answers, again: Answers, items: Items | None) -> Agreement:
    """What changed between two passes over the same items."""
    scored = [plan.score(one.values, items) or {"samples": {}} for one in (first, again)]
    return Agreement(
        {
            task: _of_task(own, first, again, *(_values(found["samples"].get(task, [])) for found in scored))
            for task, own in plan.chosen(items).items()
        }
    )


def _values(rows: list[dict[str, Any]]) -> Values:
    """Values by metric (named with its filter unless that is the default) and item."""
    values: Values = {}
    for row in rows:
        for name in row["metrics"]:
            metric = name if row["filter"] == "none" else f"{name},{row['filter']}"
            values.setdefault(metric, {})[row["doc_id"]] = row[name]
    return values


def _of_task(own: list[Item], first: Answers, again: Answers, left: Values, right: Values) -> dict[str, Any]:
    changed = {
        metric: {item for item in before.keys() & right.get(metric, {}).keys() if before[item] != right[metric][item]}
        for metric, before in left.items()
    }
    both = [item for item in own if first.failure(item) is None and again.failure(item) is None]
    differing = sum(any(first.values[k] != again.values[k] for keys in item.keys for k in keys) for item in both)
    return {
        "items": len(both),
        "flip_share": _share(len(set().union(*changed.values())), len(both)),
        "metrics": {metric: _share(len(items), len(left[metric])) for metric, items in changed.items()},
        "answers_differ": _share(differing, len(both)),
        "max_nats": max(_nats(both, first, again), default=None),
    }


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _nats(items: list[Item], first: Answers, again: Answers) -> Iterator[float]:
    for item in items:
        for keys in item.keys:
            before, after = first.values[keys[0]], again.values[keys[0]]
            if not isinstance(before, str) and not isinstance(after, str):
                yield abs(before[0] - after[0])
