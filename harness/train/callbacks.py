"""The trainer's callbacks: the loss curve, saving, evaluation. Imports transformers; only training needs it."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch
from transformers import TrainerCallback

from harness.config.experiment import TrainingConfig
from harness.core.machine import peak_memory_gib
from harness.train.faults import check_step
from harness.train.packing import TrainingBatches
from harness.train.progress import Interruption


class StepWriter(TrainerCallback):
    """Writes the loss curve, updates the progress bar, and raises TrainingFault when training diverges."""

    def __init__(self, batches: TrainingBatches, config: TrainingConfig, vocabulary: int, file: TextIO, bar: Any):
        self.batches, self.config, self.vocabulary, self.file, self.bar = batches, config, vocabulary, file, bar
        self.running = 1
        self.by_loss: Callable[[], list[int]] = list  # replaced by the trainer's own, once there is one
        self._started = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.running = state.global_step + 1
        self._started = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        step = int(state.global_step)
        values = {k: float(v) for k, v in logs.items() if k != "epoch"}
        seconds = max(time.monotonic() - self._started, 1e-9)
        tokens, supervised = self.batches.tokens(step)
        speed = {"tokens_per_s": tokens / seconds, "supervised_tokens_per_s": supervised / seconds}
        row = {"step": float(step), **values, "seconds": seconds, **speed, "memory_gib": peak_memory_gib()}
        if state.is_world_process_zero:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
            self.bar.set_postfix_str(_bar_text(row))
            self.bar.update(1)
        check_step(row, self.batches, self.config.train, self.vocabulary, self.by_loss)


def _bar_text(row: dict[str, float]) -> str:
    speed = f"{row['tokens_per_s']:.0f} tok/s ({row['supervised_tokens_per_s']:.0f} supervised)"
    return f"loss {row['loss']:.3f}, lr {row['learning_rate']:.1e}, {speed}, {row['memory_gib']:.1f} GiB"


class CheckpointSaving(TrainerCallback):
    """Saves a checkpoint every `save_every` steps, before an evaluation, and when a stop was requested.

    Launched processes end where a checkpoint is to be evaluated; they are launched again after it.
    """

    def __init__(self, config: TrainingConfig, steps: int, interruption: Interruption):
        self.settings, self.steps, self.interruption = config.train, steps, interruption
        self.processes, self.launched = config.num_processes, config.launcher != "none"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        every = self.settings.save_every
        due = bool(every) and step % every == 0 and step < self.steps
        stop = self._stop_requested(args.device)
        evaluated = evaluation_due(self.settings.eval_every, step, self.steps)
        control.should_save = due or stop or evaluated
        control.should_training_stop = control.should_training_stop or stop or (evaluated and self.launched)

    def _stop_requested(self, device: torch.device) -> bool:
        """Whether to stop, agreed by all processes. `device` is one that their communication backend supports."""
        if self.processes == 1:
            return self.interruption.check()
        flag = torch.tensor(float(self.interruption.check()), device=device)
        torch.distributed.all_reduce(flag)
        self.interruption.requested = bool(flag)
        return self.interruption.requested


class CheckpointEvaluation(TrainerCallback):
    """Calls `on_checkpoint` for each checkpoint to evaluate, and ends training when it returns False."""

    def __init__(self, config: TrainingConfig, steps: int, on_checkpoint: Callable[[int, Path], bool]):
        self.every, self.steps, self.on_checkpoint = config.train.eval_every, steps, on_checkpoint

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        if evaluation_due(self.every, step, self.steps):
            goes_on = self.on_checkpoint(step, Path(args.output_dir) / f"checkpoint-{step}")
            control.should_training_stop = control.should_training_stop or not goes_on


def evaluation_due(every: int, step: int, steps: int) -> bool:
    """Whether a checkpoint is evaluated after `step`: every `every` steps, and after the last one; 0: never."""
    return every > 0 and (step % every == 0 or step == steps)
