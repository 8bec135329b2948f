"""Limits on what a template may take: it is a program, and often a stranger's.

Jinja's sandbox keeps a template from files and from Python, but not from running for hours or filling the memory.
"""

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import FrameType

from harness.core.errors import TemplateRefusal

SECONDS = 1.5  # of computation for one rendering; a conversation of 100,000 tokens takes a few hundredths
MEMORY_BYTES = 2**29  # that one rendering may add
UNBOUNDED = frozenset({"striptags", "urlize", "wordwrap"})  # quadratic filters, which nothing can interrupt


@contextmanager
def limited() -> Iterator[None]:
    """Within the context (in the main thread; other threads cannot be interrupted), rendering is limited.

    Raises TemplateRefusal after SECONDS of computation, and where the memory grows by more than MEMORY_BYTES.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPROF, _out_of_time)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        _limit_memory(limits)
        yield
    except MemoryError:
        raise TemplateRefusal(f"it takes more than {MEMORY_BYTES // 2**20} MiB of memory for one rendering") from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGPROF, before)


@lru_cache(maxsize=64)
def require_interruptible(template: str) -> None:
    """Raises TemplateRefusal for powers and a few filters: one such step can take hours, and nothing can end it."""
    from jinja2 import Environment

    for line, kind, text in Environment(autoescape=False).lex(template):  # noqa: S701 - nothing is rendered
        if (kind, text) == ("operator", "**") or (kind == "name" and text in UNBOUNDED):
            raise TemplateRefusal(f"line {line} uses {text!r}, whose computation cannot be limited")


def _out_of_time(number: int, frame: FrameType | None) -> None:
    raise TemplateRefusal(f"it computes for more than {SECONDS:g} s for one rendering (nested loops?)")


def _limit_memory(limits: tuple[int, int]) -> None:
    """Lowers this process's limit of address space to what it has now and MEMORY_BYTES more."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - the fastest way, once a rendering
            now = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # not Linux
        return
    soft, hard = limits
    most = min(limit for limit in (soft, hard, now + MEMORY_BYTES) if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
