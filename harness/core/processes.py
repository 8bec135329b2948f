"""Processes that the harness starts, and their ports."""

import ctypes
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOPBACK = "127.0.0.1"


@contextmanager
def reserved_port(host: str = LOOPBACK, port: int = 0) -> Iterator[int]:
    """A port that nobody else is given, for a process that takes it some seconds later; 0 is any free one.

    That process has to bind it with SO_REUSEADDR, as servers do. Nothing listens here, so nothing is kept from it.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, port))
        yield int(held.getsockname()[1])


def dies_with_parent() -> Callable[[], object] | None:
    """For `preexec_fn`, on Linux: the process gets SIGTERM when the harness dies, however it dies (PR_SET_PDEATHSIG).

    The function is looked up before the fork: after it, a lock that another thread held would be held for ever.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signal.SIGTERM)
