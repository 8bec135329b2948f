"""The list of faults: complete, each injected by one function, each in the documentation's table."""

from pathlib import Path

import faulty_checkpoint
import faulty_contract
import faulty_evaluation
import faulty_server
from faults import FAULTS

TABLE = Path(__file__).resolve().parents[2] / "docs" / "prompt_contract.md"
REPORTED = {
    "vllm-project/vllm#9519", "EleutherAI/lm-evaluation-harness#3347", "EleutherAI/lm-evaluation-harness#1465",
    "hiyouga/LlamaFactory#10772", "hiyouga/LlamaFactory#7785", "huggingface/transformers#45851",
    "vllm-project/vllm#24078", "vllm-project/vllm#9280", "hiyouga/LlamaFactory#7454", "huggingface/transformers#23530",
    "princeton-nlp/SimPO#17", "NovaSky-AI/SkyRL#2092", "huggingface/trl#4201", "hiyouga/LlamaFactory#9092",
    "vllm-project/vllm#15241", "EleutherAI/lm-evaluation-harness#2034", "thinking-machines-lab/tinker-feedback#125",
    "huggingface/transformers#44255",
}  # fmt: skip


def test_every_reported_fault_is_injected() -> None:
    assert len(FAULTS) >= 80
    assert {fault.seen_in for fault in FAULTS} >= REPORTED


def test_names_are_unique_and_each_has_one_injection() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
    for name in names:
        modules = [m for m in (faulty_contract, faulty_checkpoint, faulty_evaluation, faulty_server) if name in vars(m)]
        assert len(modules) == 1, name


def test_the_table_names_every_fault_with_what_catches_it() -> None:
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    for fault in FAULTS:
        row = next((row for row in rows if row.startswith(f"| {fault.what} |")), None)
        assert row is not None, f"{fault.name} is not in the table; make it with benchmarks/prompt_faults.py"
        _, _, seen_in, side, caught_by, time, _ = (cell.strip() for cell in row.split("|"))
        assert fault.seen_in in seen_in
        assert (side, caught_by) == (fault.side, fault.caught_by)
        assert time == "<1" or int(time) >= 1
