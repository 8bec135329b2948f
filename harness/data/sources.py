"""Reading rows: JSON lines, with every malformed row named by file and line."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import resources
from harness.config import DataConfig, SourceConfig, resolve_path
from harness.errors import DataError
from harness.store import sha256_file

Row = dict[str, Any]
REQUIRED = ("instruction", "output")
TEXTS = ("instruction", "input", "output", "topic", "id")


@dataclass(frozen=True)
class Malformed:
    """A line that is no row, and why."""

    line: int
    reason: str
    text: str


@dataclass(frozen=True)
class Source:
    """The rows of one file in their order; `rows` have id, instruction, input, output, topic, source."""

    name: str
    config: SourceConfig
    path: Path
    sha256: str
    rows: list[Row]
    malformed: list[Malformed]


def source_paths(config: DataConfig) -> dict[str, Path]:
    """Where each source's file is; raises DataError that lists all that are missing."""
    paths = {name: resolve_path(source.path, resources.SHIPPED) for name, source in config.sources.items()}
    missing = [f"data.sources.{name}.path: {path} does not exist" for name, path in paths.items() if not path.is_file()]
    if missing:
        raise DataError("; ".join(missing) + ". Relative paths start at the working directory.")
    return paths


def read_source(name: str, config: SourceConfig, path: Path) -> Source:
    """All rows of a file, up to the source's limit; lines that are no rows are in `malformed`."""
    rows: list[Row] = []
    malformed: list[Malformed] = []
    for number, raw in enumerate(path.read_bytes().split(b"\n"), 1):
        if not raw.strip():
            continue
        if config.limit is not None and len(rows) == config.limit:
            break
        row = _row(raw, {str(key): column for key, column in config.columns.items()})
        if isinstance(row, str):
            malformed.append(Malformed(number, row, raw[:500].decode(errors="replace")))
        else:
            rows.append({**row, "id": row["id"] or f"{name}-{number}", "source": name})
    return Source(name, config, path, sha256_file(path), rows, malformed)


def _row(line: bytes, columns: Mapping[str, str]) -> Row | str:
    """The row of a line, or the reason why it is none."""
    try:
        values = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return f"not UTF-8 text: {error}"
    except ValueError as error:
        return f"not JSON: {error}"
    if not isinstance(values, dict):
        return "not a JSON object"
    row = {key: values.get(columns.get(key, key), "") for key in TEXTS}
    row = {key: "" if value is None else value for key, value in row.items()}
    wrong = [columns.get(key, key) for key, value in row.items() if not isinstance(value, str)]
    if wrong:
        return f"column {', '.join(wrong)} is not text"
    empty = [columns.get(key, key) for key in REQUIRED if not row[key].strip()]
    if empty:
        present = ", ".join(values) or "none"
        return f"column {', '.join(empty)} is missing or empty (columns: {present})"
    return row
