"""An error in the middle of training names the step, its rows and a fix."""

import errno
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from safetensors import SafetensorError

from harness.config.train import TrainConfig
from harness.core.errors import DiskFull, TrainingFault
from harness.train.faults import check_step
from harness.train.finetune import finetune
from harness.train.packing import Pack, TrainingBatches

pytestmark = pytest.mark.integration
OVERRIDES = ("train.sequences_per_step=1", "train.epochs=3", "train.save_every=2")


def packs() -> TrainingBatches:
    made = [Pack([1, 2], [0, 1], [2, -100], (n,)) for n in range(4)]
    return TrainingBatches(made, [2, 0, 3, 1], [f"row-{n}" for n in range(4)], ["tiny"] * 4, 2)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"loss": float("nan"), "grad_norm": 1.0}, "the loss is nan at step 2 of 2"),
        ({"loss": 2.0, "grad_norm": float("inf")}, "the gradient norm is inf at step 2 of 2"),
        ({"loss": 40.0, "grad_norm": 1.0}, r"the loss is 40\.0 \(guessing gives 6\.9\) at step 2 of 2"),
    ],
)
def test_divergence_names_step_rows_and_fix(values: dict[str, float], told: str) -> None:
    config = TrainConfig(learning_rate=0.5)
    with pytest.raises(TrainingFault, match=rf"{told}.*train\.learning_rate \(now 0\.5\).*: row-3, row-1$"):
        check_step({"step": 2, **values}, packs(), config, 1000)


def test_the_rows_with_the_highest_loss_are_named_first() -> None:
    many = TrainingBatches(
        [Pack([1], [0], [2], tuple(range(12)))], [0], [f"row-{n}" for n in range(12)], ["tiny"] * 12, 1
    )
    by_loss = [11, 3, *(n for n in range(12) if n not in (11, 3))]
    with pytest.raises(TrainingFault, match=r"\(highest loss first\): row-11, row-3, row-0, .*row-8 and 2 more$"):
        check_step({"step": 1, "loss": math.nan}, many, TrainConfig(), 1000, lambda: by_loss)


def test_a_high_loss_is_no_divergence() -> None:
    check_step({"step": 1, "loss": 12.0, "grad_norm": 300.0}, packs(), TrainConfig(), 1000)


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        ({"loss": 60.0}, {"source_weights": {"tiny": 10}}),
        ({"loss": 60.0, "kl_to_base": 52.0}, {"kl_to_base": 100}),
        ({"loss": 60.0, "l2_to_start": 52.0}, {"l2_to_start": 100}),
    ],
    ids=str,
)
def test_neither_weights_nor_penalties_make_a_loss_diverge(values: dict[str, float], settings: dict[str, Any]) -> None:
    check_step({"step": 1, "grad_norm": 1.0, **values}, packs(), TrainConfig.model_validate(settings), 1000)
    with pytest.raises(TrainingFault, match="training diverged"):
        check_step(
            {"step": 1, "grad_norm": 1.0, **values, "loss": 400.0}, packs(), TrainConfig.model_validate(settings), 1000
        )


def breaking_at(step: int, error: Exception) -> Callable[..., Any]:
    from harness.train.trainer import PackedTrainer

    usual = PackedTrainer.compute_loss

    def compute_loss(self: Any, *arguments: Any, **named: Any) -> Any:
        if self.state.global_step + 1 == step:
            raise error
        return usual(self, *arguments, **named)

    return compute_loss


@pytest.mark.parametrize(
    "text", ["CUDA out of memory. Tried to allocate", "DefaultCPUAllocator: can't allocate memory"]
)
def test_out_of_memory(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    from harness.train.trainer import PackedTrainer

    monkeypatch.setattr(PackedTrainer, "compute_loss", breaking_at(3, RuntimeError(text)))
    with pytest.raises(TrainingFault, match=r"out of memory at step 3 of \d+ \(a sequence of \d+ tokens\)") as caught:
        finetune(tiny.config(tiny_base, *OVERRIDES).training, tiny_base, tiny.rows(12), tmp_path)
    told = str(caught.value)
    assert "train.gradient_checkpointing=true" in told
    assert "--dry-run" in told
    assert "Rows: row-" in told


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_keeps_the_checkpoint_before(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from harness.train.trainer import PackedTrainer

    usual = PackedTrainer._save_optimizer_and_scheduler

    def save(self: Any, folder: str) -> None:
        if self.state.global_step == 4:
            raise error
        usual(self, folder)

    (tmp_path / "out").mkdir()
    config = tiny.config(tiny_base, *OVERRIDES)
    with monkeypatch.context() as patch:
        patch.setattr(PackedTrainer, "_save_optimizer_and_scheduler", save)
        with pytest.raises(DiskFull, match=r"no space left at step 4 of .* before that step is complete"):
            finetune(config.training, tiny_base, tiny.rows(12), tmp_path / "out", tmp_path / "progress")
    summary = finetune(config.training, tiny_base, tiny.rows(12), tmp_path / "out", tmp_path / "progress")
    assert summary.resumed_at == [2]


def test_a_disk_that_is_full_at_the_very_end_is_told_too(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("harness.train.fit._save", save)
    with pytest.raises(DiskFull, match=r"no space left at step (\d+) of \1;"):
        finetune(tiny.config(tiny_base).training, tiny_base, tiny.rows(4), tmp_path)


@pytest.mark.parametrize("parts", [1, 2])
def test_the_row_whose_loss_is_no_number_is_named_first(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    from harness.train.trainer import PackedTrainer

    usual = PackedTrainer.objective

    def objective(self: Any, model: Any, inputs: Any, supervised: Any, losses: Any, logits: Any, items: Any) -> Any:
        broken = losses.masked_fill(inputs["row"][0][supervised] == 7, math.nan)
        return usual(self, model, inputs, supervised, broken, logits, items)

    monkeypatch.setattr(PackedTrainer, "objective", objective)
    config = tiny.config(tiny_base, "train.sequences_per_step=100", f"train.parts_at_once={parts}")
    with pytest.raises(TrainingFault, match=r"the loss is nan at step 1 of .*\(highest loss first\): row-007, row-"):
        finetune(config.training, tiny_base, tiny.rows(12), tmp_path)


def test_another_error_keeps_its_own_words(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.train.trainer import PackedTrainer

    monkeypatch.setattr(PackedTrainer, "compute_loss", breaking_at(2, RuntimeError("a defect")))
    with pytest.raises(RuntimeError, match="a defect"):
        finetune(tiny.config(tiny_base, *OVERRIDES).training, tiny_base, tiny.rows(12), tmp_path)


def test_the_summary_says_what_training_was(tiny_adapter: Path) -> None:
    summary = json.loads((tiny_adapter / "training.json").read_text())
    assert summary["hardware"]["cores"]
    assert summary["versions"]["torch"]
    assert len(summary["order_sha256"]) == 64
    assert summary["sources"] == {"tiny": 24}
    assert 0 <= summary["padding_share"] < 1
    assert summary["long_rows"] == {"policy": "error", "limit": 256, "dropped": {}, "split": {}}
