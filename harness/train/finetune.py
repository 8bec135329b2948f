"""Supervised fine-tuning: rows in, a checkpoint out, with everything a reader needs to trust or repeat it."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from harness.config.experiment import Config
from harness.config.train import TrainConfig
from harness.core.console import say
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
from harness.train.cpu.allocator import free_memory, keep_memory
from harness.train.examine import Examiner, Judge
from harness.train.fit import fit
from harness.train.launch import launch
from harness.train.model import merge_whole, parameters
from harness.train.packing import Material, material, order_sha256, padding_share, rows_by_source
from harness.train.prepare import Prepared, Row, long_rows_told, prepare
from harness.train.progress import CURVE, Progress

SUMMARY = "training.json"


def finetune(
    config: Config,
    base: Path,
    rows: Sequence[Row],
    out: Path,
    progress: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    judge: Judge | None = None,
    validation: Sequence[Row] = (),
) -> TrainingSummary:
    """Trains on `rows` and writes weights, tokenizer, template, contract, curve and summary into `out`.

    What is saved midway goes to `progress`; training goes on from there when it was started with the same
    `identity`. `judge` evaluates checkpoints (train.eval_every); the loss on `validation` is measured at the end.
    Raises EvidenceFault for a prompt contract with faults (nothing is trained then), TrainingFault when training
    diverges, DataError for rows that cannot be trained on, UsageError when `identity` changed.
    """
    keep_memory()
    tokenizer, contract = contract_for_training(config, base)
    prepared = prepare(Renderer(contract, tokenizer), rows, config.train)
    for told in long_rows_told(prepared.long):
        say(f"  note: {told}")
    set_aside = prepare(Renderer(contract, tokenizer), validation, _dropping(config.train)) if validation else None
    with ExitStack() as stack:
        saved = Progress(progress or Path(stack.enter_context(tempfile.TemporaryDirectory())))
        saved.open(identity or {})
        what = material(prepared, config.train)
        examiner = Examiner(judge, config, saved, contract, tokenizer) if judge and config.train.eval_every else None
        _weights(config, base, what, saved, out, examiner)
        summary = _summary(config, base, what, prepared, saved, examiner)
        shutil.copy(saved.folder / CURVE, out / CURVE)
    free_memory()
    if config.train.lora.dora and is_adapter(out):
        merge_whole(out, base, config.model.dtype)
    compute(out, base if is_adapter(out) else out, contract, config.model.dtype).save(out)
    write_prompt_side(contract, tokenizer, out)
    if set_aside is not None:
        summary = _validated(summary, config, base, out, set_aside)
    summary.save(out / SUMMARY)
    return summary


def _dropping(config: TrainConfig) -> TrainConfig:
    """Rows that are too long are left out of validation, whatever becomes of them in training."""
    return config.model_copy(update={"too_long": "drop"})


def _validated(summary: TrainingSummary, config: Config, base: Path, out: Path, rows: Prepared) -> TrainingSummary:
    from harness.train.validation import losses_of

    before, after = losses_of(config, base, out, rows.rendered)
    say(f"  validation loss {after:.4f} on {len(rows.rows)} rows (base model: {before:.4f})")
    found = {"validation_rows": len(rows.rows), "validation_loss": after, "base_validation_loss": before}
    return summary.model_copy(update=found)


def contract_for_training(config: Config, base: Path) -> tuple[Any, Contract]:
    """The base model's tokenizer and the sound contract of the configured template; raises EvidenceFault."""
    tokenizer = load_tokenizer(base)
    contract = make_contract(config.template, tokenizer)
    for note in require_sound(check_contract(contract, tokenizer), f"the prompt contract '{contract.template_name}'"):
        say(f"  note: {note.check}: {note.message}")
    return tokenizer, contract


def _weights(config: Config, base: Path, what: Material, saved: Progress, out: Path, examiner: Examiner | None) -> None:
    """Trains, or goes on with training, and writes the weights that are kept into `out`."""
    latest = saved.latest()
    done, resume = latest if latest else (0, None)
    saved.cut_curve(done)
    if resume is not None:
        say(f"  going on from step {done} of {what.steps}")
        saved.note_resumed(done)
        if examiner is not None:
            examiner.catch_up(done, resume, what.steps)
    if examiner is None or not examiner.stopped:
        if config.launcher == "accelerate":
            _launched(config, base, what, saved, resume, out, examiner)
        else:
            fit(config, base, what, saved, resume, out, examiner)
    if examiner is not None:
        examiner.write_kept(out)


def _launched(
    config: Config,
    base: Path,
    what: Material,
    saved: Progress,
    resume: Path | None,
    out: Path,
    examiner: Examiner | None,
) -> None:
    """Trains in processes of their own, which end at every examination and are started anew after it."""
    launch(config, base, what, saved, resume, out)
    while examiner is not None and (latest := saved.latest()):
        examiner.catch_up(*latest, what.steps)
        step, checkpoint = latest
        if examiner.stopped or step == what.steps:
            return
        launch(config, base, what, saved, checkpoint, out)


def _summary(
    config: Config, base: Path, what: Material, prepared: Prepared, saved: Progress, examiner: Examiner | None
) -> TrainingSummary:
    curve = saved.curve()
    seconds = max(sum(row["seconds"] for row in curve), 1e-9)
    trained, total = parameters(base, config.train)
    done = [what.tokens(int(row["step"]))[0] for row in curve]
    tokens = sum(len(p.input_ids) for p in what.packs)
    return TrainingSummary(
        rows=len(prepared.rows),
        sequences=len(what.packs),
        tokens=tokens,
        supervised_tokens=sum(p.supervised for p in what.packs),
        steps=len(curve),
        first_loss=curve[0]["loss"],
        final_loss=curve[-1]["loss"],
        seconds=round(seconds, 2),
        tokens_per_s=round(sum(done) / seconds, 1),
        trained_parameters=trained,
        total_parameters=total,
        seed=config.train.seed,
        method=config.train.method,
        padding_share=round(padding_share(what.packs, config.train.sequence_length), 4),
        order_sha256=order_sha256(what.packs, what.order),
        resumed_at=saved.resumed_at(),
        kept_step=examiner.kept_step if examiner else int(curve[-1]["step"]),
        examined=saved.examined(),
        long_rows=prepared.long,
        sources=rows_by_source(prepared.rows),
        peak_memory_gib=round(max(row["memory_gib"] for row in curve), 3),
        processes=config.num_processes,
        parts_at_once=starts[0].parts_at_once if (starts := saved.starts()) else 1,
        threads=[start.threads for start in starts],
        hardware=hardware(),
        versions=versions(),
    )
