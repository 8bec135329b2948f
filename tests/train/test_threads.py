"""The rows of a step in parts, each in a thread: what one after the other would give, and the same bits each time."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from harness.config.experiment import Config
from harness.train.finetune import finetune

pytestmark = pytest.mark.integration
SETTINGS = (
    "model.dtype=float32",
    "train.learning_rate=1e-2",
    "train.sequences_per_step=3",
    "train.epochs=2.5",  # the last step is smaller
)


def trained(base: Path, out: Path, *overrides: str) -> Path:
    out.mkdir()
    rows = [{**row, "source": f"source {number % 2}"} for number, row in enumerate(tiny.rows(24))]
    finetune(tiny.config(base, *SETTINGS, *overrides).training, base, rows, out)
    return out


def curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def weights(folder: Path) -> bytes:
    return next(folder.glob("*model.safetensors")).read_bytes()


@pytest.fixture(scope="module")
def side_by_side(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_base, tmp_path_factory.mktemp("side") / "out", "train.parts_at_once=2")


def same_curves(left: Path, right: Path) -> None:
    measured = {"seconds", "tokens_per_s", "supervised_tokens_per_s", "memory_gib"}
    assert len(curve(left)) == len(curve(right)) > 3
    assert {"loss", "grad_norm", "loss/source 0", "loss/source 1"} < curve(left)[0].keys()
    for one, other in zip(curve(left), curve(right), strict=True):
        wanted = {name: value for name, value in other.items() if name not in measured}
        assert {name: one[name] for name in one if name not in measured} == pytest.approx(wanted, rel=2e-4)


@pytest.mark.parametrize("parts", [1, 3, 5])
def test_the_number_of_parts_changes_no_step(tiny_base: Path, tmp_path: Path, side_by_side: Path, parts: int) -> None:
    same_curves(side_by_side, trained(tiny_base, tmp_path / "out", f"train.parts_at_once={parts}"))


def test_one_seed_gives_the_same_bits(tiny_base: Path, tmp_path: Path, side_by_side: Path) -> None:
    again = trained(tiny_base, tmp_path / "again", "train.parts_at_once=2")
    other = trained(tiny_base, tmp_path / "other", "train.parts_at_once=2", "train.seed=1")
    assert weights(again) == weights(side_by_side) != weights(other)


@pytest.mark.filterwarnings(
    "ignore:Model has `tie_word_embeddings:UserWarning", "ignore:Setting `save_embedding:UserWarning"
)
def test_gradients_have_the_layout_that_optimisers_count_on(tiny_base: Path, tmp_path: Path) -> None:
    """Those of an adapted embedding come transposed."""
    adapted = "train.lora.target_modules=[embed_tokens, q_proj]"
    alone, together = (
        trained(tiny_base, tmp_path / str(parts), adapted, f"train.parts_at_once={parts}") for parts in (1, 2)
    )
    same_curves(alone, together)


def test_a_parameter_that_no_part_uses_keeps_its_value() -> None:
    import torch

    from harness.train.cpu.threads import add_gradient

    parameter = torch.nn.Parameter(torch.ones(2, 3))
    add_gradient(parameter, None)
    assert parameter.grad is None
    add_gradient(parameter, torch.ones(3, 2).T)
    add_gradient(parameter, torch.ones(2, 3))
    assert parameter.grad is not None
    assert parameter.grad.is_contiguous()
    assert parameter.grad.tolist() == [[2.0] * 3] * 2


def test_each_thread_has_its_share_of_the_cores() -> None:
    import torch

    from harness.train.cpu.threads import ThreadedShards

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        threads = ThreadedShards(2)
        empty = {"shard": torch.zeros(())}
        assert list(threads.map(lambda _: torch.get_num_threads(), [empty] * 4)) == [2] * 4
        assert torch.get_num_threads() == 4
        threads.close()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_system_message_is_computed_once_a_part_and_no_step_changes(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    from harness.train.cpu import accelerate, unused_tokens
    from harness.train.cpu.threads import split_into_shards
    from harness.train.cpu.unused_tokens import share_prompt

    told = "template.system='You answer the customers of a bank in one plain sentence, and never ask back.'"
    settings = ("template.system_policy=fixed", told, "train.sequence_length=512", "train.sequences_per_step=2")
    sizes: list[tuple[int, int]] = []
    known: list[int] = []

    def cut(inputs: Any, sequences: int, at_once: int, shared: int) -> Any:
        known.append(shared)
        return split_into_shards(inputs, sequences, at_once, shared)

    def share(inputs: dict[str, Any]) -> dict[str, Any]:
        found = share_prompt(inputs)
        sizes.append((found["input_ids"].shape[1], inputs["input_ids"].shape[1]))
        return found

    monkeypatch.setattr(unused_tokens, "share_prompt", share)
    monkeypatch.setattr(accelerate, "split_into_shards", cut)
    shared = trained(tiny_base, tmp_path / "shared", *settings, f"train.parts_at_once={parts}")
    assert sum(computed for computed, _ in sizes) < 0.8 * sum(given for _, given in sizes)
    assert (min(known, default=0) > 8) == (parts > 1)
    monkeypatch.setattr(unused_tokens, "share_prompt", lambda inputs: inputs)
    monkeypatch.setattr(accelerate, "shared_tokens", lambda _: 0)
    same_curves(shared, trained(tiny_base, tmp_path / "apart", *settings, f"train.parts_at_once={parts}"))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_no_row_is_cut_and_none_is_lost(sizes: list[int], sequences: int, at_once: int, shared: int) -> None:
    import torch

    from harness.train.cpu.threads import split_into_shards

    positions = torch.tensor([[place for size in sizes for place in range(size + shared)]])
    inputs = {"position_ids": positions, "token": torch.arange(positions.shape[1])[None]}
    parts = split_into_shards(inputs, sequences, at_once, shared)
    assert torch.cat([part["token"] for part in parts], 1).tolist() == [list(range(positions.shape[1]))]
    assert all(part["position_ids"][0, 0] == 0 for part in parts)
    assert [int(part["shard"]) for part in parts] == list(range(len(parts)))
    computed = sequences * sum(sizes) / positions.shape[1]
    wanted = math.ceil(math.ceil(computed) / at_once) * at_once
    assert len(parts) <= wanted
    assert max(int((part["position_ids"] >= shared).sum()) for part in parts) <= sum(sizes) / wanted + max(sizes)


def test_parts_are_as_many_as_what_is_computed_needs() -> None:
    import torch

    from harness.train.cpu.threads import split_into_shards

    inputs = {"position_ids": torch.arange(100).repeat(8)[None]}
    assert [part["position_ids"].shape[1] for part in split_into_shards(inputs, 8, 2)] == [100] * 8
    assert [part["position_ids"].shape[1] for part in split_into_shards(inputs, 8, 2, shared=40)] == [
        100,
        200,
        100,
        100,
        200,
        100,
    ]
    assert [part["position_ids"].shape[1] for part in split_into_shards(inputs, 8, 2, shared=90)] == [400] * 2


def configured(base: Path, **train: Any) -> Config:
    config = tiny.config(base)
    return config.model_copy(update={"train": config.train.model_copy(update={"parts_at_once": 4, **train})})


@pytest.mark.parametrize(
    "setting",
    [
        {"kl_to_base": 0.1},
        {"l2_to_start": 0.1},
        {"method": "full"},
        {"gradient_checkpointing": True},
        {"parts_at_once": 1},
        {"sequences_per_step": 1, "sequence_length": 128},
    ],
    ids=str,
)
def test_what_threads_would_not_repeat_is_computed_alone(tiny_base: Path, setting: dict[str, Any]) -> None:
    from harness.train.cpu.threads import parts_at_once

    usual = configured(tiny_base, sequences_per_step=4)
    assert parts_at_once(usual.training) == 4
    assert parts_at_once(configured(tiny_base, **setting).training) == 1
    assert parts_at_once(usual.model_copy(update={"launcher": "accelerate"}).training) == 1
    dropout = usual.train.lora.model_copy(update={"dropout": 0.1})
    assert parts_at_once(configured(tiny_base, lora=dropout).training) == 1


def test_a_model_with_dropout_of_its_own_is_computed_alone(tiny_base: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from harness.model.load import load_model
    from harness.train.cpu.threads import uses_randomness

    small = {"n_embd": 8, "n_head": 1, "n_layer": 1, "vocab_size": 8}
    assert uses_randomness(GPT2LMHeadModel(GPT2Config(**small)))
    assert not uses_randomness(load_model(tiny_base, "float32"))
