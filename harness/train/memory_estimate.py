"""The memory that training is expected to take, from shapes alone: weights, optimiser, activations, logits."""

from dataclasses import dataclass
from typing import Any

from harness.config_train import TrainConfig

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_NF4 = 0.52  # bytes a parameter in 4 bits, with its share of the doubly quantised constants
_RUNTIME_GIB = {"cpu": 1.2, "cuda": 0.7}  # a process with torch, transformers and lm-eval; a CUDA context


@dataclass(frozen=True)
class MemoryEstimate:
    """GiB on one device, without sharding."""

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
    """Of `at_once` sequences of `length` tokens, `supervised` of them with a loss; `shape` is the model's config.

    AdamW in fp32: 16 bytes a trained parameter (weight, gradient, two moments), 18 with the bf16 copy that autocast
    makes, 4 for each of several sequences. What a layer keeps for the backward pass is counted from transformers' Llama
    with SDPA, about ±30% for other models; peft keeps an adapter's inputs in fp32 too (on the CPU another layer
    stands in for its own). QLoRA has embeddings and output layer in fp32.
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
    """Bytes a token that one layer keeps for its backward pass."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    head = getattr(shape, "head_dim", None) or hidden // shape.num_attention_heads
    query, key = head * shape.num_attention_heads, head * shape.num_key_value_heads
    norms = 2 * hidden * (4 + width)
    attention = width * (hidden + 3 * query + 3 * key)
    mlp = width * (2 * hidden + 4 * inner)
    inputs = 4 * (5 * hidden + query + inner) if fp32_inputs else 0
    return int(norms + attention + mlp + inputs)
