"""Reads files that somebody else wrote: no pipe, device, endless file or bottomless nesting stops the program."""

import json
from pathlib import Path
from typing import Any

from harness.core.errors import DataError
from harness.core.translate import translated

MOST_BYTES = 256 * 2**20


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """The text of a regular file of at most `most_bytes`, in UTF-8.

    Raises FileNotFoundError where there is no file, DataError for anything else that cannot be read so.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_file():
        raise DataError(f"{path} is not a regular file")
    with translated(f"read {path}", DataError, f"{path} is damaged"):
        if (size := path.stat().st_size) > most_bytes:
            raise DataError(f"{path} has {size / 2**20:.0f} MiB; at most {most_bytes / 2**20:.0f} MiB are read")
        return path.read_text(encoding="utf-8")


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """The value in a JSON file. Raises FileNotFoundError where there is no file, DataError for a damaged one."""
    text = read_text(path, most_bytes)
    with translated(f"read {path}", DataError, f"{path} is damaged"):
        return json.loads(text)
