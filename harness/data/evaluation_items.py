"""The texts of a run's evaluation items, for decontamination: shipped and own domain tasks by their item files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import resources
from harness.config import TaskConfig

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
    return [json.loads(line) for line in path.read_text().split("\n") if line.strip()]


def _items(path: Path) -> list[dict[str, Any]]:
    return [{"id": row["id"], "text": " ".join(str(row.get(key) or "") for key in TEXTS)} for row in read_items(path)]
