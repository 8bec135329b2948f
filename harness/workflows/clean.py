"""`harness clean`: what lies in the folder of the runs, and in the cache, that no run needs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.core.errors import UsageError
from harness.core.layout import RunFolder
from harness.core.leftovers import abandoned, remove, size

Kind = Literal["leftover", "finished training", "empty", "cache"]
ANSWERS = ".cache"
DERIVED = ("merged", "scaled", "fitting", "renamed", "contracts", "references", "lm_eval")  # parts of the cache


@dataclass(frozen=True)
class Unneeded:
    """A file or folder that no run needs."""

    path: Path
    kind: Kind
    why: str
    size: int  # bytes


def unneeded(runs: Path, cache: Path | None) -> list[Unneeded]:
    """What no run needs below `runs`, and with `cache` (the harness's cache folder) what is made again when needed.

    Symbolic links are not followed. A run that another process holds is left out as a whole. Raises UsageError where
    `runs` is not a folder, and with `cache` where a run is in use, since it may read from there.
    """
    if not runs.is_dir():
        raise UsageError(f"{runs} is not a folder. Name the folder of the runs: harness clean --runs-dir DIR")
    folders = [path for path in sorted(runs.iterdir()) if path.is_dir() and not path.is_symlink()]
    used = [folder for folder in folders if _in_use(folder)]
    found = list(_leftovers(runs, used))
    for folder in folders:
        place = RunFolder(folder)
        if folder in used or folder.name.startswith("."):
            continue
        if place.unfinished.is_dir() and not place.unfinished.is_symlink() and place.training_record.is_file():
            found.append(_noted(place.unfinished, "finished training", "its checkpoint is complete"))
        if not any(path.name != ".lock" for path in folder.iterdir()):
            found.append(_noted(folder, "empty", "holds nothing"))
    if cache is not None:
        if used:
            raise UsageError(
                f"{used[0]} is in use and may read from the cache. Wait for it, then: harness clean --cache"
            )
        derived = [runs / ANSWERS, *(cache / part for part in DERIVED)]
        found += [_noted(path, "cache", "made again when needed") for path in derived if path.is_dir()]
    return found


def removed(found: list[Unneeded]) -> list[Unneeded]:
    """Removes what was found; returns what is still there, because of missing rights or another process."""
    for one in found:
        remove(one.path)
    return [one for one in found if one.path.exists() or one.path.is_symlink()]


def _leftovers(runs: Path, used: list[Path]) -> Iterator[Unneeded]:
    within: Path | None = None
    for path in sorted(runs.rglob(".*.tmp-*")):
        inside_another = within is not None and path.is_relative_to(within)
        if inside_another or any(path.is_relative_to(folder) for folder in used) or not abandoned(path):
            continue
        within = path
        yield _noted(path, "leftover", "its process is gone")


def _noted(path: Path, kind: Kind, why: str) -> Unneeded:
    return Unneeded(path, kind, why, size(path))


def _in_use(folder: Path) -> bool:
    from filelock import FileLock, Timeout

    if not (folder / ".lock").is_file():
        return False
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder without rights: not ours to remove
        return True
