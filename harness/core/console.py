"""What the user sees while it runs: one line a stage, and progress bars that stay silent in CI."""

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from stat import S_ISFIFO, S_ISSOCK
from typing import Any


def silence_libraries() -> None:
    """Progress bars of libraries stay off: ours stand in for them. Call it before anything imports tqdm."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def say(message: str) -> None:
    """One line on stderr."""
    print(message, file=sys.stderr, flush=True)


def plural(count: int, noun: str, several: str = "") -> str:
    """'1 row', '2 rows'; `several` is the plural of a noun that does not simply take an s."""
    return f"{count} {noun if count == 1 else several or f'{noun}s'}"


class _Pipe(io.FileIO):
    """A pipe that takes what nobody reads."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)


@contextmanager
def closed_pipes_are_silent() -> Iterator[None]:
    """A reader that has seen enough (`harness registry list | head -1`) changes neither stderr nor the exit code.

    What is printed after it left is dropped, and the work goes on: a gate's verdict counts, whoever reads it. Without
    this, Python raises BrokenPipeError in the middle of the work, or ends with 120 at the very end.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_forgiving, before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before


def _forgiving(stream: Any) -> Any:
    """The stream, over a raw pipe that forgives; itself where it is a terminal, a file or a test's."""
    try:
        number = stream.fileno()
        mode = os.fstat(number).st_mode
    except (AttributeError, OSError, ValueError):
        return stream
    if not (S_ISFIFO(mode) or S_ISSOCK(mode)):
        return stream
    stream.flush()
    buffer = io.BufferedWriter(_Pipe(number, "wb", closefd=False))
    line_buffering = stream.line_buffering or stream.write_through  # PYTHONUNBUFFERED
    return io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=line_buffering)


def interactive() -> bool:
    """Whether progress bars are shown: stderr is a terminal, and this is not a CI job."""
    return sys.stderr.isatty() and not os.environ.get("CI")


@contextmanager
def timed(title: str) -> Iterator[None]:
    """Says what starts, and how long it took once it is done."""
    say(f"· {title}")
    started = time.monotonic()
    yield
    say(f"  done in {time.monotonic() - started:.1f} s")


@contextmanager
def progress(title: str, total: int, unit: str) -> Iterator[Any]:
    """A progress bar with speed and time left; call `bar.update(n)` and `bar.set_postfix_str(text)`."""
    from tqdm import tqdm

    with tqdm(
        total=total, desc=f"  {title}", unit=unit, disable=not interactive(), leave=False, file=sys.stderr
    ) as bar:
        yield bar
