"""Reports the curve of a training to a tracker while it runs."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.track.tracker import Tracker

POLL_S = 2.0
LAST_WAIT_S = 30.0


class TrainingCurve:
    """Reads the rows that training appends to train.jsonl.

    After an interruption the file is cut back to the last checkpoint, and the steps after it are repeated.
    """

    def __init__(self, path: Path):
        self._path, self._read, self._step = path, 0, 0

    def report(self, tracker: Tracker) -> None:
        """Reports the complete rows of later steps than all before; a line that is not a row is left out.

        Such a line may be the rest of a row, where the file was cut and grew again, so the file is read from its start.
        """
        rows = [_point_or_none(line) for line in self._lines()]
        if None in rows:
            self._read = 0
            rows = [_point_or_none(line) for line in self._lines()]
        for step, values in filter(None, rows):
            if step > self._step:
                tracker.metrics(values, step)
                self._step = step

    def _lines(self) -> list[bytes]:
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            if self._path.stat().st_size < self._read:
                self._read = 0
            file.seek(self._read)
            complete, end, _ = file.read().rpartition(b"\n")
        self._read += len(complete) + len(end)
        return complete.splitlines()


def _point_or_none(line: bytes) -> tuple[int, dict[str, float]] | None:
    try:
        return curve_point(line)
    except (ValueError, OverflowError, AttributeError, KeyError):
        return None


def curve_point(line: str | bytes) -> tuple[int, dict[str, float]]:
    """The step of a row of train.jsonl, and its numbers, keyed `train/<name>`."""
    values = {key: float(value) for key, value in json.loads(line).items() if isinstance(value, int | float)}
    return int(values["step"]), {f"train/{key}": value for key, value in values.items() if key != "step"}


@contextmanager
def live_curve(path: Path, opened: Callable[[], Tracker]) -> Iterator[None]:
    """While the block runs, reports what training writes to `path` to the tracker that `opened` returns.

    This happens in a thread of its own, so that a slow or silent server never delays the training. The thread reads the
    file, which rank 0 writes however the training was launched.
    """
    over, codes = threading.Event(), [1]
    thread = threading.Thread(
        target=_follow, args=(TrainingCurve(path), opened, over, codes), daemon=True, name="live curve"
    )
    thread.start()
    try:
        yield
        codes.append(0)
    finally:
        over.set()
        thread.join(LAST_WAIT_S)


def _follow(curve: TrainingCurve, opened: Callable[[], Tracker], over: threading.Event, codes: list[int]) -> None:
    tracker = opened()
    try:
        while not over.wait(POLL_S):
            curve.report(tracker)
        curve.report(tracker)
    finally:
        over.wait()  # only then is the exit code known
        tracker.finish(codes[-1])
