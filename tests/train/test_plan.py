"""The estimate before training agrees with the training after it."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from harness.config.experiment import Config
from harness.config.train import TrainConfig
from harness.core.console import plural
from harness.train.finetune import finetune
from harness.train.packing import TrainingBatches
from harness.train.plan import MemoryEstimate, estimate_memory, plan_training

pytestmark = pytest.mark.integration
OVERRIDES = ("train.epochs=2", "train.too_long=drop")


def test_it_says_what_training_then_does(tiny_base: Path, tmp_path: Path) -> None:
    config = tiny.config(tiny_base, *OVERRIDES)
    rows = [*tiny.rows(12), {**tiny.rows(1)[0], "id": "the-long-one", "output": "word " * 300}]
    plan = plan_training(config.training, tiny_base, rows)
    summary = finetune(config.training, tiny_base, rows, tmp_path)
    assert (plan.rows, plan.sequences, plan.steps) == (summary.rows, summary.sequences, summary.steps)
    assert (plan.trained, plan.total) == (summary.trained_parameters, summary.total_parameters)
    assert plan.tokens == 2 * summary.tokens
    assert plan.supervised == 2 * summary.supervised_tokens
    assert plan.padding == pytest.approx(summary.padding_share, abs=1e-4)
    assert plan.long == summary.long_rows
    assert plan.seconds is not None
    assert plan.seconds > 0
    told = "\n".join(plan.lines())
    assert "dropped 1 row over 256 tokens: the-long-one" in told
    assert f"steps: {summary.steps}, " in told
    assert f"parameters trained: {summary.trained_parameters} of {summary.total_parameters}" in told
    assert "from that probe" in told
    assert (plan.computed.parts_at_once, [plan.computed.threads]) == (summary.parts_at_once, summary.threads)
    assert f"device: cpu, {plural(summary.threads[0], 'thread')}, 1 part of a step at once" in told


def test_without_room_nothing_is_probed(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.train.plan._free_bytes", lambda _: 2**20)
    plan = plan_training(tiny.config(tiny_base).training, tiny_base, tiny.rows(4))
    assert (plan.seconds, plan.peak_gib) == (None, None)
    assert "expected time: unknown" in "\n".join(plan.lines())


def test_parts_are_told_as_training_takes_them(tiny_base: Path, tmp_path: Path) -> None:
    config = tiny.config(tiny_base, "train.parts_at_once=2")
    plan = plan_training(config.training, tiny_base, tiny.rows(12))
    assert finetune(config.training, tiny_base, tiny.rows(12), tmp_path).parts_at_once == 2
    assert ", 2 parts of a step at once" in "\n".join(plan.lines())


@pytest.mark.parametrize(
    "told", ["", "You answer the customers of a bank in plain sentences, and never promise anything. " * 3]
)
def test_the_probe_has_parts_as_large_as_training_has(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    sizes: list[int] = []

    def probe(
        config: Config, base: Path, batches: TrainingBatches, memory: MemoryEstimate, per_step: int, parts: int
    ) -> Any:
        sizes.append(per_step)
        return None, None

    monkeypatch.setattr("harness.train.plan._probe", probe)
    system = ["template.system_policy=fixed", f"template.system='{told}'"] if told else []
    settings = ("train.parts_at_once=2", "train.sequences_per_step=8", *system)
    plan = plan_training(tiny.config(tiny_base, *settings).training, tiny_base, tiny.rows(60))
    assert plan.sequences >= 8
    assert (sizes[0] > 2) == bool(told)
    assert plan.memory.logits > 0


class Shape:
    """Llama 3.1 8B."""

    hidden_size, intermediate_size, num_hidden_layers = 4096, 14336, 32
    num_attention_heads, num_key_value_heads, head_dim, vocab_size = 32, 8, 128, 128256
    tie_word_embeddings = False


TOTAL, ADAPTER = 8_030_261_248, 41_943_040


def expected(method: str, trained: int, **settings: bool) -> float:
    config = TrainConfig.model_validate({"method": method, **settings})
    extra = 0 if method == "full" else trained
    return estimate_memory(Shape, trained, TOTAL + extra, config, "bfloat16", "cuda", 4096, 2048).total


def test_memory_by_method() -> None:
    """Weights and optimiser states are exact: 2 bytes a frozen parameter, 16 or 18 a trained one."""
    lora = expected("lora", ADAPTER, gradient_checkpointing=True)
    assert 16 < lora < 24
    assert expected("qlora", ADAPTER, gradient_checkpointing=True) < lora - 6
    assert expected("full", TOTAL, gradient_checkpointing=True) > 18 * TOTAL / 2**30
    assert expected("lora", ADAPTER) > 2 * lora
