"""A server that is left up between evaluations: never asked with adapters that are not this evaluation's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import PromptMismatch, ServerFault
from harness.serve.server import Endpoint, ServerPlan
from harness.serve.session import PersistentServer, ServerReady


class Machine:
    """Counts servers, and knows which adapter the running one has."""

    def __init__(self) -> None:
        self.starts = self.stops = 0
        self.serves = ""
        self.fault: Exception | None = None

    def group(self, adapter: str, rank: int = 8) -> Any:
        return FakeGroup(self, ServerPlan(Path("base"), Path("p"), {}, {"candidate": Path(adapter)}, rank, "float32"))


class FakeGroup:
    def __init__(self, machine: Machine, plan: ServerPlan):
        self.machine, self.plan, self.logs = machine, plan, Path("logs")

    @property
    def adapter(self) -> str:
        return str(self.plan.adapters["candidate"])

    @contextmanager
    def start(self) -> Iterator[ServerReady]:
        self.machine.starts += 1
        self.machine.serves = self.adapter
        try:
            yield lambda: Endpoint(f"http://{self.machine.starts}", "", ("base", "candidate"))
        finally:
            self.machine.stops += 1
            self.machine.serves = ""

    def adapt(self, running: Endpoint) -> Endpoint:
        if self.machine.fault is not None:
            raise self.machine.fault
        self.machine.serves = self.adapter
        return running


def test_one_server_takes_each_evaluations_adapter() -> None:
    machine = Machine()
    with PersistentServer() as persistent:
        for adapter in ("step-1", "step-2", "step-3"):
            with persistent.evaluation(machine.group(adapter)) as server:
                assert server.endpoint() == server.endpoint() == Endpoint("http://1", "", ("base", "candidate"))
                assert machine.serves == adapter
        assert (machine.starts, machine.stops) == (1, 0)
    assert machine.stops == 1


def test_nothing_is_loaded_for_an_evaluation_that_asks_nothing() -> None:
    machine = Machine()
    with PersistentServer() as persistent:
        with persistent.evaluation(machine.group("step-1")):
            assert machine.starts == 0
        with persistent.evaluation(machine.group("step-2")) as server:
            server.endpoint()
        with persistent.evaluation(machine.group("step-3")):
            assert machine.serves == "step-2"
        with persistent.evaluation(machine.group("step-4")) as server:
            server.endpoint()
            assert machine.serves == "step-4"
    assert (machine.starts, machine.stops) == (1, 1)


def test_a_server_that_died_is_started_again_with_this_evaluations_adapter() -> None:
    machine = Machine()
    with PersistentServer() as persistent:
        with persistent.evaluation(machine.group("step-1")) as server:
            server.endpoint()
            server.stop()  # as a flight does when it dies
            assert server.endpoint().url == "http://2"
        machine.fault = ServerFault("it does not answer")
        with persistent.evaluation(machine.group("step-2")) as server:
            assert server.endpoint().url == "http://3"
            assert machine.serves == "step-2"
        machine.fault = None
        with persistent.evaluation(machine.group("step-3")) as server:
            assert server.endpoint().url == "http://3"
            assert machine.serves == "step-3"


def test_a_prompt_that_differs_is_no_reason_to_try_again() -> None:
    machine = Machine()
    machine.fault = PromptMismatch("another prompt")
    with PersistentServer() as persistent:
        with persistent.evaluation(machine.group("step-1")) as server:
            server.endpoint()
        with persistent.evaluation(machine.group("step-2")) as server, pytest.raises(PromptMismatch):
            server.endpoint()
    assert (machine.starts, machine.stops) == (1, 1)


@pytest.mark.parametrize(("adapter", "rank"), [("step-1", 8), ("step-2", 16)])
def test_what_cannot_be_exchanged_is_started_anew(adapter: str, rank: int) -> None:
    """The same folder again: the prefix cache would know it by its name. Another rank: there is no room for it."""
    machine = Machine()
    with PersistentServer() as persistent:
        for group in (machine.group("step-1"), machine.group(adapter, rank)):
            with persistent.evaluation(group) as server:
                server.endpoint()
        assert machine.serves == adapter
    assert (machine.starts, machine.stops) == (2, 2)
