"""The journal of finished requests: every answer is stored as soon as it arrives, so that no request is sent twice."""

import errno
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from harness.core.console import say
from harness.core.errors import DiskFull, EnvironmentFault
from harness.core.store import sha256_json

JournalEntry = dict[str, Any]
FOLDER = Path(".cache") / "answers"
SYNC_S = 2.0
BUSY_S = 120.0


class Journal:
    """Answers of one model by the digest of the request.

    The file is an SQLite database in WAL mode. A finished request survives kill -9 immediately, and a power cut after
    two seconds. SQLite discards an incomplete end. Several processes may write at the same time. Only answers whose
    prompt ids were verified are stored.
    """

    def __init__(self, path: Path, scope: Mapping[str, Any]):
        self._path = path
        self._scope = json.dumps(scope, sort_keys=True)
        self._synced = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained():
            self._db = _opened(path, self._scope)
        self._file = _inode(path)

    def lookup(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, JournalEntry]]:
        """The stored answers among these keys, as (key, entry)."""
        for key in keys:
            try:
                with self._explained():
                    row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            except sqlite3.DatabaseError as error:
                self._db.close()
                self._db = _opened(self._path, self._scope, error, self._file)
                self._file = _inode(self._path)
                continue
            with suppress(ValueError):  # a damaged answer is none: it is requested again
                if row is not None and isinstance(entry := json.loads(row[0]), dict):
                    yield key, entry

    def add(self, entries: Mapping[bytes, JournalEntry]) -> None:
        """Stores finished answers. An answer that another process stored first stays."""
        rows = [(key, json.dumps(entry, ensure_ascii=False)) for key, entry in entries.items()]
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)
            self._db.execute("COMMIT")
            if time.monotonic() - self._synced > SYNC_S:
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                self._synced = time.monotonic()

    def __len__(self) -> int:
        with self._explained():
            return int(self._db.execute("SELECT count(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        with self._explained():
            self._db.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns errors of the disk into ours; those of a damaged file are left to `lookup` and `_opened`."""
        try:
            yield
        except sqlite3.OperationalError as error:
            no_space = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOSPC
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL or no_space:
                raise DiskFull(
                    f"the disk is full: {self._path} cannot grow. Free some space and run the same command again; "
                    "nothing is lost"
                ) from None
            raise EnvironmentFault(
                f"the journal {self._path} cannot be used ({error}). Check the disk and its permissions, and run the "
                "same command again; finished answers are kept"
            ) from None


def journal_path(runs: Path, scope: Mapping[str, Any]) -> Path:
    """The journal's file for a scope: one for each model and way of asking, independent of names and folders."""
    return runs / FOLDER / f"{sha256_json(scope)[:32]}.sqlite"


def request_key(*parts: Any) -> bytes:
    """Digest (32 bytes) of everything that decides an answer."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode(errors="surrogatepass")).digest()


def _opened(path: Path, scope: str, error: Exception | None = None, damaged: int | None = None) -> sqlite3.Connection:
    """A connection to the journal. A damaged file is set aside: its answers can be requested again.

    A lock lets one process open the file at a time, so that no process opens what another one moves away. `error`
    occurred in the file whose inode is `damaged`; another process may have replaced that file since.
    """
    from filelock import FileLock

    with FileLock(path.with_suffix(".lock")).acquire(poll_interval=0.002):
        if error is not None and _inode(path) == damaged:
            _set_aside(path, error)
        try:
            return _connected(path, scope)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as damage:
            _set_aside(path, damage)
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
    say(f"· the journal {path} is damaged ({error}). It is kept as {aside.name}, and a new journal is started")


def _busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


# SQLite's own timeout does not cover the switch to WAL: when several processes create a file, some get "locked".
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
