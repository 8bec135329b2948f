"""Terminal output while a command runs: messages, progress bars (off in CI), and closed pipes."""

import io
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from stat import S_ISFIFO, S_ISSOCK
from typing import Any


def silence_libraries() -> None:
    """Turns off the progress bars of libraries: the harness shows its own. Call it before anything imports tqdm."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


# Control, bidi, invisible and tag characters, and half surrogates; line ends and tabs stay.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
# What GitHub's runner reads as a command of a workflow.
_COMMAND = re.compile(r"^(\s*)::(?=\w)|##(?=\[)", re.MULTILINE)
MOST_SHOWN = 8000  # characters of one message


def plain(text: str, most: int = MOST_SHOWN) -> str:
    """`text` as a terminal and a CI log may show it, whatever data, a model or a file put into it.

    Control, bidi and tag characters become U+FFFD. The beginning of a workflow command is broken. A text of more than
    `most` characters is cut in the middle, and says how many are left out.
    """
    text = _CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))
    text = _COMMAND.sub(lambda found: f"{found[1]}: :" if found[1] is not None else "# #", text)
    if len(text) <= most:
        return text
    return f"{text[: most - 500]} … ({len(text) - most:,} characters left out) … {text[-450:]}"


def say(message: str) -> None:
    """Prints a message to stderr, made `plain`."""
    print(plain(message), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Prints a line to stdout, made `plain`."""
    print(" ".join(plain(text, 2000).split("\n")), flush=True)


def plural(count: int, noun: str, several: str = "") -> str:
    """'1 row', '2 rows'; `several` is the plural of a noun that does not simply take an s."""
    return f"{count} {noun if count == 1 else several or f'{noun}s'}"


class _Pipe(io.FileIO):
    """A pipe that discards output once its reader is gone."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)


@contextmanager
def closed_pipes_are_silent() -> Iterator[None]:
    """A reader that ends early (`harness registry list | head -1`) changes neither stderr nor the exit code.

    Later output is dropped and the work continues: a gate's exit code counts even if nobody reads its output. Without
    this, Python raises BrokenPipeError in the middle of the work, or exits with 120 at the end.
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
    """The stream on top of a `_Pipe` if it is a pipe or a socket; else the stream itself."""
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
    """Prints `title` at the start, and the time taken at the end."""
    say(f"· {title}")
    started = time.monotonic()
    yield
    say(f"  done in {time.monotonic() - started:.1f} s")


LOGGED_EVERY_S = 60.0  # between two lines of progress where no bar is shown


class _LoggedProgress:
    """In place of a bar: a line a minute with what is done and the time left."""

    def __init__(self, title: str, total: int, unit: str):
        self.title, self.total, self.unit = title, total, unit
        self.n, self.initial, self.note = 0, 0, ""  # `initial`: done before this start, as tqdm has it
        self.started = self.logged = time.monotonic()

    def set_postfix_str(self, text: str) -> None:
        self.note = text

    def update(self, n: int = 1) -> None:
        self.n += n
        now = time.monotonic()
        if now - self.logged < LOGGED_EVERY_S or self.n <= self.initial:
            return
        self.logged = now
        left = (now - self.started) / (self.n - self.initial) * max(self.total - self.n, 0)
        minutes = f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"
        facts = [f"{self.n:,} of {plural(self.total, self.unit)}", minutes, *([self.note] if self.note else [])]
        say(f"  {self.title}: {', '.join(facts)}")


@contextmanager
def progress(title: str, total: int, unit: str) -> Iterator[Any]:
    """Shows progress with the time left: a bar, or a line a minute in CI and in log files.

    Call `bar.update(n)` and `bar.set_postfix_str(text)`.
    """
    if not interactive():
        yield _LoggedProgress(title, total, unit)
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=f"  {title}", unit=unit, disable=False, leave=False, file=sys.stderr) as bar:
        yield bar
