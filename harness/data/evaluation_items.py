"""The evaluation items of a run: the files of domain tasks are checked, and all texts are read for decontamination."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.behavior.exchange import Exchange
from harness.behavior.registry import FILE, Behavior, behavior_folders, read_behavior
from harness.config.experiment import TaskConfig
from harness.core import resources
from harness.core.errors import ConfigError, DataError

ITEMS = "items.jsonl"
TASK_TEXTS = ("id", "instruction", "input", "topic", "slice")
NEEDED = ("id", "instruction", "topic")  # the others may be empty, but must be there


def check_task_files(names: Iterable[str]) -> None:
    """Raises ConfigError with all errors of the named tasks that have a behaviour. lm-eval checks the other tasks."""
    folders = behavior_folders()
    errors = [error for name in names if name in folders for error in task_errors(folders[name])]
    if errors:
        raise ConfigError(errors)


def task_errors(folder: Path) -> list[str]:
    """Everything wrong with the behavior.yaml and the items.jsonl of a task: one message each."""
    try:
        behavior = read_behavior(folder / FILE)
    except ConfigError as error:
        return [*error.errors, *_items_errors(folder / ITEMS, None)]
    return _items_errors(folder / ITEMS, behavior)


def _items_errors(path: Path, behavior: Behavior | None) -> list[str]:
    if not path.is_file():
        return [f"{path} does not exist; write the items of the task there, one JSON object per line"]
    errors: list[str] = []
    lines: dict[str, int] = {}
    keys: list[str] | None = None
    for number, row in _rows(path):
        where = f"{path} line {number}"
        broken = [row] if isinstance(row, str) else _fields(row)
        if broken or isinstance(row, str):
            errors += [f"{where}: {error}" for error in broken]
            continue
        if row["id"] in lines:
            errors.append(f"{where}: id {row['id']} occurs twice (first in line {lines[row['id']]})")
        lines.setdefault(row["id"], number)
        own = sorted(row.get("details") or {})
        if keys is not None and own != keys:
            errors.append(f"{where}: details must have the keys of the items before ({keys}), not {own}")
        keys = own if keys is None else keys
        if behavior is not None:
            errors += [f"{where}: {error}" for error in behavior.item_errors(exchange(row))]
    return errors if lines or errors else [f"{path} is empty"]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line number, item); where a line is not an item, what is wrong with it."""
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            yield number, f"not JSON: {error}"
        else:
            yield number, row if isinstance(row, dict) else "not a JSON object"


def _fields(row: dict[str, Any]) -> list[str]:
    errors = [f"{key} is missing" for key in TASK_TEXTS if key not in row]
    errors += [f"{key} is not text" for key in TASK_TEXTS if key in row and not isinstance(row[key], str)]
    errors += [f"{key} is empty" for key in NEEDED if row.get(key) == ""]
    if not isinstance(row.get("details", {}), dict):
        errors.append("details is not a JSON object")
    return errors


def exchange(row: dict[str, Any], response: str = "") -> Exchange:
    """An item of a domain task, with an answer to it."""
    return Exchange(row["instruction"], response, row.get("input", ""), row.get("topic", ""), row.get("details") or {})


def require_unseen(items: Sequence[dict[str, Any]], rows: Iterable[dict[str, Any]], where: str) -> None:
    """Raises ConfigError that names every evaluation item whose prompt is also that of a training row."""
    trained = {_plain(f"{row['instruction']} {row['input']}"): row["id"] for row in rows}
    seen = [(item["id"], trained[text]) for item in items if (text := _plain(item["text"])) in trained]
    if seen:
        raise ConfigError(
            f"item {item} is in the training data ({where}, row {row}); remove one of them" for item, row in seen
        )


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


_FIELD_WORDS = 3  # shorter fields are labels and keys
TEXTS = ("passage", "question", "instruction", "input")


def domain_items(tasks: Sequence[TaskConfig]) -> list[dict[str, Any]]:
    """id, prompt text and answers of every item of the tasks that are folders under tasks/.

    The items of stock lm-eval tasks are not included. In other files than items.jsonl, whose rows may be those of an
    lm-eval task of any form, a row without an id is named by its file and number.
    """
    found: list[dict[str, Any]] = []
    for task in tasks:
        for folder in (root / task.name for root in resources.task_roots()):
            found += [item for path in sorted(folder.glob("*.jsonl")) for item in _items(path)]
    return found


def read_items(path: Path, ids: bool = True) -> list[dict[str, Any]]:
    """The items of a file in JSON lines, with an id unless `ids` is false. Raises DataError for any other line."""
    rows = []
    for number, line in enumerate(path.read_text().split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} line {number} is not JSON: {error}") from None
        if not isinstance(row, dict) or (ids and "id" not in row):
            raise DataError(
                f"{path} line {number} is not a JSON object{' with an id' if ids else ''}; correct it there"
            )
        rows.append(row)
    return rows


def _items(path: Path) -> list[dict[str, Any]]:
    rows = enumerate(read_items(path, ids=path.name == ITEMS), 1)
    return [{"id": row.get("id", f"{path.name}:{n}"), "text": _shown(row), "answers": _choices(row)} for n, row in rows]


def _shown(row: Mapping[str, Any]) -> str:
    """The columns of the prompt; without any of them all text of the item, so that no item goes unchecked."""
    found = [str(row[key]) for key in TEXTS if row.get(key)]
    return "\n".join(found or [value for key, value in row.items() if key != "id" and isinstance(value, str)])


def _choices(row: Mapping[str, Any]) -> list[str]:
    choices = row.get("choices")
    return [str(choice) for choice in choices] if isinstance(choices, list) else []


def suite_items(loaded: dict[str, Any]) -> list[dict[str, Any]]:
    """id, task, text and answers (choices) of every item of loaded lm-eval tasks (`load_tasks`).

    The text is the item's own, without the wording that the template of its task adds.
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
    """The id of the item, or its number if it has none."""
    return str(next((doc[key] for key in ("id", "key", "ind", "doc_id") if doc.get(key) not in (None, "")), number))


def _own_text(task: Any, doc: Mapping[str, Any]) -> str:
    """The fields of the item that its prompt shows in full, in that order; the whole prompt if it shows none."""
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
    """The choices; where the task wants their letters, the texts that its prompt lists."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return []
    choices = [str(choice) for choice in task.doc_to_choice(doc)]
    if any(len(choice.strip()) > 1 for choice in choices):
        return choices
    listed = next((value for value in doc.values() if isinstance(value, list) and len(value) == len(choices)), [])
    return [str(choice) for choice in listed]
