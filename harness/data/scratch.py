"""Rows on disk while the audit needs them: memory stays bounded, and any order can be read back."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.data.filters.judgement import Row


class Scratch:
    """Numbered JSON values in a SQLite file. Numbers start at 0 and have no gaps."""

    def __init__(self, path: Path):
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, body TEXT NOT NULL)")
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, values: Iterable[Any]) -> None:
        bodies = [(json.dumps(value, ensure_ascii=False),) for value in values]
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT INTO rows (body) VALUES (?)", bodies)
        self._connection.execute("COMMIT")
        self._count += len(bodies)

    def get(self, numbers: Sequence[int]) -> Iterator[Any]:
        """The values of these numbers, in this order."""
        query = "SELECT body FROM rows WHERE number = ?"
        for number in numbers:
            (body,) = self._connection.execute(query, (int(number) + 1,)).fetchone()
            yield json.loads(body)

    def __iter__(self) -> Iterator[Row]:
        for (body,) in self._connection.execute("SELECT body FROM rows ORDER BY number"):
            yield json.loads(body)

    def close(self) -> None:
        self._connection.close()
