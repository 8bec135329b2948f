"""What the user sees while it runs: one line a stage, and progress bars that stay silent in CI."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
