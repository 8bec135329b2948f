"""Results of domain tasks for the report: metrics by slice on both sides, and the candidate's failed answers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records.stages import Evaluation

SHOWN = 40  # a task


@dataclass(frozen=True)
class SliceRow:
    """One metric on one slice: values by evaluation label, None where a side has none; `n` items."""

    task: str
    metric: str
    slice: str
    n: int
    values: dict[str, float | None]

    @property
    def lowest(self) -> float:
        """The smallest value of any side."""
        return min(value for value in self.values.values() if value is not None)


@dataclass(frozen=True)
class BrokenAnswer:
    """An answer that breaks at least one rule; `broken` has a dict for each: `rule`, `expected` and `found`."""

    item: str
    slice: str
    prompt: str
    response: str
    broken: list[dict[str, Any]]


@dataclass(frozen=True)
class TaskFailures:
    """The failed answers of one task; `count` includes those not shown."""

    task: str
    answers: int
    count: int
    shown: list[BrokenAnswer]


def slice_rows(evaluations: Sequence[Evaluation]) -> list[SliceRow]:
    """The means of all evaluations side by side, sorted by task, metric and slice."""
    by_slice: dict[tuple[str, str, str], dict[str, Any]] = {}
    for evaluation in evaluations:
        for score in evaluation.scores:
            if score.slice != "all":
                by_slice.setdefault((score.task, score.metric, score.slice), {})[evaluation.label] = score
    labels = [evaluation.label for evaluation in evaluations]
    return [
        SliceRow(*key, max(s.n for s in sides.values()), {n: sides[n].value if n in sides else None for n in labels})
        for key, sides in sorted(by_slice.items())
    ]


def task_failures(folder: Path) -> list[TaskFailures]:
    """Failed answers by task, from an evaluation folder's samples; tasks without graded answers are left out."""
    tasks = []
    for path in sorted(folder.glob("samples_*.jsonl")):
        try:
            read = [json.loads(line) for line in path.read_bytes().decode().split("\n") if line.strip()]
        except ValueError:  # a damaged file, which the verdict reports
            continue
        rows = [row for row in read if isinstance(row, dict) and isinstance(row.get("doc"), dict)]
        graded = [row for row in rows if isinstance(row.get("findings"), list)]
        failed = [row for row in graded if not all(finding["pass"] for finding in row["findings"])]
        if graded:
            shown = [_broken_answer(row) for row in failed[:SHOWN]]
            tasks.append(TaskFailures(path.stem.removeprefix("samples_"), len(graded), len(failed), shown))
    return tasks


def _broken_answer(row: dict[str, Any]) -> BrokenAnswer:
    doc = row["doc"]
    prompt = "\n\n".join(text for text in (doc.get("instruction"), doc.get("input")) if text)
    broken = [finding for finding in row["findings"] if not finding["pass"]]
    response = (row.get("filtered_resps") or [""])[0]
    return BrokenAnswer(str(doc.get("id", row.get("doc_hash"))), doc.get("slice") or "", prompt, str(response), broken)
