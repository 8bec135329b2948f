"""Cross-entropy of single tokens without a copy of all logits in fp32. Imports torch: only training imports this."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy

_CHUNK = 16  # rows of logits in fp32 at a time: they stay in the cache


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Loss of each token in nats, shape (tokens,), fp32. logits (tokens, vocabulary), labels (tokens,) int64."""
    if logits.device.type != "cpu":
        return cross_entropy(logits.float(), labels, reduction="none")
    losses: torch.Tensor = _TokenLosses.apply(logits, labels)
    return losses


class _TokenLosses(torch.autograd.Function):
    """Keeps softmax − onehot, the gradient of the loss, in the logits' own precision."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses = torch.empty(len(logits), dtype=torch.float32)
        wanted = ctx.needs_input_grad[0]
        slope = torch.empty_like(logits) if wanted else None
        for start in range(0, len(logits), _CHUNK):
            part = slice(start, start + _CHUNK)
            wide, at_label = logits[part].float(), labels[part, None]
            chances = torch.softmax(wide, -1)
            above = wide.amax(-1) - wide.gather(1, at_label)[:, 0]
            losses[part] = above - chances.amax(-1).log()  # log softmax of the highest: not 0, as a label's may be
            if slope is not None:
                slope[part] = chances.scatter_add_(1, at_label, torch.full(at_label.shape, -1.0))
        if slope is not None:
            ctx.save_for_backward(slope)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        (slope,) = ctx.saved_tensors
        return slope * gradients[0][:, None].to(slope.dtype), None
