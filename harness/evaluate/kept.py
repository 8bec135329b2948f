"""A server that is left up between evaluations: for the checkpoints of a training, one after the other."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from harness.console import say
from harness.errors import ServerFault
from harness.evaluate.serving import LiveServer, Ready, Serving
from harness.serve.server import Endpoint, ServerPlan


class KeptServer(LiveServer):
    """A server for one evaluation after the other. Use inside `with`: it is stopped on the way out of that.

    Each evaluation's adapters take the place of those before. Where that fails, or the server died or is of another
    shape, it is started anew.
    """

    def __init__(self) -> None:
        super().__init__(_nothing_lent)
        self._running: Endpoint | None = None
        self._shape: ServerPlan | None = None
        self._loaded: set[Path] = set()

    @contextmanager
    def lent(self, serving: Serving) -> Iterator[LiveServer]:
        """The server for one evaluation; nothing happens to it before it is needed."""
        running = self._endpoint or self._running
        folders, shape = set(serving.plan.adapters.values()), _shape(serving.plan)
        if running is None or shape != self._shape or folders & self._loaded:
            self.stop()
        else:
            self._running, self._endpoint = running, None
            self._ready = partial(self._adapted, running, serving)
        self._start, self._shape, self.logs = serving.start, shape, serving.logs
        self._loaded |= folders
        yield self

    def stop(self) -> None:
        self._running = None
        super().stop()

    def _adapted(self, running: Endpoint, serving: Serving) -> Endpoint:
        try:
            return serving.adapt(running)
        except ServerFault as fault:
            say(f"  {fault}; it is started again")
            self.stop()
            return self.begin()()


def _shape(plan: ServerPlan) -> ServerPlan:
    """What all adapters of a server have in common."""
    return replace(plan, adapters=dict.fromkeys(plan.adapters, Path()))


def _nothing_lent() -> AbstractContextManager[Ready]:
    raise AssertionError("a kept server is asked outside of an evaluation")
