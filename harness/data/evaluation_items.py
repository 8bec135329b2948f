"""The texts of a run's evaluation items, for decontamination: shipped and own domain tasks by their item files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import resources
from harness.config import TaskConfig
from harness.errors import DataError

_FIELD_WORDS = 3  # shorter fields are labels and keys
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
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} line {number} is not JSON: {error}") from None
        if not isinstance(row, dict) or "id" not in row:
            raise DataError(f"{path} line {number}: an item is a JSON object with an id")
        rows.append(row)
    return rows


def _items(path: Path) -> list[dict[str, Any]]:
    return [{"id": row["id"], "text": _shown(row), "answers": _choices(row)} for row in read_items(path)]


def _shown(row: Mapping[str, Any]) -> str:
    """The prompt's columns; all text of an item that has none of them, so that no item goes unchecked."""
    found = [str(row[key]) for key in TEXTS if row.get(key)]
    return "\n".join(found or [value for key, value in row.items() if key != "id" and isinstance(value, str)])


def _choices(row: Mapping[str, Any]) -> list[str]:
    choices = row.get("choices")
    return [str(choice) for choice in choices] if isinstance(choices, list) else []


def suite_items(loaded: dict[str, Any]) -> list[dict[str, Any]]:
    """id, task, text and answers (choices) of every item of loaded lm-eval tasks (`evaluate.tasks.load_tasks`).

    The text is what the item says of its own, without the wording that its task's template adds.
    """
    return [
        {
            "id": f"{name}/{_name(doc, number)}",
            "task": name,
            "text": _own_text(task, doc),
            "answers": _answers(task, doc),
        }
        for name, task in sorted(loaded["tasks"].items())
        for number, doc in enumerate(task.eval_docs)
    ]


def _name(doc: Mapping[str, Any], number: int) -> str:
    """The item's own id, else its number."""
    return str(next((doc[key] for key in ("id", "key", "ind", "doc_id") if doc.get(key) not in (None, "")), number))


def _own_text(task: Any, doc: Mapping[str, Any]) -> str:
    """The item's fields that its prompt shows, in the prompt's order; the prompt where it shows none of them whole."""
    prompt = task.doc_to_text(doc)
    if not isinstance(prompt, str):
        return " ".join(str(choice) for choice in task.doc_to_choice(doc))
    shown: list[tuple[int, str]] = []
    fields = {value.strip() for value in doc.values() if isinstance(value, str)} - {""}
    for field in sorted(fields, key=lambda field: (-len(field), field)):
        place = prompt.find(field)
        of_its_own = not shown or len(field.split()) >= _FIELD_WORDS
        if place >= 0 and of_its_own and not any(field in longer for _, longer in shown):
            shown.append((place, field))
    return "\n".join(field for _, field in sorted(shown)) or prompt


def _answers(task: Any, doc: Mapping[str, Any]) -> list[str]:
    """The choices; where the task asks for their letters, those that its prompt lists."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return []
    choices = [str(choice) for choice in task.doc_to_choice(doc)]
    if any(len(choice.strip()) > 1 for choice in choices):
        return choices
    listed = next((value for value in doc.values() if isinstance(value, list) and len(value) == len(choices)), [])
    return [str(choice) for choice in listed]
