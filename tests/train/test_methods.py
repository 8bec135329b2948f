"""Ways to train: what is trained, what is saved, and that the penalties against forgetting do what they say."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny

from harness.config.experiment import Config
from harness.core.errors import ConfigError, EnvironmentFault
from harness.model.load import is_adapter, load_model, load_tokenizer
from harness.prompt.contract import Contract
from harness.prompt.saved import check_saved
from harness.records.stages import TrainingSummary
from harness.train.finetune import finetune
from harness.train.model import own_gpu

pytestmark = pytest.mark.integration
FAST = ("train.learning_rate=1e-2", "train.schedule=constant", "train.warmup_ratio=0.0", "train.epochs=3")


def trained(base: Path, out: Path, *overrides: str, rows: list[Any] | None = None) -> TrainingSummary:
    out.mkdir()
    return finetune(tiny.config(base, *FAST, *overrides).training, base, rows or tiny.rows(12), out)


def curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in curve(folder)]


def distance(folder: Path, base: Path) -> float:
    """|change of the weights|, of an adapter through s·B·A."""
    from harness.model.load import with_adapter

    start = {n: p.detach().float() for n, p in load_model(base, "float32").named_parameters()}
    whole = load_model(base if is_adapter(folder) else folder, "float32")
    if is_adapter(folder):
        whole = with_adapter(whole, folder, base).merge_and_unload()
    squares = [float(((p.detach() - start[n]) ** 2).sum()) for n, p in whole.named_parameters()]
    return math.sqrt(sum(squares))


@pytest.fixture(scope="module")
def plain(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "out"
    trained(tiny_base, folder)
    return folder


class TestFull:
    def test_a_whole_model_is_learnt_and_saved(self, tiny_base: Path, tmp_path: Path) -> None:
        import torch
        from safetensors.torch import load_file

        out = tmp_path / "out"
        summary = trained(tiny_base, out, "train.method=full", "train.learning_rate=2e-3")
        assert summary.trained_parameters == summary.total_parameters
        assert summary.final_loss < 0.9 * summary.first_loss
        weights = load_file(out / "model.safetensors")
        assert {w.dtype for w in weights.values()} == {torch.bfloat16}
        assert not is_adapter(out)
        assert [p for p in check_saved(out, out, Contract.load(out)) if p.severity == "error"] == []
        assert load_model(out, "bfloat16").config.vocab_size == len(load_tokenizer(tiny_base))

    def test_the_penalty_keeps_it_near_its_start(self, tiny_base: Path, tmp_path: Path) -> None:
        far, near = tmp_path / "far", tmp_path / "near"
        full = ("train.method=full", "train.learning_rate=2e-3")
        trained(tiny_base, far, *full)
        trained(tiny_base, near, *full, "train.l2_to_start=10")
        assert distance(near, tiny_base) < 0.7 * distance(far, tiny_base)


class TestAdapters:
    def test_rslora_scales_by_the_root_of_the_rank(self, tiny_base: Path, tmp_path: Path, plain: Path) -> None:
        trained(tiny_base, tmp_path / "rs", "train.lora.rslora=true")
        assert losses(tmp_path / "rs")[0] == pytest.approx(losses(plain)[0])  # nothing is changed at the start
        assert losses(tmp_path / "rs")[2] != pytest.approx(losses(plain)[2], rel=1e-3)
        assert json.loads((tmp_path / "rs" / "adapter_config.json").read_text())["use_rslora"] is True

    def test_dora_is_saved_as_a_whole_model(self, tiny_base: Path, tmp_path: Path) -> None:
        summary = trained(tiny_base, tmp_path / "dora", "train.lora.dora=true")
        assert summary.final_loss < summary.first_loss
        assert not is_adapter(tmp_path / "dora")
        assert distance(tmp_path / "dora", tiny_base) > 0.1

    def test_qlora_without_a_gpu_is_told(self, tiny_base: Path, tmp_path: Path) -> None:
        with pytest.raises(EnvironmentFault, match=r"train\.method=qlora needs a GPU.*train\.method=lora"):
            trained(tiny_base, tmp_path / "out", "train.method=qlora", "train.device=cpu")

    def test_each_process_takes_a_gpu_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert own_gpu() == 0
        monkeypatch.setenv("LOCAL_RANK", "3")
        assert own_gpu() == 3

    def test_gradient_checkpointing_changes_no_loss(self, tiny_base: Path, tmp_path: Path, plain: Path) -> None:
        trained(tiny_base, tmp_path / "out", "train.gradient_checkpointing=true")
        assert losses(tmp_path / "out") == pytest.approx(losses(plain), rel=1e-3)


class TestSources:
    ROWS = [{**row, "source": "general" if n % 3 == 0 else "tiny"} for n, row in enumerate(tiny.rows(12))]

    def config(self, base: Path, *overrides: str) -> Config:
        sources = "data.sources={tiny: {path: a.jsonl}, general: {path: b.jsonl, role: replay}}"
        return tiny.config(base, *FAST, sources, *overrides)

    def run(self, base: Path, out: Path, *overrides: str) -> list[dict[str, float]]:
        out.mkdir()
        finetune(self.config(base, *overrides).training, base, self.ROWS, out)
        return curve(out)

    def test_the_curve_holds_every_sources_loss(self, tiny_base: Path, tmp_path: Path) -> None:
        found = self.run(tiny_base, tmp_path / "out", "train.sequences_per_step=50", "train.epochs=1")
        (row,) = found
        low, high = sorted((row["loss/tiny"], row["loss/general"]))
        assert low < row["loss"] < high
        assert row["supervised_tokens_per_s"] < row["tokens_per_s"]
        assert row["memory_gib"] > 0

    def test_a_weight_counts_a_sources_tokens_so_often(self, tiny_base: Path, tmp_path: Path) -> None:
        once = ("train.sequences_per_step=50", "train.epochs=1")
        plain = self.run(tiny_base, tmp_path / "plain", *once)[0]
        heavy = self.run(tiny_base, tmp_path / "heavy", *once, "train.source_weights={general: 3}")[0]
        alone = self.run(tiny_base, tmp_path / "alone", *once, "train.source_weights={tiny: 1e-9}")[0]
        assert heavy["loss"] - plain["loss"] == pytest.approx(2 * alone["loss"], rel=1e-3)
        assert heavy["loss/general"] == pytest.approx(plain["loss/general"], rel=1e-4)

    def test_a_weight_for_no_source_is_a_fault(self, tiny_base: Path) -> None:
        with pytest.raises(ConfigError, match=r"source_weights names no source of data\.sources: elsewhere"):
            self.config(tiny_base, "train.source_weights={elsewhere: 2}")

    def test_kl_keeps_the_model_near_the_base_on_general_rows(self, tiny_base: Path, tmp_path: Path) -> None:
        free = self.run(tiny_base, tmp_path / "free", "train.kl_to_base=1e-6")
        held = self.run(tiny_base, tmp_path / "held", "train.kl_to_base=100")
        assert free[0]["kl_to_base"] == pytest.approx(0, abs=1e-9)  # the adapter changes nothing yet
        assert held[-1]["kl_to_base"] / 100 < 0.5 * free[-1]["kl_to_base"] / 1e-6

    def test_l2_keeps_the_adapters_change_small(self, tiny_base: Path, tmp_path: Path, plain: Path) -> None:
        trained(tiny_base, tmp_path / "held", "train.l2_to_start=0.3")
        assert distance(tmp_path / "held", tiny_base) < 0.7 * distance(plain, tiny_base)

    def test_l2_is_half_the_squared_change(self, tiny_base: Path, tmp_path: Path, plain: Path) -> None:
        from harness.model.load import with_adapter
        from harness.train.trainer import l2_to_start

        model = with_adapter(load_model(tiny_base, "float32"), plain, tiny_base)
        assert float(l2_to_start(model, {})) == pytest.approx(0.5 * distance(plain, tiny_base) ** 2, rel=1e-4)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_distance_of_split_weights_is_refused(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """accelerate makes FSDP on GPUs alone; the trainer is told of it here."""
    from transformers import Trainer

    def postprocess(trainer: Any) -> None:
        create(trainer)
        trainer.is_fsdp_enabled = True

    create = Trainer.create_accelerator_and_postprocess
    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", postprocess)
    with pytest.raises(ConfigError, match=r"train\.l2_to_start: FSDP and DeepSpeed split the weights"):
        trained(tiny_base, tmp_path / "out", "train.l2_to_start=0.1", f"train.method={method}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.method=full", "train.kl_to_base=0.1"], "kl_to_base needs train.method=lora"),
        (["train.seed=-1"], r"train\.seed: .*greater than or equal to 0"),
        (["train.lora.dora=true", "train.l2_to_start=0.1"], "not defined for train.lora.dora"),
        (["num_processes=2"], "need launcher=accelerate"),
        (["launcher=accelerate", "num_processes=3"], "must be a multiple of num_processes"),
    ],
)
def test_settings_that_do_not_go_together(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.config(Path("unused"), *overrides)
