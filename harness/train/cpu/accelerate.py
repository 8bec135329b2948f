"""`accelerate_on_cpu` makes a model's training fast on a CPU. It is the only way into this folder.

Nothing else in the harness imports from here, and nothing here touches a model on a GPU. Imports torch: only training
imports this file.
"""

import ctypes
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel

from harness.config.experiment import TrainingConfig
from harness.train.compute import Compute
from harness.train.cpu.attention import attends_by_rows, use_packed_attention
from harness.train.cpu.layers import token_losses, use_frozen_norms, use_lora_linear
from harness.train.cpu.threads import (
    ThreadedShards,
    add_gradient,
    has_experts,
    parts_at_once,
    split_into_shards,
    uses_randomness,
)
from harness.train.cpu.unused_tokens import shared_tokens, skip_unused_tokens
from harness.train.packing import IGNORED, TrainingBatches, collate

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # mallopt(3)


def accelerate_on_cpu(model: Any, config: TrainingConfig, parts: int | None = None) -> "CpuCompute":
    """Gives `model` the attention of `attention.py` and, if it has an adapter, the layers of `layers.py`.

    Returns how its steps are computed: in `parts` parts at once, by default as configured. From here on the C library's
    allocator keeps freed memory.
    """
    keep_memory()
    use_packed_attention(model)
    if isinstance(model, PeftModel):
        use_lora_linear(model)
        use_frozen_norms(model)
    if parts is None:
        parts = 1 if uses_randomness(model) or has_experts(model) else parts_at_once(config)
    return CpuCompute(model, parts)


def keep_memory() -> None:
    """Keeps freed memory in the process instead of returning it to the kernel (glibc only; elsewhere nothing changes).

    Training allocates and frees the same megabytes in every layer. Each thread keeps its own arena (glibc's default),
    although an arena maps every block above 64 MB again: with one arena for all, the parts of a step would wait for its
    lock several thousand times a second (docs/training_speed.md).
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 64 * 2**20)


class CpuCompute(Compute):
    """Computes the rows of a step in shards, `parts_at_once` of them in parallel, without unused tokens.

    The gradients of the shards are added in their order, so the result does not depend on which is done first.
    """

    def __init__(self, model: Any, parts: int):
        self.parts_at_once = parts
        # with fewer tokens, dropout would draw other random numbers
        self._skips_tokens = attends_by_rows(model) and not uses_randomness(model)
        self._threads: ThreadedShards | None = None

    def token_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return token_losses(logits, labels)

    def skip_unused_tokens(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return skip_unused_tokens(inputs) if self._skips_tokens else inputs

    def training_step(
        self, trainer: Any, stock: Callable[..., Any], model: Any, inputs: dict[str, torch.Tensor], items: Any
    ) -> Any:
        if self.parts_at_once == 1:
            return stock(model, inputs, items)
        if self._threads is None:
            self._threads = ThreadedShards(self.parts_at_once)
        model.train()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

        def gradients_of(shard: dict[str, torch.Tensor]) -> Any:
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(model, shard, num_items_in_batch=items)
            return loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)

        shared = shared_tokens(inputs) if self._skips_tokens else 0
        shards = split_into_shards(inputs, trainer.args.per_device_train_batch_size, self.parts_at_once, shared)
        total = torch.zeros(())
        for loss, gradients in self._threads.map(gradients_of, shards):
            total += loss
            for parameter, gradient in zip(parameters, gradients, strict=True):
                add_gradient(parameter, gradient)
        return total

    def largest_part(self, batches: TrainingBatches) -> tuple[int, int, int]:
        """As in `Compute`; a shard holds more rows if all of them share a prompt."""
        longest, supervised, sequences = super().largest_part(batches)
        if self.parts_at_once == 1 or not self._skips_tokens:
            return longest, supervised, sequences
        columns = ("input_ids", "position_ids", "labels")
        step = collate([{name: getattr(packed, name) for name in columns} for packed in batches.members(1)])
        shards = split_into_shards(step, batches.per_step, self.parts_at_once, shared_tokens(step))
        labels = [skip_unused_tokens(shard)["labels"] for shard in shards]
        return (
            max(longest, *(of_one.shape[1] for of_one in labels)),
            max(supervised, *(int((of_one != IGNORED).sum()) for of_one in labels)),
            math.ceil(batches.per_step / len(shards)),
        )

    def close(self) -> None:
        if self._threads is not None:
            self._threads.close()
