"""Every known fault of a prompt, injected on both sides of the real server, ends with exit 12; clean set-ups pass."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import faulty_checkpoint
import faulty_contract
import faulty_server
import pytest
from faults import FAULTS, Fault
from faulty_contract import Bench
from tiny import Served

from harness.errors import EvidenceFault

pytestmark = pytest.mark.integration


@pytest.fixture
def bench(served: Served, tmp_path: Path) -> Bench:
    return Bench(served, tmp_path)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_is_caught(fault: Fault, bench: Bench, record_property: Callable[[str, object], None]) -> None:
    check = injection(fault)(bench)
    started = time.perf_counter()
    with pytest.raises(EvidenceFault) as caught:
        check()
    record_property("ms", round(1000 * (time.perf_counter() - started), 1))
    record_property("fault", fault.name)
    assert caught.value.exit_code == 12
    assert re.search(fault.says, str(caught.value)), caught.value
    assert finder(str(caught.value)) == fault.caught_by, caught.value


def injection(fault: Fault) -> Callable[[Bench], Callable[[], object]]:
    modules = (faulty_contract, faulty_checkpoint, faulty_server)
    found: list[Callable[[Bench], Callable[[], object]]] = [
        getattr(module, fault.name) for module in modules if hasattr(module, fault.name)
    ]
    assert found, f"nothing injects {fault.name}"
    return found[0]


def finder(message: str) -> str:
    """Which check a message is from."""
    if "of the prompt contract:" in message or "of the prompt contract on" in message:
        return "static"
    if "of the checkpoint:" in message:
        return "checkpoint"
    if "nats apart" in message:
        return "numerical"
    if re.search(r"\((generation|likelihood), candidate\)|not rendered by the contract", message):
        return "request"
    return "contract" if "prompt_contract.json" in message else "live"
