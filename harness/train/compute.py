"""How training steps are computed. `Compute` uses PyTorch alone; `cpu/` has a faster one for CPUs."""

from collections.abc import Callable
from typing import Any

from harness.train.packing import TrainingBatches


class Compute:
    """PyTorch alone, on any device: one packed sequence after another, with all its tokens."""

    parts_at_once = 1
    """How many parts of a step are computed in parallel. Above 1, a batch is a whole step."""

    def token_losses(self, logits: Any, labels: Any) -> Any:
        """Loss of each token in nats, shape (tokens,), fp32. logits (tokens, vocabulary), labels (tokens,) int64."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits.float(), labels, reduction="none")

    def skip_unused_tokens(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """`inputs`, shape (1, tokens), without tokens that affect neither the loss nor a gradient."""
        return inputs

    def training_step(self, trainer: Any, stock: Callable[..., Any], model: Any, inputs: Any, items: Any) -> Any:
        """The loss of a batch, shape (); adds its gradients to those of the parameters.

        `stock` is transformers' own `training_step`; `items` is the number of supervised tokens in the whole step.
        """
        return stock(model, inputs, items)

    def largest_part(self, batches: TrainingBatches) -> tuple[int, int, int]:
        """(tokens, supervised tokens, sequences) of the largest part of a step, which decides the peak memory."""
        return max(len(p.input_ids) for p in batches.packs), max(p.supervised for p in batches.packs), 1

    def close(self) -> None:
        """Stops the threads, if there are any."""
