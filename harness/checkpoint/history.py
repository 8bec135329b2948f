"""The registry's history: JSON lines, each holding the hash of the one before, so that no line can change unseen."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from harness.core.errors import EvidenceFault, UsageError
from harness.core.store import sha256_json
from harness.records.base import Record

HISTORY = "history.jsonl"
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class HistoryEntry(Record):
    """One act on an alias: who did it, when, why, and the digests of what it rests on.

    `model` is a folder under models/. `policy` is what the alias demands of its next candidate from here on.
    `hash` is the sha256 of all other fields, `previous` the hash of the line before ('' for the first).
    """

    schema_version: int = 1
    number: int
    action: Literal["promote", "rollback", "policy"]
    alias: str
    model: str
    run_id: str
    when: str
    who: str
    why: str
    digests: dict[str, str]
    policy: dict[str, Any]
    previous: str
    hash: str = ""

    def sealed(self) -> "HistoryEntry":
        return self.model_copy(update={"hash": self.digest})

    @property
    def digest(self) -> str:
        return sha256_json(self.model_dump(exclude={"hash"}))


def read_history(registry: Path) -> list[HistoryEntry]:
    """All entries, oldest first; raises EvidenceFault when a line was changed, removed, added or moved."""
    entries, faults = read_lines(_lines(registry / HISTORY), str(registry / HISTORY))
    if faults:
        raise EvidenceFault("\n".join(["the registry's history was edited:", *(f"  - {fault}" for fault in faults)]))
    return entries


def read_lines(lines: Iterable[str], where: str) -> tuple[list[HistoryEntry], list[str]]:
    """The entries, and every break of the chain in words."""
    entries: list[HistoryEntry] = []
    faults: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            entry = HistoryEntry.model_validate_json(line)
        except ValidationError:
            faults.append(f"{where} line {number} is no entry of a registry")
            continue
        before = entries[-1].hash if entries else ""
        if entry.digest != entry.hash:
            faults.append(f"{where} line {number}: its fields do not match its hash")
        if entry.previous != before or entry.number != len(entries) + 1:
            faults.append(f"{where} line {number} does not follow the line before it")
        entries.append(entry)
    return entries, faults


def write_history(registry: Path, entries: Sequence[HistoryEntry]) -> None:
    """All entries under a temporary name, on the disk, then renamed: readers see the old or the new history."""
    temporary = registry / f".{HISTORY}.tmp"
    with temporary.open("w") as file:
        file.writelines(json.dumps(entry.model_dump(), sort_keys=True) + "\n" for entry in entries)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(registry / HISTORY)


def current_of(entries: Sequence[HistoryEntry], alias: str) -> HistoryEntry | None:
    """The entry that put the alias where it is."""
    return next((e for e in reversed(entries) if e.alias == alias and e.action != "policy"), None)


def demanded_of(entries: Sequence[HistoryEntry], alias: str) -> dict[str, Any] | None:
    """The policy that the alias demands."""
    return next((e.policy for e in reversed(entries) if e.alias == alias), None)


def before_current(entries: Sequence[HistoryEntry], alias: str) -> HistoryEntry | None:
    """The promotion that a rollback returns to: promotions stack up, a rollback takes off what lies above its model."""
    stack: list[HistoryEntry] = []
    for entry in entries:
        if entry.alias != alias or entry.action == "policy":
            continue
        if entry.action == "rollback":
            while stack and stack[-1].model != entry.model:
                stack.pop()
        else:
            stack.append(entry)
    return stack[-2] if len(stack) > 1 else None


def valid_alias(alias: str) -> str:
    if not _ALIAS.fullmatch(alias) or alias == "base":
        raise UsageError(
            f"{alias!r} is no alias: small letters, digits, - and _, beginning with a letter; 'base' is the base model"
        )
    return alias


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text().split("\n") if line]
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise EvidenceFault(f"{path} is damaged: {error}") from None
