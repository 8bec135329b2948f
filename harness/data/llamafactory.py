"""Reads LlamaFactory's registry of data files, `dataset_info.json`: what the columns and roles of a file are called."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.errors import DataError
from harness.core.files import read_json

REGISTRY = "dataset_info.json"
# What the registry calls a column, and what it is called here.
_COLUMNS = {
    "prompt": "instruction", "query": "input", "response": "output", "history": "history", "system": "system",
    "messages": "conversations", "chosen": "chosen", "rejected": "rejected", "kto_tag": "kto_tag", "tools": "tools",
}  # fmt: skip
_ROLES = {
    "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system", "observation_tag": "tool",
    "function_tag": "function_call",
}  # fmt: skip
_READ = {"file_name", "formatting", "columns", "tags", "ranking"}


@dataclass(frozen=True)
class Registered:
    """What a registry says of a file; empty without one."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Our name by the file's."""

    turn_keys: Mapping[str, str] = field(default_factory=dict)
    """`role` and `content` by the file's names."""

    roles: Mapping[str, str] = field(default_factory=dict)
    """Our role by the file's."""

    def applied(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """A record with our names in place of the file's."""
        renamed = {self.columns.get(key, key): value for key, value in values.items()}
        if self.turn_keys or self.roles:
            for key in ("conversations", "chosen", "rejected"):
                turns = renamed.get(key)
                if isinstance(turns, list):
                    renamed[key] = [self._turn(turn) for turn in turns]
                elif isinstance(turns, Mapping):
                    renamed[key] = self._turn(turns)
        return renamed

    def _turn(self, turn: Any) -> Any:
        if not isinstance(turn, Mapping):
            return turn
        named = {self.turn_keys.get(key, key): value for key, value in turn.items()}
        role = named.get("role", named.get("from"))
        return {**named, "role": self.roles[role]} if isinstance(role, str) and role in self.roles else named


def registered(path: Path, said: list[str]) -> Registered:
    """What the registry in the file's folder says of it. `said` receives what of that is not applied.

    Raises DataError for a registry that cannot be read.
    """
    registry = path.parent / REGISTRY
    if not registry.is_file():
        return Registered()
    entries = read_json(registry)
    found = entries.values() if isinstance(entries, Mapping) else []
    entry = next((e for e in found if isinstance(e, Mapping) and e.get("file_name") == path.name), None)
    if entry is None:
        return Registered()
    columns, tags = entry.get("columns") or {}, entry.get("tags") or {}
    if not isinstance(columns, Mapping) or not isinstance(tags, Mapping):
        raise DataError(f"{registry}: columns and tags of {path.name} must be JSON objects; correct them there")
    ignored = [
        *(key for key in entry if key not in _READ),
        *(f"columns.{key}" for key in columns if key not in _COLUMNS),
    ]
    if ignored:
        said.append(f"{REGISTRY}: {', '.join(ignored)[:200]} of {path.name} is not applied")
    keys = {str(tags[tag]): name for tag, name in (("role_tag", "role"), ("content_tag", "content")) if tag in tags}
    roles = {str(tags[tag]): role for tag, role in _ROLES.items() if tag in tags}
    return Registered({str(column): _COLUMNS[key] for key, column in columns.items() if key in _COLUMNS}, keys, roles)
