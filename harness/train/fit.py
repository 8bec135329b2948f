"""Training itself: the trainer with its callbacks, from the start or from the last complete checkpoint."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from harness.config import Config
from harness.console import progress as progress_bar
from harness.console import say
from harness.train.faults import told
from harness.train.interruption import Interruption
from harness.train.material import Material
from harness.train.model import device_of, load_for_training
from harness.train.progress import CURVE, Progress

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
    checkpoint) when it was asked to stop.
    """
    from harness.train.callbacks import StepWriter

    writer: StepWriter | None = None
    interruption = Interruption()
    with (
        told(material, config.train, lambda: writer.running if writer else 1),
        (progress.folder / CURVE).open("a") as file,
        progress_bar("train", material.steps, "step") as bar,
        interruption.listening(),
    ):
        bar.initial = bar.n = int(resume.name.rpartition("-")[2]) if resume else 0
        model = load_for_training(base, config.train, config.model.dtype)
        writer = StepWriter(material, config, len(model.get_input_embeddings().weight), file, bar)
        trainer = _trainer(config, material, progress, model, writer, interruption, examine)
        with closing(trainer):
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if interruption.asked:
        if trainer.is_world_process_zero():
            say(f"  saved at step {trainer.state.global_step} of {material.steps}; training goes on from there")
        raise KeyboardInterrupt
    _save(trainer, config, out)


def _trainer(
    config: Config,
    material: Material,
    progress: Progress,
    model: Any,
    writer: Any,
    interruption: Interruption,
    examine: Examine | None,
) -> Any:
    from harness.train.callbacks import Examination, Saving
    from harness.train.objective import ObjectiveTrainer
    from harness.train.side_by_side import draws_lots, parts_at_once
    from harness.train.trainer import training_arguments

    at_once = 1 if draws_lots(model) else parts_at_once(config)
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
