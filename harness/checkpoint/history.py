"""The registry's history: JSON lines, each with the hash of the line before, so that any change is detected."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from harness.core.errors import DataError, EvidenceFault, UsageError
from harness.core.files import read_text
from harness.core.store import sha256_json
from harness.records.base import Record, version_refused

HISTORY = "history.jsonl"
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class HistoryEntry(Record):
    """One change to an alias, as a line of history.jsonl."""

    schema_version: Literal[1] = 1
    """Version of the line's format."""

    number: int
    """Number of the line, from 1."""

    action: Literal["init", "promote", "rollback", "policy"]
    """What was done: an alias made, moved by promotion or rollback, or its policy set."""

    alias: str
    """Alias that was moved."""

    model: str
    """Folder of the model under `models/`."""

    run_id: str
    """Run that the model comes from."""

    when: str
    """Time of the act (UTC, ISO 8601)."""

    who: str
    """Who did it."""

    why: str
    """Why it was done."""

    digests: dict[str, str]
    """Digests of the evidence that it rests on."""

    policy: dict[str, Any]
    """What the alias demands of its next candidate from here on."""

    previous: str
    """Hash of the line before; empty for the first."""

    hash: str = ""
    """Digest (sha256) of all other fields."""

    def sealed(self) -> "HistoryEntry":
        return self.model_copy(update={"hash": self.digest})

    def names(self, weights: str, contract: str, base: str | None) -> bool:
        """Whether the entry is of the model with these digests; `base` is that of an adapter's base model, else None.

        A merged adapter is known by its own weights (`checkpoint`) and by those of the merged model (`weights`).
        """
        known = {self.digests["weights"], self.digests.get("checkpoint")}
        return weights in known and contract == self.digests["contract"] and base in (None, self.digests.get("base"))

    @property
    def digest(self) -> str:
        return sha256_json(self.model_dump(exclude={"hash"}))


def read_history(registry: Path) -> list[HistoryEntry]:
    """All entries, oldest first. Raises EvidenceFault when a line was changed, removed, added or moved."""
    entries, breaks = read_lines(history_lines(registry), str(registry / HISTORY))
    if breaks:
        raise EvidenceFault("\n".join(["the registry's history was edited:", *(f"  - {line}" for line in breaks)]))
    return entries


def history_lines(registry: Path) -> list[str]:
    """The lines of history.jsonl, none without the file. Raises EvidenceFault when it is not text."""
    path = registry / HISTORY
    try:
        return [line for line in read_text(path).split("\n") if line]
    except FileNotFoundError:
        return []
    except DataError as error:
        raise EvidenceFault(str(error)) from None


def read_lines(lines: Iterable[str], where: str) -> tuple[list[HistoryEntry], list[str]]:
    """The entries, and a message for every break in the chain; `where` is the file that the messages name."""
    entries: list[HistoryEntry] = []
    breaks: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            entry = HistoryEntry.model_validate_json(line)
        except ValidationError as error:
            breaks.append(f"{where} line {number} {version_refused(error) or 'is not a registry entry'}")
            continue
        before = entries[-1].hash if entries else ""
        if entry.digest != entry.hash:
            breaks.append(f"{where} line {number}: its fields do not match its hash")
        if entry.previous != before or entry.number != len(entries) + 1:
            breaks.append(f"{where} line {number} does not follow the line before it")
        entries.append(entry)
    return entries, breaks


def write_history(registry: Path, entries: Sequence[HistoryEntry]) -> None:
    """Writes all entries to a temporary file, flushes it to disk and renames it: readers see the old or new history."""
    temporary = registry / f".{HISTORY}.tmp"
    with temporary.open("w") as file:
        file.writelines(json.dumps(entry.model_dump(), sort_keys=True) + "\n" for entry in entries)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(registry / HISTORY)


def current_of(entries: Sequence[HistoryEntry], alias: str) -> HistoryEntry | None:
    """The entry that set the alias's present model; None for an alias without one."""
    return next((e for e in reversed(entries) if e.alias == alias and e.model), None)


def demanded_of(entries: Sequence[HistoryEntry], alias: str) -> dict[str, Any] | None:
    """The policy that the alias's next candidate has to pass; None for an unknown alias."""
    return next((e.policy for e in reversed(entries) if e.alias == alias), None)


def before_current(entries: Sequence[HistoryEntry], alias: str) -> HistoryEntry | None:
    """The promotion that a rollback returns to; None without one.

    Promotions form a stack. A rollback removes those above the model that it returned to.
    """
    stack: list[HistoryEntry] = []
    for entry in entries:
        if entry.alias != alias or not entry.model:
            continue
        if entry.action == "rollback":
            while stack and stack[-1].model != entry.model:
                stack.pop()
        else:
            stack.append(entry)
    return stack[-2] if len(stack) > 1 else None


def valid_alias(alias: str) -> str:
    """The alias itself; raises UsageError for a name that cannot be one."""
    if not _ALIAS.fullmatch(alias) or alias == "base":
        raise UsageError(
            f"{alias!r} cannot be an alias: use lower-case letters, digits, - and _, and begin with a letter; "
            "'base' is reserved for the base model"
        )
    return alias
