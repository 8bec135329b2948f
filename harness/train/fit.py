"""Training itself: the trainer with its callbacks, from the start or from the last complete checkpoint."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from harness.config.experiment import Config
from harness.core.console import progress as progress_bar
from harness.core.console import say
from harness.train.faults import told
from harness.train.model import device_of, load_for_training
from harness.train.packing import Material
from harness.train.progress import CURVE, STOP, Interruption, Progress, Start

Examine = Callable[[int, Path], bool]


def fit(
    config: Config,
    base: Path,
    material: Material,
    progress: Progress,
    resume: Path | None,
    out: Path,
    examine: Examine | None = None,
) -> None:
    """Trains on `material` and writes the weights into `out`; `resume` is the checkpoint in `progress` to go on from.

    Raises TrainingFault when training diverges or runs out of memory, DiskFull, and KeyboardInterrupt (after a
    checkpoint) when it was asked to stop. Launched processes end with a checkpoint where an examination is due.
    """
    from harness.train.callbacks import StepWriter

    writer: StepWriter | None = None
    launched = config.launcher != "none"
    interruption = Interruption(progress.folder / STOP if launched else None)
    with (
        told(material, config.train, lambda: writer.running if writer else 1),
        (progress.folder / CURVE).open("a") as file,
        progress_bar("train", material.steps, "step") as bar,
        interruption.listening(),
    ):
        bar.initial = bar.n = int(resume.name.rpartition("-")[2]) if resume else 0
        model = load_for_training(base, config.train, config.model.dtype)
        writer = StepWriter(material, config, len(model.get_input_embeddings().weight), file, bar)
        earlier = progress.starts() if resume else []
        start = started(config, model, earlier)
        trainer = _trainer(config, material, progress, model, writer, interruption, examine, start.parts_at_once)
        writer.by_loss = trainer.rows_by_loss
        if trainer.is_world_process_zero():
            progress.note_starts([*earlier, start])
            _tell_difference(earlier, start)
        with closing(trainer):
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if interruption.asked:
        if trainer.is_world_process_zero():
            say(f"  saved at step {trainer.state.global_step} of {material.steps}; training goes on from there")
        raise KeyboardInterrupt
    if not launched or trainer.state.global_step == material.steps:
        with told(material, config.train, lambda: material.steps):
            _save(trainer, config, out)


def started(config: Config, model: Any, earlier: Sequence[Start] = ()) -> Start:
    """How `model` is trained here; what goes on keeps its number of parts, for another number rounds otherwise."""
    import torch

    from harness.train.cpu.threads import draws_lots, parts_at_once

    parts = 1 if draws_lots(model) else parts_at_once(config)
    device = device_of(config.train)
    if earlier and earlier[0].device == device:
        parts = earlier[0].parts_at_once
    return Start(device, torch.get_num_threads(), parts)


def _tell_difference(earlier: Sequence[Start], now: Start) -> None:
    if earlier and earlier[0] != now:
        first = earlier[0]
        say(
            f"  note: training was started on {first.device} with {first.threads} threads and goes on with "
            f"{now.threads} on {now.device}: its last bits may differ from those of an undisturbed training"
        )


def _trainer(
    config: Config,
    material: Material,
    progress: Progress,
    model: Any,
    writer: Any,
    interruption: Interruption,
    examine: Examine | None,
    at_once: int,
) -> Any:
    from harness.train.callbacks import Examination, Saving
    from harness.train.trainer import ObjectiveTrainer, training_arguments

    arguments = training_arguments(
        config.train,
        material.steps,
        progress.folder,
        use_cpu=device_of(config.train) == "cpu",
        processes=config.num_processes,
        bf16=config.train.method == "full" and config.model.dtype == "bfloat16",
        at_once=at_once,
    )
    callbacks: list[Any] = [writer, Saving(config, material.steps, interruption)]
    if examine is not None:
        callbacks.append(Examination(config, material.steps, examine))
    return ObjectiveTrainer(material, config, at_once, model=model, args=arguments, callbacks=callbacks)


def _save(trainer: Any, config: Config, out: Path) -> None:
    """Writes the weights: the adapter, or the whole model in `model.dtype`."""
    import torch

    if config.train.method == "full" and not trainer.is_fsdp_enabled:
        trainer.model.to(getattr(torch, config.model.dtype))
    trainer.save_model(str(out))
    for name in ("README.md", "training_args.bin"):
        (out / name).unlink(missing_ok=True)
