"""`harness train --dry-run`: steps, tokens, long rows, parameters, memory and time of a training, without training."""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from harness.config.experiment import TrainingConfig
from harness.config.train import TrainConfig
from harness.core.console import plural
from harness.core.machine import available_memory_gib
from harness.prompt.render import Renderer
from harness.records.stages import LongRows
from harness.train.device import compute_for, device_of
from harness.train.finetune import contract_for_training
from harness.train.fit import fit
from harness.train.model import parameter_counts, skeleton
from harness.train.packing import TrainingBatches, padding_share, training_batches
from harness.train.prepare import TrainingRow, long_rows_messages, prepare
from harness.train.progress import ComputeSettings, SavedProgress

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_NF4 = 0.52  # bytes a parameter in 4 bits, with its share of the doubly quantised constants
_RUNTIME_GIB = {"cpu": 1.2, "cuda": 0.7}  # a process with torch, transformers and lm-eval; a CUDA context


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory that training is expected to take on one device, in GiB, without sharding."""

    weights: float
    optimiser: float
    activations: float
    logits: float
    runtime: float

    @property
    def total(self) -> float:
        return self.weights + self.optimiser + self.activations + self.logits + self.runtime


def estimate_memory(
    shape: Any,
    trained: int,
    total: int,
    config: TrainConfig,
    dtype: str,
    device: str,
    length: int,
    supervised: int,
    at_once: int = 1,
) -> MemoryEstimate:
    """The memory for `at_once` sequences of `length` tokens, `supervised` of them with a loss, from shapes alone.

    `shape` is the model's config. AdamW in fp32 takes 16 bytes per trained parameter (weight, gradient, two moments),
    18 with the bf16 copy that autocast makes, and 4 more for each of several sequences. What a layer keeps for the
    backward pass is counted for transformers' Llama with SDPA; expect ±30% for other models. On a GPU peft also keeps
    an adapter's inputs in fp32. QLoRA holds embeddings and output layer in fp32.
    """
    full = config.method == "full"
    frozen = 0 if full else total - trained
    if config.method == "qlora":
        tables = shape.vocab_size * shape.hidden_size * (1 if shape.tie_word_embeddings else 2)
        weights = tables * BYTES["float32"] + (frozen - tables) * _NF4
    else:
        weights = frozen * BYTES[dtype]
    optimiser = trained * (18 if full and dtype != "float32" else 16) + (trained * 4 * at_once if at_once > 1 else 0)
    layer = _layer_bytes(shape, BYTES[dtype], fp32_inputs=not full and device == "cuda")
    layers = shape.num_hidden_layers
    kept = layers * BYTES[dtype] * shape.hidden_size + layer if config.gradient_checkpointing else layers * layer
    activations = at_once * (length * kept + 3 * length**2)
    logits = at_once * supervised * shape.vocab_size * (8 + 2 * BYTES[dtype])
    gib = [part / 2**30 for part in (weights, optimiser, activations, logits)]
    return MemoryEstimate(gib[0], gib[1], gib[2], gib[3], _RUNTIME_GIB[device])


def _layer_bytes(shape: Any, width: int, *, fp32_inputs: bool) -> int:
    """Bytes per token that one layer keeps for its backward pass."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    head = getattr(shape, "head_dim", None) or hidden // shape.num_attention_heads
    query, key = head * shape.num_attention_heads, head * shape.num_key_value_heads
    norms = 2 * hidden * (4 + width)
    attention = width * (hidden + 3 * query + 3 * key)
    mlp = width * (2 * hidden + 4 * inner)
    inputs = 4 * (5 * hidden + query + inner) if fp32_inputs else 0
    return int(norms + attention + mlp + inputs)


_PROBE_STEPS = 3
_USABLE_MEMORY = 0.8  # a probe runs only if it is expected to take at most this share of the free memory


