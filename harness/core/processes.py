"""Child processes: their ports, and how they end with the harness."""

import ctypes
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOPBACK = "127.0.0.1"


@contextmanager
def reserved_port(host: str = LOOPBACK, port: int = 0) -> Iterator[int]:
    """Holds a port for a process that binds it some seconds later; 0 stands for any free port.

    That process must bind the port with SO_REUSEADDR, as servers do. Nothing listens here, so it gets all connections.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, port))
        yield int(held.getsockname()[1])


def dies_with_parent() -> Callable[[], object] | None:
    """A `preexec_fn` that sends the child SIGTERM when the harness dies in any way (Linux: PR_SET_PDEATHSIG), or None.

    `prctl` is looked up before the fork: after it, a lock held by another thread would never be released.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signal.SIGTERM)
