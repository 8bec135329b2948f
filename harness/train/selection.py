"""Checkpoint selection: evaluates checkpoints during training, keeps the best, and decides whether to stop early."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.config.experiment import TrainingConfig
from harness.core.console import say
from harness.core.errors import DataError
from harness.model.load import load_model
from harness.prompt.contract import Contract
from harness.prompt.saved import write_prompt_side
from harness.records.stages import EvaluatedCheckpoint
from harness.train.progress import SavedProgress

EvaluateCheckpoint = Callable[[int, Path], EvaluatedCheckpoint]
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json", "config.json")


class CheckpointSelector:
    """Measures checkpoints with `evaluate`, and keeps the best of them in the progress folder."""

    def __init__(
        self,
        evaluate: EvaluateCheckpoint,
        config: TrainingConfig,
        saved: SavedProgress,
        contract: Contract,
        tokenizer: Any,
    ):
        self.evaluate, self.config, self.saved = evaluate, config, saved
        self.contract, self.tokenizer = contract, tokenizer

    def __call__(self, step: int, checkpoint: Path) -> bool:
        """Evaluates a checkpoint; returns whether training continues after it."""
        folder = self.saved.folder / f"examined-{step}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for pattern in _WEIGHTS:
            for path in checkpoint.glob(pattern):
                shutil.copy(path, folder / path.name)
        write_prompt_side(self.contract, self.tokenizer, folder)
        self.saved.note_evaluated(self.evaluate(step, folder))
        for other in self.saved.folder.glob("examined-*"):
            if other.name != f"examined-{self.kept_step}":
                shutil.rmtree(other)
        if self.stopped:
            guards = ", ".join(self.saved.examined()[-1].failed_guards)
            say(f"  training stops at step {step} because these guards failed: {guards}")
        return not self.stopped

    def catch_up(self, step: int, checkpoint: Path, steps: int) -> None:
        """Evaluates the checkpoint of `step` (of `steps`) if that is due and was not done yet."""
        from harness.train.callbacks import evaluation_due

        known = {found.step for found in self.saved.examined()}
        if step not in known and evaluation_due(self.config.train.eval_every, step, steps):
            self(step, checkpoint)

    @property
    def stopped(self) -> bool:
        """Whether the last checkpoint failed a guard and train.stop_on_forgetting is set."""
        examined = self.saved.examined()
        return self.config.train.stop_on_forgetting and bool(examined) and bool(examined[-1].failed_guards)

    @property
    def kept_step(self) -> int:
        return best_checkpoint(self.saved.examined()).step

    def write_kept(self, out: Path) -> None:
        """Replaces the weights in `out` by those of the best checkpoint."""
        kept = self.saved.folder / f"examined-{self.kept_step}"
        if self.config.train.method == "full":
            for path in out.glob("*.safetensors*"):
                path.unlink()
            load_model(kept, self.config.model.dtype).save_pretrained(out)
            return
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            shutil.copy(kept / name, out / name)


def best_checkpoint(examined: Sequence[EvaluatedCheckpoint]) -> EvaluatedCheckpoint:
    """The checkpoint to keep: of those with all guards within their margins, the one with the highest targets' mean.

    If none has its guards within the margins, the one that comes closest. Ties go to the earliest. Raises DataError
    without any checkpoint.
    """
    if not examined:
        raise DataError("no checkpoint was evaluated: train.eval_every is larger than the number of steps. Lower it.")

    def merit(found: EvaluatedCheckpoint) -> tuple[bool, float]:
        held = not found.failed_guards and found.slack >= 0
        return held, found.target if held else found.slack

    return max(examined, key=merit)