@dataclass(frozen=True)
class TrainingPlan:
    """What a training would be. `tokens` and `supervised` count all epochs; `seconds` and `peak_gib` come from a probe
    of a few real steps, and are None if there is too little memory for one."""

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
    computed: ComputeSettings

    def lines(self) -> Iterator[str]:
        share = self.supervised / self.tokens
        threads, parts = plural(self.computed.threads, "thread"), plural(self.computed.parts_at_once, "part")
        yield f"rows: {self.rows} in {plural(self.sequences, 'sequence')}, {self.padding:.1%} padding"
        yield from long_rows_messages(self.long)
        if not (self.long.dropped or self.long.split):
            yield f"rows over {self.long.limit} tokens: none"
        yield f"steps: {self.steps}, {self.tokens} tokens, {share:.0%} of them supervised"
        yield f"parameters trained: {self.trained} of {self.total} ({self.trained / self.total:.2%})"
        yield f"device: {self.computed.device}, {threads}, {parts} of a step at once"
        terms = ", ".join(f"{name} {gib:.2f}" for name, gib in dataclasses.asdict(self.memory).items())
        yield f"expected memory: {self.memory.total:.2f} GiB per process, unsharded (formula: {terms})"
        if self.seconds is None or self.peak_gib is None:
            yield "expected time: unknown, because this machine has too little free memory to probe a few steps"
        else:
            yield f"peak memory in a probe of {_PROBE_STEPS} steps: {self.peak_gib:.2f} GiB"
            yield f"expected time: {self.seconds:.0f} s (from that probe, in one process), without startup and saving"


def plan_training(config: TrainingConfig, base: Path, rows: Sequence[TrainingRow]) -> TrainingPlan:
    """The plan of a training; raises the errors that `finetune` raises before its first step."""
    import torch

    tokenizer, contract = contract_for_training(config, base)
    prepared = prepare(Renderer(contract, tokenizer), rows, config.train)
    batches = training_batches(prepared, config.train)
    model, device = skeleton(base, config.train), device_of(config.train)
    compute = compute_for(model, config, device)
    threads = max(1, torch.get_num_threads() // config.num_processes)  # several processes share the cores
    parts = compute.parts_at_once
    trained, total = parameter_counts(model)
    settings, dtype = config.train, config.model.dtype
    at_once = min(parts, settings.sequences_per_step)
    longest, supervised, sequences = compute.largest_part(batches)
    memory = estimate_memory(model.config, trained, total, settings, dtype, device, longest, supervised, at_once)
    counts = [batches.tokens(step) for step in range(1, batches.steps + 1)]
    tokens = sum(count[0] for count in counts)
    per_step = min(at_once * sequences, settings.sequences_per_step)
    speed, peak = _probe(config, base, batches, memory, per_step, parts)
    return TrainingPlan(
        rows=len(prepared.rows),
        sequences=len(batches.packs),
        steps=batches.steps,
        tokens=tokens,
        supervised=sum(count[1] for count in counts),
        padding=padding_share(batches.packs, config.train.sequence_length),
        long=prepared.long,
        trained=trained,
        total=total,
        memory=memory,
        seconds=tokens / speed if speed else None,
        peak_gib=peak,
        computed=ComputeSettings(device, threads, parts),
    )


def _probe(
    config: TrainingConfig, base: Path, batches: TrainingBatches, memory: MemoryEstimate, per_step: int, parts: int
) -> tuple[float | None, float | None]:
    """(tokens per second, peak GiB) of real steps of `per_step` sequences; the first step does not count."""
    if memory.total * 2**30 > _USABLE_MEMORY * _free_bytes(config):
        return None, None
    few = [*batches.order[:per_step], *islice(cycle(batches.order), per_step * (_PROBE_STEPS - 1))]
    batches = dataclasses.replace(batches, order=few, per_step=per_step)
    fixed = {"sequences_per_step": per_step, "parts_at_once": parts, "save_every": 0, "eval_every": 0}
    train = config.train.model_copy(update=fixed)
    alone = config.model_copy(update={"train": train, "launcher": "none", "num_processes": 1})
    with tempfile.TemporaryDirectory() as folder:
        saved = SavedProgress(Path(folder))
        fit(alone, base, batches, saved, None, Path(folder) / "out")
        curve = saved.curve()[1:] or saved.curve()
    tokens = sum(row["tokens_per_s"] * row["seconds"] for row in curve)
    return tokens / sum(row["seconds"] for row in curve), max(row["memory_gib"] for row in curve)


def _free_bytes(config: TrainingConfig) -> float:
    if device_of(config.train) == "cuda":
        import torch

        return float(torch.cuda.mem_get_info()[0])
    return available_memory_gib() * 2**30
