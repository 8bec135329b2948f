"""The texts of a run's evaluation items, for decontamination: shipped and own domain tasks by their item files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import resources
from harness.config import TaskConfig
from harness.errors import DataError

TEXTS = ("passage", "question", "instruction", "input")


def domain_items(tasks: Sequence[TaskConfig]) -> list[dict[str, Any]]:
    """id and prompt text of every item of the tasks that are folders under tasks/.

    Stock lm-eval tasks have their items elsewhere; they are not covered here.
    """
    found: list[dict[str, Any]] = []
    for task in tasks:
        for folder in (root / task.name for root in resources.task_roots()):
            found += [item for path in sorted(folder.glob("*.jsonl")) for item in _items(path)]
    return found


def read_items(path: Path) -> list[dict[str, Any]]:
    """The rows of an items file (JSON lines)."""
    rows = []
    for number, line in enumerate(path.read_text().split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path} line {number} is not JSON: {error}") from None
        if not isinstance(row, dict) or "id" not in row:
            raise DataError(f"{path} line {number}: an item is a JSON object with an id")
        rows.append(row)
    return rows


def _items(path: Path) -> list[dict[str, Any]]:
    return [{"id": row["id"], "text": " ".join(str(row.get(key) or "") for key in TEXTS)} for row in read_items(path)]


def suite_items(loaded: dict[str, Any]) -> list[dict[str, Any]]:
    """id, task, text and answers of every item of loaded lm-eval tasks (see `evaluate.tasks.load_tasks`)."""
    raise NotImplementedError
