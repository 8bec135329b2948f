"""Supervised fine-tuning: transformers' Trainer on packed sequences, logits only where there is a loss."""

import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.base_model import load_tokenizer
from harness.config import Config
from harness.console import progress, say
from harness.errors import DataError, TrainingFault
from harness.prompt.contract import Contract
from harness.prompt.make import make_contract
from harness.prompt.messages import row_messages
from harness.prompt.numerics import References, references
from harness.prompt.render import Rendered, Renderer
from harness.prompt.saved import write_prompt_side
from harness.prompt.static import check_contract, require_sound
from harness.records import TrainingSummary
from harness.train.memory import free_memory, keep_memory
from harness.train.model import device_of, load_for_training, parameter_counts
from harness.train.packing import Packed, pack

Row = dict[str, Any]
CURVE = "train.jsonl"
SUMMARY = "training.json"


def render_rows(renderer: Renderer, rows: Sequence[Row], limit: int) -> list[Rendered]:
    """Every row under the contract; raises DataError that lists rows over `limit` tokens."""
    rendered = [_rendered(renderer, row) for row in rows]
    too_long = [f"{row['id']} ({len(r.ids)})" for row, r in zip(rows, rendered, strict=True) if len(r.ids) > limit]
    if too_long:
        raise DataError(
            f"{len(too_long)} rows are longer than {limit} tokens: {', '.join(too_long[:5])}. "
            "Raise train.sequence_length, or shorten them; nothing is cut silently."
        )
    return rendered


def _rendered(renderer: Renderer, row: Row) -> Rendered:
    try:
        return renderer.training(row_messages(row))
    except DataError as error:
        raise DataError(f"row {row['id']} cannot be trained on: {error}") from None


def finetune(config: Config, base: Path, rows: Sequence[Row], out: Path) -> TrainingSummary:
    """Trains an adapter on `rows` and writes it into `out` with tokenizer, template, contract and curve.

    Raises EvidenceFault for a prompt contract with faults (nothing is trained then), TrainingFault when the loss
    is not a number, DataError for rows that cannot be trained on.
    """
    keep_memory()
    tokenizer = load_tokenizer(base)
    contract = make_contract(config.template, tokenizer)
    for note in require_sound(check_contract(contract, tokenizer), f"the prompt contract '{contract.template_name}'"):
        say(f"  note: {note.check}: {note.message}")
    rendered = render_rows(Renderer(contract, tokenizer), rows, config.train.sequence_length)
    packs = pack(rendered, config.train.sequence_length, config.train.seed)
    model = load_for_training(base, config.train, config.model.dtype)
    trained, total = parameter_counts(model)
    started = time.monotonic()
    curve = _train(model, packs, config, out)
    seconds = time.monotonic() - started
    model.save_pretrained(out, safe_serialization=True)
    (out / "README.md").unlink(missing_ok=True)
    _references(model, contract).save(out)
    del model
    free_memory()
    write_prompt_side(contract, tokenizer, out)
    tokens = sum(len(p.input_ids) for p in packs)
    summary = TrainingSummary(
        rows=len(rows),
        sequences=len(packs),
        tokens=tokens,
        supervised_tokens=sum(p.supervised for p in packs),
        steps=int(curve[-1]["step"]),
        first_loss=curve[0]["loss"],
        final_loss=curve[-1]["loss"],
        seconds=round(seconds, 2),
        tokens_per_s=round(tokens * config.train.epochs / seconds, 1),
        trained_parameters=trained,
        total_parameters=total,
        seed=config.train.seed,
    )
    summary.save(out / SUMMARY)
    return summary


def _references(model: Any, contract: Contract) -> References:
    """What the trained model, and the base model below its adapter, make of the golden prompts."""
    model.eval()
    trained = references(model, contract)
    with model.disable_adapter():
        return References(candidate=trained, base=references(model, contract))


def _train(model: Any, packs: Sequence[Packed], config: Config, out: Path) -> list[dict[str, float]]:
    """Runs the trainer; the curve (one row an optimiser step) is written to `out` as it grows."""
    from harness.train.trainer import PackedTrainer, StepReport, training_arguments

    settings = config.train
    steps = max(1, math.ceil(len(packs) * settings.epochs / settings.sequences_per_step))
    curve: list[dict[str, float]] = []
    with (
        (out / CURVE).open("w") as file,
        progress("train", steps, "step") as bar,
        tempfile.TemporaryDirectory() as scratch,
    ):

        def on_report(values: dict[str, float]) -> None:
            curve.append(values)
            file.write(json.dumps(values) + "\n")
            file.flush()
            bar.set_postfix_str(f"loss {values['loss']:.3f}, {values['tokens_per_s']:.0f} tok/s")
            bar.update(1)
            if not math.isfinite(values["loss"]):
                raise TrainingFault(
                    f"the loss is {values['loss']} at step {int(values['step'])} of {steps}: training diverged. "
                    f"Lower train.learning_rate (now {settings.learning_rate:g}) or look at the rows of that step."
                )

        trainer = PackedTrainer(
            model=model,
            args=training_arguments(settings, steps, Path(scratch), use_cpu=device_of(settings) == "cpu"),
            train_dataset=[vars(p) for p in packs],
            callbacks=[StepReport(on_report, packs, settings.sequences_per_step)],
        )
        trainer.train()
    return curve
