"""The journal of finished requests: each answer is kept the moment it is there, and none is asked for twice."""

import errno
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from harness.core.console import say
from harness.core.errors import DiskFull
from harness.core.store import sha256_json

JournalEntry = dict[str, Any]
FOLDER = Path(".cache") / "answers"
SYNC_S = 2.0
BUSY_S = 120.0


class Journal:
    """Answers of one model by the digest of the request.

    An SQLite database in WAL mode: a finished request survives kill -9 at once and a power cut after two seconds; a
    torn end is cut off by SQLite; several processes may write. Only answers whose prompt ids were verified go in.
    """

    def __init__(self, path: Path, scope: Mapping[str, Any]):
        self._path = path
        self._scope = json.dumps(scope, sort_keys=True)
        self._synced = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._told():
            self._db = _opened(path, self._scope)
        self._file = _inode(path)

    def lookup(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, JournalEntry]]:
        """The answers that are there, of those asked for."""
        for key in keys:
            if (entry := self._entry(key)) is not None:
                yield key, entry

    def _entry(self, key: bytes) -> JournalEntry | None:
        try:
            row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            self._db.close()
            self._db = _opened(self._path, self._scope, error, self._file)
            self._file = _inode(self._path)
            return None
        return None if row is None else json.loads(row[0])

    def add(self, entries: Mapping[bytes, JournalEntry]) -> None:
        """Keeps finished answers; where another process was faster, its answers stay."""
        rows = [(key, json.dumps(entry, ensure_ascii=False)) for key, entry in entries.items()]
        with self._told():
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)
            self._db.execute("COMMIT")
            if time.monotonic() - self._synced > SYNC_S:
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                self._synced = time.monotonic()

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL or _no_space(error):
                raise DiskFull(f"no space left for {self._path}; make room and start again: nothing is lost") from None
            raise


def journal_path(runs: Path, scope: Mapping[str, Any]) -> Path:
    """One file a model and way of asking, whatever their names and folders are."""
    return runs / FOLDER / f"{sha256_json(scope)[:32]}.sqlite"


def request_key(*parts: Any) -> bytes:
    """Digest of whatever decides an answer, 32 bytes."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode(errors="surrogatepass")).digest()


def _opened(path: Path, scope: str, error: Exception | None = None, damaged: int | None = None) -> sqlite3.Connection:
    """A connection; a damaged file is set aside, since answers can be asked for again.

    One process at a time: none opens what another takes away. `error` was met in the file whose inode is `damaged`:
    another process may have begun anew since.
    """
    from filelock import FileLock

    with FileLock(path.with_suffix(".lock")).acquire(poll_interval=0.002):
        if error is not None and _inode(path) == damaged:
            _set_aside(path, error)
        try:
            return _connected(path, scope)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as fault:
            _set_aside(path, fault)
            return _connected(path, scope)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _set_aside(path: Path, error: Exception) -> None:
    aside = path.with_suffix(f".damaged-{time.time_ns()}")
    path.replace(aside)
    for rest in ("-wal", "-shm"):
        path.with_name(path.name + rest).unlink(missing_ok=True)
    say(f"· {path.name} is damaged ({error}); it is kept as {aside.name} and begun again")


def _busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


# SQLite's own wait does not cover the change to WAL: of several that begin a file at once, some are told "locked".
@retry(retry=retry_if_exception(_busy), wait=wait_random(0.005, 0.05), stop=stop_after_delay(BUSY_S), reraise=True)
def _connected(path: Path, scope: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer TEXT NOT NULL)")
        database.execute("CREATE TABLE IF NOT EXISTS scope (text TEXT PRIMARY KEY)")
        database.execute("INSERT OR IGNORE INTO scope VALUES (?)", (scope,))
    except sqlite3.Error:
        database.close()
        raise
    return database


def _no_space(error: sqlite3.OperationalError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOSPC
