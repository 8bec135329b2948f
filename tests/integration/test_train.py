"""The real trainer on the tiny model: what is learnt from, what comes out, and that it comes out the same again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from harness.config.experiment import Config
from harness.config.train import TrainConfig
from harness.core.errors import DataError, TrainingFault
from harness.model.load import load_tokenizer
from harness.prompt.contract import Contract
from harness.prompt.make import make_contract, read_template
from harness.prompt.messages import conversation
from harness.prompt.render import Rendered, Renderer
from harness.records.base import load
from harness.records.stages import TrainingSummary
from harness.train.compute import Compute
from harness.train.device import compute_for
from harness.train.finetune import finetune
from harness.train.packing import IGNORED, Pack, TrainingBatches, collate, pack
from harness.train.prepare import prepare

pytestmark = pytest.mark.integration

# The first three losses of the tiny model in bf16, seed 0: a change here is a change of what is trained.
GOLDEN = [7.08426, 6.65943, 6.42266]
GOLDEN_RUN = ("train.learning_rate=1e-2", "train.schedule=constant", "train.warmup_ratio=0.0")


@pytest.fixture(scope="module")
def renderer(tiny_base: Path) -> Renderer:
    tokenizer = load_tokenizer(tiny_base)
    return Renderer(make_contract(tiny.config(tiny_base).template, tokenizer), tokenizer)


def train(config: Config, base: Path, out: Path, count: int = 16) -> list[float]:
    """The curve's losses."""
    out.mkdir()
    finetune(config.training, base, tiny.rows(count), out)
    return [json.loads(line)["loss"] for line in (out / "train.jsonl").read_text().splitlines()]


def render_rows(renderer: Renderer, rows: list[Any], limit: int) -> list[Rendered]:
    return prepare(renderer, rows, TrainConfig(sequence_length=limit)).rendered


class TestPacking:
    @given(
        sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30),
        room=st.integers(0, 60),
        seed=st.integers(0, 5),
        data=st.data(),
    )
    def test_every_row_once_shifted_and_within_the_length(
        self, sizes: list[int], room: int, seed: int, data: st.DataObject
    ) -> None:
        masks = [data.draw(st.lists(st.booleans(), min_size=size, max_size=size)) for size in sizes]
        rendered = [Rendered(list(range(1000 * n, 1000 * n + len(m))), m) for n, m in enumerate(masks)]
        length = max(sizes) + room
        packs = pack(rendered, length, seed)
        assert packs == pack(rendered, length, seed)
        assert all(len(p.input_ids) <= length for p in packs)
        found = [part for p in packs for part in _conversations(p)]
        wanted = [
            (r.ids, [*(i if m else IGNORED for i, m in zip(r.ids[1:], r.mask[1:], strict=True)), IGNORED])
            for r in rendered
        ]
        assert sorted(found) == wanted

    def test_a_row_that_does_not_fit_is_refused(self) -> None:
        with pytest.raises(ValueError, match="row 1 has 5 tokens"):
            pack([Rendered([1], [True]), Rendered([1] * 5, [True] * 5)], 4, 0)


def _conversations(packed: Pack) -> list[tuple[list[int], list[int]]]:
    """(ids, labels) of each conversation; a conversation starts where positions restart, and counts up from 0."""
    starts = [index for index, position in enumerate(packed.position_ids) if position == 0]
    parts = []
    for start, end in zip(starts, [*starts[1:], len(packed.input_ids)], strict=True):
        assert packed.position_ids[start:end] == list(range(end - start))
        parts.append((packed.input_ids[start:end], packed.labels[start:end]))
    return parts


class TestLoss:
    def test_a_packed_sequence_has_the_summed_loss_of_its_rows(
        self, tiny_base: Path, renderer: Renderer, tmp_path: Path
    ) -> None:
        rendered = render_rows(renderer, tiny.rows(12), 512)
        packs = pack(rendered, 512, 0)
        assert min(len(_conversations(p)) for p in packs) > 1
        model, compute = _float32_model(tiny_base)
        separate = sum(_reference(model, row) for row in rendered)
        assert sum(_packed_loss(model, compute, p, tmp_path) for p in packs) == pytest.approx(separate, rel=1e-5)

    def test_without_restarting_positions_rows_would_see_each_other(
        self, tiny_base: Path, renderer: Renderer, tmp_path: Path
    ) -> None:
        """The control of the test above: it can tell the difference."""
        rendered = render_rows(renderer, tiny.rows(12), 512)
        model, compute = _float32_model(tiny_base)
        packs = pack(rendered, 512, 0)
        leaking = [Pack(p.input_ids, list(range(len(p.input_ids))), p.labels, p.rows) for p in packs]
        separate = [sum(_reference(model, rendered[row]) for row in p.rows) for p in packs]
        losses = [_packed_loss(model, compute, p, tmp_path) for p in leaking]
        assert max(abs(loss / s - 1) for loss, s in zip(losses, separate, strict=True)) > 5e-5

    def test_a_step_averages_over_tokens_not_over_sequences(
        self, tiny_base: Path, renderer: Renderer, tmp_path: Path
    ) -> None:
        config = tiny.config(tiny_base, "model.dtype=float32", "train.sequences_per_step=100", "train.epochs=1")
        rendered = render_rows(renderer, tiny.rows(12), config.train.sequence_length)
        model, _ = _float32_model(tiny_base)
        mean = sum(_reference(model, row) for row in rendered) / sum(sum(row.mask) for row in rendered)
        assert train(config, tiny_base, tmp_path / "out", 12) == [pytest.approx(mean, rel=1e-5)]


def _float32_model(base: Path) -> tuple[Any, Compute]:
    from harness.train.model import load_for_training

    config = tiny.config(base)
    model = load_for_training(base, config.train, "float32")
    return model, compute_for(model, config.training, "cpu")


def _reference(model: Any, row: Rendered) -> float:
    """Summed cross-entropy (nats) of the supervised tokens of one row alone, by its definition."""
    import torch

    with torch.no_grad():
        logprobs = torch.log_softmax(model(input_ids=torch.tensor([row.ids])).logits[0].double(), -1)
    return -sum(float(logprobs[t - 1, row.ids[t]]) for t, supervised in enumerate(row.mask) if supervised)


def _packed_loss(model: Any, compute: Compute, packed: Pack, scratch: Path) -> float:
    import torch

    from harness.train.trainer import PackedTrainer, training_arguments

    config = tiny.config(Path("unused"))
    count = 1 + max(packed.rows)
    batches = TrainingBatches([packed], [0], [str(row) for row in range(count)], ["tiny"] * count, 1)
    arguments = training_arguments(config.train, 1, scratch, use_cpu=True)
    trainer = PackedTrainer(batches, config.training, compute, model=model, args=arguments)
    with torch.no_grad():
        return float(trainer.compute_loss(model, collate(batches.examples(1)), num_items_in_batch=1))


class TestMask:
    @pytest.mark.parametrize("system", [None, "You are the bank's assistant."])
    def test_supervised_is_what_follows_the_generation_prompt_up_to_the_end_of_turn(
        self, tiny_base: Path, renderer: Renderer, system: str | None
    ) -> None:
        policy = {"system": system, "system_policy": "fixed" if system else "none"}
        config = tiny.config(tiny_base).template.model_copy(update=policy)
        renderer = Renderer(make_contract(config, renderer.tokenizer), renderer.tokenizer)
        for row in [*tiny.rows(4), {**tiny.rows(1)[0], "input": "An input.", "output": "Zwölf\n\nBärenµ "}]:
            messages = conversation(row["instruction"], row["input"], row["output"])
            full, prompt = renderer.training(messages), renderer.prompt(messages[:1])
            assert full.ids[: len(prompt)] == prompt
            supervised = [index for index, on in enumerate(full.mask) if on]
            assert supervised == list(range(len(prompt), supervised[-1] + 1))
            assert full.ids[supervised[-1]] == renderer.contract.end_of_turn_id
            answer = [full.ids[index] for index in supervised]
            assert renderer.decode(answer) == row["output"] + renderer.contract.end_of_turn

    def test_a_row_over_the_sequence_length_is_named(self, tiny_base: Path, tmp_path: Path) -> None:
        rows = [*tiny.rows(2), {**tiny.rows(1)[0], "id": "the-long-one", "output": "word " * 300}]
        with pytest.raises(DataError, match=r"1 row over 256 tokens: the-long-one"):
            finetune(tiny.config(tiny_base).training, tiny_base, rows, tmp_path)


