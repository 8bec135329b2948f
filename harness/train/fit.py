"""The training loop: builds the trainer with its callbacks, and starts it from step 1 or a complete checkpoint."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from harness.config.experiment import TrainingConfig
from harness.core.console import plural, say
from harness.core.console import progress as progress_bar
from harness.core.layout import CURVE
from harness.train.device import compute_for, device_of
from harness.train.faults import translated_errors
from harness.train.model import load_for_training
from harness.train.packing import TrainingBatches
from harness.train.progress import STOP, ComputeSettings, Interruption, SavedProgress

OnCheckpoint = Callable[[int, Path], bool]


def fit(
    config: TrainingConfig,
    base: Path,
    batches: TrainingBatches,
    progress: SavedProgress,
    resume: Path | None,
    out: Path,
    on_checkpoint: OnCheckpoint | None = None,
) -> None:
    """Trains on `batches` and writes the weights to `out`; `resume` is the checkpoint in `progress` to resume from.

    `on_checkpoint` is called with the step and folder of each checkpoint to evaluate; training ends when it returns
    False. Launched processes save a checkpoint and end there instead. Raises TrainingFault when training diverges or
    runs out of memory, DiskFull, and KeyboardInterrupt (after saving a checkpoint) when a stop was requested.
    """
    import torch

    from harness.train.callbacks import CheckpointEvaluation, CheckpointSaving, StepWriter
    from harness.train.trainer import PackedTrainer, training_arguments

    device = device_of(config.train)
    launched = config.launcher != "none"
    interruption = Interruption(progress.folder / STOP if launched else None)
    writer: StepWriter | None = None
    with (
        translated_errors(batches, config.train, lambda: writer.running if writer else 1),
        (progress.folder / CURVE).open("a") as file,
        progress_bar("train", batches.steps, "step") as bar,
        interruption.handling_signals(),
    ):
        bar.initial = bar.n = int(resume.name.rpartition("-")[2]) if resume else 0
        model = load_for_training(base, config.train, config.model.dtype)
        earlier = progress.starts() if resume else []
        same_device = bool(earlier) and earlier[0].device == device
        compute = compute_for(model, config, device, earlier[0].parts_at_once if same_device else None)
        now = ComputeSettings(device, torch.get_num_threads(), compute.parts_at_once)
        writer = StepWriter(batches, config, len(model.get_input_embeddings().weight), file, bar)
        callbacks: list[Any] = [writer, CheckpointSaving(config, batches.steps, interruption)]
        if on_checkpoint is not None:
            callbacks.append(CheckpointEvaluation(config, batches.steps, on_checkpoint))
        arguments = training_arguments(
            config.train,
            batches.steps,
            progress.folder,
            use_cpu=device == "cpu",
            processes=config.num_processes,
            bf16=config.train.method == "full" and config.model.dtype == "bfloat16",
            parts_at_once=compute.parts_at_once,
        )
        trainer = PackedTrainer(batches, config, compute, model=model, args=arguments, callbacks=callbacks)
        writer.by_loss = trainer.rows_by_loss
        if trainer.is_world_process_zero():
            progress.note_starts([*earlier, now])
            if earlier and earlier[0] != now:
                say(
                    f"  note: training started on {earlier[0].device} with {plural(earlier[0].threads, 'thread')} and "
                    f"resumes on {now.device} with {plural(now.threads, 'thread')}: the last bits of the weights may "
                    "differ from those of an uninterrupted training"
                )
        with closing(compute):
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if interruption.requested:
        if trainer.is_world_process_zero():
            say(f"  saved at step {trainer.state.global_step} of {batches.steps}; the same command resumes from there")
        raise KeyboardInterrupt
    if not launched or trainer.state.global_step == batches.steps:
        with translated_errors(batches, config.train, lambda: batches.steps):
            _save(trainer, config, out)


def _save(trainer: Any, config: TrainingConfig, out: Path) -> None:
    """Writes the weights: the adapter, or the whole model in `model.dtype`."""
    import torch

    if config.train.method == "full" and not trainer.is_fsdp_enabled:
        trainer.model.to(getattr(torch, config.model.dtype))
    trainer.save_model(str(out))
    for name in ("README.md", "training_args.bin"):
        (out / name).unlink(missing_ok=True)
