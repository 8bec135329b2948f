"""Supervised fine-tuning: turns rows into a checkpoint, with all that is needed to trust or repeat it."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from harness.config.experiment import TrainingConfig
from harness.core.console import plural, say
from harness.core.layout import CURVE, TRAINING
from harness.core.machine import hardware
from harness.core.store import versions
from harness.model.load import is_adapter, load_tokenizer
from harness.prompt.contract import Contract
from harness.prompt.make import make_contract
from harness.prompt.numerics import compute
from harness.prompt.render import Renderer
from harness.prompt.saved import write_prompt_side
from harness.prompt.static import check_contract, require_sound
from harness.records.stages import TrainingSummary
from harness.train.fit import fit
from harness.train.launch import launch
from harness.train.model import free_memory, merge_adapter, parameters
from harness.train.packing import TrainingBatches, padding_share, training_batches
from harness.train.prepare import Prepared, TrainingRow, long_rows_messages, prepare
from harness.train.progress import SavedProgress
from harness.train.selection import CheckpointSelector, EvaluateCheckpoint


def finetune(
    config: TrainingConfig,
    base: Path,
    rows: Sequence[TrainingRow],
    out: Path,
    progress: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    evaluate: EvaluateCheckpoint | None = None,
    validation: Sequence[TrainingRow] = (),
) -> TrainingSummary:
    """Trains on `rows` and writes weights, tokenizer, template, contract, curve and summary to `out`.

    Intermediate states go to `progress`; training resumes from there if `identity` is the same. `evaluate` measures
    checkpoints (train.eval_every); the loss on `validation` is measured at the end. Raises EvidenceFault for an unsound
    prompt contract (before any training), TrainingFault when training diverges, DataError for rows that cannot be
    trained on, UsageError when `identity` changed.
    """
    tokenizer, contract = contract_for_training(config, base)
    renderer = Renderer(contract, tokenizer)
    prepared = prepare(renderer, rows, config.train)
    for message in long_rows_messages(prepared.long):
        say(f"  note: {message}")
    # rows that are too long are left out of validation, whatever train.too_long says
    dropping = config.train.model_copy(update={"too_long": "drop"})
    held_out = prepare(renderer, validation, dropping) if validation else None
    with ExitStack() as stack:
        saved = SavedProgress(progress or Path(stack.enter_context(tempfile.TemporaryDirectory())))
        saved.open(identity or {})
        batches = training_batches(prepared, config.train)
        selector: CheckpointSelector | None = None
        if evaluate and config.train.eval_every:
            selector = CheckpointSelector(evaluate, config, saved, contract, tokenizer)
        _train(config, base, batches, saved, out, selector)
        summary = _summary(config, base, batches, prepared, saved, selector)
        shutil.copy(saved.folder / CURVE, out / CURVE)
    free_memory()
    if config.train.lora.dora and is_adapter(out):
        merge_adapter(out, base, config.model.dtype)
    compute(out, base if is_adapter(out) else out, contract, config.model.dtype).save(out)
    write_prompt_side(contract, tokenizer, out)
    if held_out is not None:
        from harness.train.validation import losses_of

        before, after = losses_of(config, base, out, held_out.rendered)
        say(f"  validation loss on {plural(len(held_out.rows), 'row')}: {after:.4f} (base model: {before:.4f})")
        losses = {"validation_loss": after, "base_validation_loss": before}
        summary = summary.model_copy(update={"validation_rows": len(held_out.rows), **losses})
    summary.save(out / TRAINING)
    return summary


def contract_for_training(config: TrainingConfig, base: Path) -> tuple[Any, Contract]:
    """The base model's tokenizer and the contract of the configured template; raises EvidenceFault if unsound."""
    tokenizer = load_tokenizer(base)
    contract = make_contract(config.template, tokenizer)
    for note in require_sound(check_contract(contract, tokenizer), f"the prompt contract '{contract.template_name}'"):
        say(f"  note: {note.check}: {note.message}")
    return tokenizer, contract


def _train(
    config: TrainingConfig,
    base: Path,
    batches: TrainingBatches,
    saved: SavedProgress,
    out: Path,
    selector: CheckpointSelector | None,
) -> None:
    """Trains, or resumes a training, and writes the kept weights to `out`."""
    done, resume = saved.latest() or (0, None)
    saved.cut_curve(done)
    if resume is not None:
        say(f"  resuming from step {done} of {batches.steps}")
        saved.note_resumed(done)
        if selector is not None:
            selector.catch_up(done, resume, batches.steps)
    if selector is None or not selector.stopped:
        if config.launcher == "accelerate":
            launch(config, base, batches, saved, resume, out)
            # launched processes end where a checkpoint is to be evaluated; they are launched again after it
            while selector is not None and (latest := saved.latest()):
                step, checkpoint = latest
                selector.catch_up(step, checkpoint, batches.steps)
                if selector.stopped or step == batches.steps:
                    break
                launch(config, base, batches, saved, checkpoint, out)
        else:
            fit(config, base, batches, saved, resume, out, selector)
    if selector is not None:
        selector.write_kept(out)


def _summary(
    config: TrainingConfig,
    base: Path,
    batches: TrainingBatches,
    prepared: Prepared,
    saved: SavedProgress,
    selector: CheckpointSelector | None,
) -> TrainingSummary:
    curve = saved.curve()
    seconds = max(sum(row["seconds"] for row in curve), 1e-9)
    trained, total = parameters(base, config.train)
    done = [batches.tokens(int(row["step"]))[0] for row in curve]
    tokens = sum(len(p.input_ids) for p in batches.packs)
    return TrainingSummary(
        rows=len(prepared.rows),
        sequences=len(batches.packs),
        tokens=tokens,
        supervised_tokens=sum(p.supervised for p in batches.packs),
        steps=len(curve),
        first_loss=curve[0]["loss"],
        final_loss=curve[-1]["loss"],
        seconds=round(seconds, 2),
        tokens_per_s=round(sum(done) / seconds, 1),
        trained_parameters=trained,
        total_parameters=total,
        seed=config.train.seed,
        method=config.train.method,
        padding_share=round(padding_share(batches.packs, config.train.sequence_length), 4),
        order_sha256=batches.order_sha256,
        resumed_at=saved.resumed_at(),
        kept_step=selector.kept_step if selector else int(curve[-1]["step"]),
        examined=saved.examined(),
        long_rows=prepared.long,
        sources=dict(sorted(Counter(str(row["source"]) for row in prepared.rows).items())),
        peak_memory_gib=round(max(row["memory_gib"] for row in curve), 3),
        processes=config.num_processes,
        parts_at_once=starts[0].parts_at_once if (starts := saved.starts()) else 1,
        threads=[start.threads for start in starts],
        hardware=hardware(),
        versions=versions(),
    )
