"""Domain tasks before use: every fault of their behaviour and items in one message."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.behavior.exchange import Exchange
from harness.behavior.registry import FILE, Behavior, behavior_folders, read_behavior
from harness.errors import ConfigError

ITEMS = "items.jsonl"
TEXTS = ("id", "instruction", "input", "topic", "slice")
NEEDED = ("id", "instruction", "topic")  # the others may be empty, but must be there


def check_task_files(names: Iterable[str]) -> None:
    """Raises ConfigError with all faults of the named tasks that have a behaviour; other tasks are lm-eval's affair."""
    folders = behavior_folders()
    faults = [fault for name in names if name in folders for fault in task_faults(folders[name])]
    if faults:
        raise ConfigError(faults)


def task_faults(folder: Path) -> list[str]:
    """Everything wrong with a task's behavior.yaml and items.jsonl, in words."""
    try:
        behavior = read_behavior(folder / FILE)
    except ConfigError as error:
        return [*error.faults, *_item_faults(folder / ITEMS, None)]
    return _item_faults(folder / ITEMS, behavior)


def _item_faults(path: Path, behavior: Behavior | None) -> list[str]:
    if not path.is_file():
        return [f"{path} does not exist: a task needs items"]
    faults: list[str] = []
    lines: dict[str, int] = {}
    keys: list[str] | None = None
    for number, row in _rows(path):
        where = f"{path} line {number}"
        broken = [row] if isinstance(row, str) else _fields(row)
        if broken or isinstance(row, str):
            faults += [f"{where}: {fault}" for fault in broken]
            continue
        if row["id"] in lines:
            faults.append(f"{where}: id {row['id']} occurs twice (first in line {lines[row['id']]})")
        lines.setdefault(row["id"], number)
        own = sorted(row.get("details") or {})
        if keys is not None and own != keys:
            faults.append(f"{where}: details has other keys than in the items before ({own} and {keys})")
        keys = own if keys is None else keys
        if behavior is not None:
            faults += [f"{where}: {fault}" for fault in behavior.item_faults(exchange(row))]
    return faults if lines or faults else [f"{path} holds no items"]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line numbers with rows, or with what is wrong where a line is none."""
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            yield number, f"not JSON: {error}"
        else:
            yield number, row if isinstance(row, dict) else "an item is a JSON object"


def _fields(row: dict[str, Any]) -> list[str]:
    faults = [f"{key} is missing" for key in TEXTS if key not in row]
    faults += [f"{key} is not text" for key in TEXTS if key in row and not isinstance(row[key], str)]
    faults += [f"{key} is empty" for key in NEEDED if row.get(key) == ""]
    if not isinstance(row.get("details", {}), dict):
        faults.append("details is not a JSON object")
    return faults


def exchange(row: dict[str, Any], response: str = "") -> Exchange:
    """An item of a domain task, with an answer to it."""
    return Exchange(row["instruction"], response, row.get("input", ""), row.get("topic", ""), row.get("details") or {})


def require_unseen(items: Sequence[dict[str, Any]], rows: Iterable[dict[str, Any]], where: str) -> None:
    """Raises ConfigError that names every evaluation item whose prompt a training row has."""
    trained = {_plain(f"{row['instruction']} {row['input']}"): row["id"] for row in rows}
    seen = [(item["id"], trained[text]) for item in items if (text := _plain(item["text"])) in trained]
    if seen:
        raise ConfigError(
            f"item {item} is in the training data ({where}, row {row}); remove one of the two" for item, row in seen
        )


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
