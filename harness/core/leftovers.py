"""Temporary files and folders: their names, and which of them were left behind by a process that is gone.

A name tells who made it: `.<final name>.tmp-<process>-<host>-<random>`. `host` stands for the machine and, in a
container, for its own numbering of processes, since another machine's process number means nothing here.
"""

import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

_NAME = re.compile(r"\..+\.tmp-(?:(?P<pid>\d+)-(?:(?P<host>h[0-9a-f]{8})-)?)?[\w.]+")
_UNKNOWN_MAKER_S = 24 * 3600.0  # a maker on another machine is gone when nothing was written for so long


def temporary_name(name: str) -> str:
    """A hidden name, never used before, for what becomes `name` when it is complete."""
    return f".{name}.tmp-{os.getpid()}-{_host()}-{secrets.token_hex(4)}"


def abandoned(path: Path) -> bool:
    """Whether `path` is a temporary file or folder whose process is gone.

    A process of another machine cannot be asked: its files count as abandoned after a day without a change.
    """
    found = _NAME.fullmatch(path.name)
    if found is None:
        return False
    try:
        if found["host"] == _host():
            return not _lives(int(found["pid"]), path.lstat().st_mtime)
        return time.time() - _last_change(path) > _UNKNOWN_MAKER_S
    except OSError:
        return False


def abandoned_in(folder: Path, name: str = "*") -> Iterator[Path]:
    """Abandoned files and folders directly in `folder`, of all names or those made for `name`."""
    yield from (path for path in sorted(folder.glob(f".{name}.tmp-*")) if abandoned(path))


def remove(path: Path) -> None:
    """Removes a file, a folder, or a symbolic link itself; what another process removes meanwhile is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(inner.lstat().st_size for inner in path.rglob("*") if inner.is_symlink() or inner.is_file())


def _host() -> str:
    try:
        namespace = Path("/proc/self/ns/pid").readlink().as_posix()
    except OSError:
        namespace = ""
    return "h" + hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def _lives(pid: int, written: float) -> bool:
    """Whether process `pid` runs and can have written at `written`; a later process has taken over the number."""
    import psutil

    try:
        return bool(psutil.Process(pid).create_time() <= written + 1)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _last_change(path: Path) -> float:
    inner = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    return max([path.lstat().st_mtime, *(one.lstat().st_mtime for one in inner)])
