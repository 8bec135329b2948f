"""What a training would be: steps, tokens, rows that are too long, parameters, memory, time. Nothing is trained."""

import dataclasses
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from harness.config import Config
from harness.prompt.render import Renderer
from harness.records import LongRows
from harness.train.finetune import contract_for_training
from harness.train.fit import fit, started
from harness.train.material import Material, material
from harness.train.memory import keep_memory
from harness.train.memory_estimate import MemoryEstimate, estimate_memory
from harness.train.model import device_of, parameter_counts
from harness.train.packing import IGNORED, padding_share
from harness.train.parameters import skeleton
from harness.train.prepare import Row, long_rows_told, prepare
from harness.train.progress import Progress, Start

_PROBE = 3
_ROOM = 0.8


@dataclass(frozen=True)
class TrainingPlan:
    """`tokens` and `supervised` are of the whole training, over all epochs. `seconds` and `peak_gib` come from a
    probe of a few real steps; None where the expected memory leaves no room for one."""

    rows: int
    sequences: int
    steps: int
    tokens: int
    supervised: int
    padding: float
    long: LongRows
    trained: int
    total: int
    memory: MemoryEstimate
    seconds: float | None
    peak_gib: float | None
    start: Start

    def lines(self) -> Iterator[str]:
        share = self.supervised / self.tokens
        yield f"rows: {self.rows} in {self.sequences} sequences, {self.padding:.1%} of them padding"
        yield from long_rows_told(self.long)
        if not (self.long.dropped or self.long.split):
            yield f"rows over {self.long.limit} tokens: none"
        yield f"steps: {self.steps}, {self.tokens} tokens, {share:.0%} of them supervised"
        yield f"parameters trained: {self.trained} of {self.total} ({self.trained / self.total:.2%})"
        yield f"computed on: {self.start.device}, {self.start.threads} threads, {self._parts} of a step at once"
        parts = ", ".join(f"{field.name} {getattr(self.memory, field.name):.2f}" for field in _PARTS)
        yield f"expected memory: {self.memory.total:.2f} GiB a process, unsharded (by formula: {parts})"
        if self.seconds is None or self.peak_gib is None:
            yield "expected time: unknown; the expected memory leaves no room here for a probe"
        else:
            yield f"memory at its peak in a probe of {_PROBE} steps: {self.peak_gib:.2f} GiB"
            yield f"expected time: {self.seconds:.0f} s (from that probe, one process), without start and saving"

    @property
    def _parts(self) -> str:
        return "1 part" if self.start.parts_at_once == 1 else f"{self.start.parts_at_once} parts"


_PARTS = dataclasses.fields(MemoryEstimate)


def plan_training(config: Config, base: Path, rows: Sequence[Row]) -> TrainingPlan:
    """Raises what `finetune` would raise before its first step."""
    keep_memory()
    tokenizer, contract = contract_for_training(config, base)
    prepared = prepare(Renderer(contract, tokenizer), rows, config.train)
    what = material(prepared, config.train)
    model = skeleton(base, config.train)
    trained, total = parameter_counts(model)
    settings, start = config.train, _shared(started(config, model), config.num_processes)
    at_once = min(start.parts_at_once, settings.sequences_per_step)
    shape, dtype = model.config, config.model.dtype
    longest, supervised, sequences = _part(what, start, shape)
    memory = estimate_memory(shape, trained, total, settings, dtype, start.device, longest, supervised, at_once)
    counts = [what.tokens(step) for step in range(1, what.steps + 1)]
    tokens = sum(count[0] for count in counts)
    speed, peak = _probe(
        config, base, what, memory, min(at_once * sequences, settings.sequences_per_step), start.parts_at_once
    )
    return TrainingPlan(
        rows=len(prepared.rows),
        sequences=len(what.packs),
        steps=what.steps,
        tokens=tokens,
        supervised=sum(count[1] for count in counts),
        padding=padding_share(what.packs, config.train.sequence_length),
        long=prepared.long,
        trained=trained,
        total=total,
        memory=memory,
        seconds=tokens / speed if speed else None,
        peak_gib=peak,
        start=start,
    )


def _part(what: Material, start: Start, shape: Any) -> tuple[int, int, int]:
    """(tokens, supervised tokens, sequences) of the largest parts of a step: more rows fit where all share a prompt."""
    from harness.train.packed_attention import known
    from harness.train.shortening import drop_tails, share_prompt, shared_tokens
    from harness.train.side_by_side import apart, together

    longest, supervised = max(len(p.input_ids) for p in what.packs), max(p.supervised for p in what.packs)
    if start.parts_at_once == 1 or start.device != "cpu" or not known(shape):
        return longest, supervised, 1
    columns = ("input_ids", "position_ids", "labels")
    step = together([{name: getattr(packed, name) for name in columns} for packed in what.members(1)])
    cut = apart(step, what.per_step, start.parts_at_once, shared_tokens(step))
    parts = [share_prompt(drop_tails(part)) for part in cut]
    sizes = [part["labels"] for part in parts]
    found = max(size.shape[1] for size in sizes), max(int((size != IGNORED).sum()) for size in sizes)
    return max(longest, found[0]), max(supervised, found[1]), math.ceil(what.per_step / len(parts))


def _shared(start: Start, processes: int) -> Start:
    """Several processes share the cores."""
    return dataclasses.replace(start, threads=max(1, start.threads // processes))


def _probe(
    config: Config, base: Path, what: Material, memory: MemoryEstimate, per_step: int, parts: int
) -> tuple[float | None, float | None]:
    """(tokens a second, peak GiB) of real steps of `per_step` sequences, the first of them not counted."""
    if memory.total * 2**30 > _ROOM * _free_bytes(config):
        return None, None
    few = [*what.order[:per_step], *islice(cycle(what.order), per_step * (_PROBE - 1))]
    what = dataclasses.replace(what, order=few, per_step=per_step)
    fixed = {"sequences_per_step": per_step, "parts_at_once": parts, "save_every": 0, "eval_every": 0}
    train = config.train.model_copy(update=fixed)
    alone = config.model_copy(update={"train": train, "launcher": "none", "num_processes": 1})
    with tempfile.TemporaryDirectory() as folder:
        saved = Progress(Path(folder))
        fit(alone, base, what, saved, None, Path(folder) / "out")
        curve = saved.curve()[1:] or saved.curve()
    tokens = sum(row["tokens_per_s"] * row["seconds"] for row in curve)
    return tokens / sum(row["seconds"] for row in curve), max(row["memory_gib"] for row in curve)


def _free_bytes(config: Config) -> float:
    if device_of(config.train) == "cuda":
        import torch

        return float(torch.cuda.mem_get_info()[0])
    import psutil

    return float(psutil.virtual_memory().available)  # with what the kernel gives back, such as cached files
