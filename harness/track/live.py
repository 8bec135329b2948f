"""The curve of a training while it runs, for those who watch it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.track.tracker import Tracker

POLL_S = 2.0
LAST_WAIT_S = 30.0


class TrainingCurve:
    """The rows that training adds to train.jsonl; after an interruption it is cut, and steps are done again."""

    def __init__(self, path: Path):
        self._path, self._read, self._step = path, 0, 0

    def report(self, tracker: Tracker) -> None:
        """Hands on the rows that are complete and of a later step than all before; what is no row is left out.

        What is no row may be the rest of one: the file was cut and grew again, so it is read from its beginning.
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
    """The step of a row of train.jsonl, and its numbers as `train/<name>`."""
    values = {key: float(value) for key, value in json.loads(line).items() if isinstance(value, int | float)}
    return int(values["step"]), {f"train/{key}": value for key, value in values.items() if key != "step"}


@contextmanager
def live_curve(path: Path, opened: Callable[[], Tracker]) -> Iterator[None]:
    """Reports what training writes to `path` while the block runs, to the tracker that `opened` returns.

    In a thread of its own: a server that is slow, silent or gone keeps nobody waiting. It reads the file, which rank 0
    writes whatever launched the training.
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
        over.wait()  # the exit code is known then
        tracker.finish(codes[-1])