class TestTraining:
    def test_one_seed_gives_the_same_bits(self, tiny_base: Path, tmp_path: Path) -> None:
        adapters = []
        for name, seed in (("one", 0), ("two", 0), ("other", 1)):
            config = tiny.config(tiny_base, *GOLDEN_RUN, f"train.seed={seed}", "train.lora.dropout=0.1")
            train(config, tiny_base, tmp_path / name, 8)
            adapters.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
        assert adapters[0] == adapters[1]
        assert adapters[0] != adapters[2]

    def test_golden_losses(self, tiny_base: Path, tmp_path: Path) -> None:
        assert train(tiny.config(tiny_base, *GOLDEN_RUN), tiny_base, tmp_path / "out", 24)[:3] == pytest.approx(
            GOLDEN, rel=2e-3
        )

    def test_the_loss_falls(self, tiny_adapter: Path) -> None:
        summary = load(TrainingSummary, tiny_adapter / "training.json")
        assert summary.final_loss < 0.8 * summary.first_loss
        assert summary.rows == 24
        curve = (tiny_adapter / "train.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in curve] == list(range(1, summary.steps + 1))

    def test_a_loss_that_is_not_a_number_stops_with_the_step(self, tiny_base: Path, tmp_path: Path) -> None:
        overrides = ("train.schedule=constant", "train.warmup_ratio=0.0", "train.epochs=3")
        config = tiny.config(tiny_base, *overrides, "train.learning_rate=1e30")
        with pytest.raises(TrainingFault, match=r"the loss is nan at step \d+ of \d+.*train\.learning_rate") as caught:
            train(config, tiny_base, tmp_path / "out")
        assert caught.value.exit_code == 3

    def test_weights_that_are_not_numbers_stop_at_the_first_step(self, tiny_base: Path, tmp_path: Path) -> None:
        with pytest.raises(TrainingFault, match="at step 1 of"):
            train(tiny.config(tiny_base), _poisoned(tiny_base, tmp_path / "poisoned"), tmp_path / "out")


def _poisoned(base: Path, folder: Path) -> Path:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class TestCheckpoint:
    def test_the_prompt_side_stands_in_every_place_a_reader_may_look(self, tiny_adapter: Path) -> None:
        contract = Contract.load(tiny_adapter)
        template = contract.template
        generation = json.loads((tiny_adapter / "generation_config.json").read_text())
        assert template.endswith(read_template("chatml.jinja"))
        assert (tiny_adapter / "chat_template.jinja").read_text() == template
        assert json.loads((tiny_adapter / "tokenizer_config.json").read_text())["chat_template"] == template
        assert load_tokenizer(tiny_adapter).chat_template == template
        assert generation["eos_token_id"] == contract.stop_ids
        assert len(contract.stop_ids) == 2  # the end of turn, and the tokenizer's own end of text

    def test_weights_are_safetensors_and_only_the_adapter(self, tiny_adapter: Path) -> None:
        from safetensors import safe_open

        assert _names(tiny_adapter, (".bin", ".pt", ".pth", ".pkl", ".ckpt")) == []
        assert _names(tiny_adapter, (".safetensors",)) == ["adapter_model.safetensors"]
        with safe_open(tiny_adapter / "adapter_model.safetensors", "pt") as weights:
            names = list(weights.keys())
        assert names
        assert all("lora_" in name for name in names)


def _names(folder: Path, suffixes: Sequence[str]) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.suffix in suffixes]
