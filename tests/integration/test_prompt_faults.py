"""Every known fault of a prompt, injected on both sides of the real server, ends with exit 12; clean set-ups pass."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import faulty_checkpoint
import faulty_contract
import faulty_evaluation
import faulty_server
import pytest
from faults import FAULTS, Fault
from faulty_contract import Bench, contract_for
from tiny import Served

from harness.core.errors import EvidenceFault
from harness.prompt.make import read_template

pytestmark = pytest.mark.integration
ON_THE_TINY_TOKENIZER = {
    "chatml": {},
    "alpaca": {},
    "qwen": {},
    "llama3": {"<|start_header_id|>": "<|pad|>", "<|eot_id|>": "<|im_end|>"},
    "mistral": {"[INST]": "<|pad|>", "</s>": "<|endoftext|>"},
    "gemma": {"<start_of_turn>": "<|pad|>", "<end_of_turn>": "<|im_end|>"},
}


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


@pytest.mark.parametrize("name", list(ON_THE_TINY_TOKENIZER))
def test_no_alarm_on_sound_servers(name: str, bench: Bench) -> None:
    """The same server with every template, under every system policy, answers every golden conversation soundly."""
    template = read_template(f"{name}.jinja")
    for stock, own in ON_THE_TINY_TOKENIZER[name].items():
        template = template.replace(stock, own)
    compared = 0
    for policy, system in (("none", None), ("required", None), ("fixed", "You are “careful”.")):
        settings = {"system_policy": policy, "system": system, "end_of_turn": None}
        contract = contract_for(template, bench.tokenizer, bench.folder, name, **settings)
        faulty_contract.static(contract, bench.tokenizer)()
        compared += faulty_server.serving(bench, lambda path, body: body, contract)()
    assert compared >= 3 * 3 * 17, "three prompts of each of 17 conversations, under three policies"


def injection(fault: Fault) -> Callable[[Bench], Callable[[], object]]:
    modules = (faulty_contract, faulty_checkpoint, faulty_evaluation, faulty_server)
    found: list[Callable[[Bench], Callable[[], object]]] = [
        getattr(module, fault.name) for module in modules if hasattr(module, fault.name)
    ]
    assert found, f"nothing injects {fault.name}"
    return found[0]


def finder(message: str) -> str:
    """Which check a message is from."""
    if "in the prompt contract:" in message or "in the prompt contract on" in message:
        return "static"
    if "in the checkpoint:" in message:
        return "checkpoint"
    if "nats apart" in message:
        return "numerical"
    if re.search(r"\((generation|likelihood), candidate\)|not rendered by the contract", message):
        return "request"
    return "contract" if "prompt_contract.json" in message else "live"
