"""The saved state of an unfinished training: complete checkpoints, the loss curve, and the settings it started with.

A checkpoint is complete once it has its marker file, which is written last, after all other files reached the disk.
"""

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.core.console import say
from harness.core.errors import EnvironmentFault, UsageError
from harness.core.layout import CURVE
from harness.core.store import write_json
from harness.records.stages import EvaluatedCheckpoint

_MARKER = "complete.json"
STOP = "stop"  # while this file exists, launched processes save and end
_IDENTITY, _EXAMINED, _RESUMED, _STARTS = "identity.json", "examined.json", "resumed.json", "starts.json"
_LOCK, _PATIENCE_S = ".lock", 600.0
_MEANING = {
    "base": "the base model's weights",
    "data": "the dataset",
    "template": "the prompt template",
    "train": "the training configuration",
    "launch": "the launcher or the number of processes",
    "dtype": "model.dtype",
    "versions": "library versions",
    "code": "the training code",
}


class Interruption:
    """Whether training was told to stop: by SIGTERM or Ctrl-C, or by the file `stop`.

    The current step is finished and saved first; a second signal ends training at once.
    """

    def __init__(self, stop: Path | None = None) -> None:
        self.requested, self._stop = False, stop

    def check(self) -> bool:
        """Whether a stop has been requested."""
        self.requested = self.requested or (self._stop is not None and self._stop.exists())
        return self.requested

    def _note(self, _signal: int, _frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    @contextmanager
    def handling_signals(self) -> Iterator["Interruption"]:
        """Handles both signals inside the block. Only the main thread can; elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass(frozen=True)
class ComputeSettings:
    """What the exact weights depend on besides the identity: device, threads, parts of a step computed at once."""

    device: str
    threads: int
    parts_at_once: int


class SavedProgress:
    """The folder of an unfinished training."""

    def __init__(self, folder: Path):
        self.folder = folder

    def open(self, identity: Mapping[str, Any]) -> None:
        """Starts a training, or resumes one with the same `identity`; raises UsageError that names what changed."""
        identity = json.loads(json.dumps(identity, default=str))
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.in_use():
            pass
        path = self.folder / _IDENTITY
        if not path.is_file():
            write_json(path, identity)
            return
        if changes := _changes(json.loads(path.read_text()), identity):
            raise UsageError(
                f"the unfinished training in {self.folder} had other settings: {'; '.join(changes)}. Restore them to "
                f"resume it, or start from the beginning: rm -r {self.folder}"
            )

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Locks the folder for the process that writes to it; waits for a process left over from an earlier start.

        Raises EnvironmentFault when that process does not end.
        """
        lock = FileLock(self.folder / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"  waiting for a process of an earlier start that still writes to {self.folder}")
            try:
                lock.acquire(timeout=_PATIENCE_S)
            except Timeout:
                raise EnvironmentFault(
                    f"a training process of an earlier start still writes to {self.folder}. Stop it, then run the same "
                    "command again."
                ) from None
        try:
            yield
        finally:
            lock.release()

    def latest(self) -> tuple[int, Path] | None:
        """(step, folder) of the last complete checkpoint; incomplete ones are removed."""
        found: list[tuple[int, Path]] = []
        for path in self.folder.glob("checkpoint-*"):
            if _is_complete(path):
                found.append((int(path.name.rpartition("-")[2]), path))
            else:
                shutil.rmtree(path)
        return max(found, default=None)

    def curve(self) -> list[dict[str, float]]:
        """One row per optimiser step."""
        path = self.folder / CURVE
        lines = path.read_text().splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def cut_curve(self, step: int) -> None:
        """Removes the rows after `step` from the curve: those steps are repeated."""
        rows = [row for row in self.curve() if row["step"] <= step]
        (self.folder / CURVE).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def examined(self) -> list[EvaluatedCheckpoint]:
        path = self.folder / _EXAMINED
        return (
            [EvaluatedCheckpoint.model_validate(row) for row in json.loads(path.read_text())] if path.is_file() else []
        )

    def note_evaluated(self, found: EvaluatedCheckpoint) -> None:
        write_json(self.folder / _EXAMINED, [e.model_dump() for e in [*self.examined(), found]])

    def resumed_at(self) -> list[int]:
        """The steps at which training was resumed."""
        path = self.folder / _RESUMED
        return list(json.loads(path.read_text())) if path.is_file() else []

    def note_resumed(self, step: int) -> None:
        write_json(self.folder / _RESUMED, [*self.resumed_at(), step])

    def starts(self) -> list[ComputeSettings]:
        """How training was computed: from step 1, then after each resumption."""
        path = self.folder / _STARTS
        return [ComputeSettings(**row) for row in json.loads(path.read_text())] if path.is_file() else []

    def note_starts(self, starts: Sequence[ComputeSettings]) -> None:
        write_json(self.folder / _STARTS, [asdict(start) for start in starts])


def mark_complete(folder: Path) -> None:
    """Marks a checkpoint as complete once all its files are on the disk."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != _MARKER]
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    write_json(folder / _MARKER, {path.relative_to(folder).as_posix(): path.stat().st_size for path in files})


def _is_complete(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _MARKER).read_text())
    except (OSError, ValueError):
        return False
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    changes = []
    for key in sorted({*before, *now}):
        left, right = before.get(key), now.get(key)
        if left == right:
            continue
        inside = ""
        if isinstance(left, dict) and isinstance(right, dict):
            inside = f" ({', '.join(sorted(k for k in {*left, *right} if left.get(k) != right.get(k)))})"
        changes.append(f"{_MEANING.get(key, key)}{inside} changed")
    return changes
