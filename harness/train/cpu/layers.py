"""LoRA layers, frozen norms and token losses for CPUs, each with few passes over memory.

peft computes the adapter in fp32 beside a bfloat16 base, so every activation is converted and added several times.
Here the adapter's weights stay in fp32 for the optimiser and are rounded for the products, as in any mixed precision.
Imports torch and peft: only training imports this file.
"""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch.nn.functional import linear

_NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm", "SmolLM3RMSNorm")  # one formula


class FrozenNorm:
    """RMS normalisation with frozen weights, put before a norm class of transformers.

    Trained weights and autocast take the original forward pass.
    """

    weight: Any
    variance_epsilon: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.weight.requires_grad or torch.is_autocast_enabled("cpu"):
            return super().forward(x)  # type: ignore[misc]
        return _RmsNorm.apply(x, self.weight, self.variance_epsilon)


def use_frozen_norms(model: Any) -> int:
    """Replaces the forward pass of the norms in _NORMS; returns how many there were."""
    norms = [module for module in model.modules() if type(module).__name__ in _NORMS]
    for norm in norms:
        norm.__class__ = type(type(norm).__name__, (FrozenNorm, type(norm)), {})
    return len(norms)


class _RmsNorm(torch.autograd.Function):
    """weight · x / √(mean(x²) + ε), in fp32 inside (Zhang and Sennrich, 2019)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        wide = x.float()
        scale = torch.linalg.vecdot(wide, wide).div_(x.shape[-1]).add_(epsilon).rsqrt_().unsqueeze(-1)
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        x, weight, scale = ctx.saved_tensors
        outer, normal = (gradients[0] * weight).float(), x.float() * scale
        mean = torch.linalg.vecdot(outer, normal).div_(x.shape[-1]).unsqueeze(-1)
        return normal.mul_(-mean).add_(outer).mul_(scale).to(x.dtype), None, None


_CHUNK = 16  # rows of logits in fp32 at a time: they stay in the cache


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Loss of each token in nats, shape (tokens,), fp32. logits (tokens, vocabulary), labels (tokens,) int64.

    Cross-entropy without a copy of all logits in fp32.
    """
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
            losses[part] = above - chances.amax(-1).log()  # never log 0: the label's chance may be 0
            if slope is not None:
                slope[part] = chances.scatter_add_(1, at_label, torch.full(at_label.shape, -1.0))
        if slope is not None:
            ctx.save_for_backward(slope)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        (slope,) = ctx.saved_tensors
        return slope * gradients[0][:, None].to(slope.dtype), None


class LoraLinear(Linear):
    """peft's layer with a faster forward pass; cases that it does not cover use peft's own."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        names = [name for name in self.active_adapters if name in self.lora_A]
        if args or kwargs or len(names) != 1 or not self._plain(names[0], x):
            return super().forward(x, *args, **kwargs)
        base, down, up = self.base_layer, self.lora_A[names[0]].weight, self.lora_B[names[0]].weight
        return _Product.apply(x, base.weight, base.bias, down, up, float(self.scaling[names[0]]))

    def _plain(self, name: str, x: torch.Tensor) -> bool:
        """Whether the faster pass applies: one unmerged adapter, no dropout, variant or bias, on a frozen Linear."""
        return (
            not self.disable_adapters
            and not self.merged
            and name not in self.lora_variant
            and self.lora_B[name].bias is None
            and (not self.training or isinstance(self.lora_dropout[name], torch.nn.Identity))
            and type(self.base_layer) is torch.nn.Linear
            and not self.base_layer.weight.requires_grad
            and self.base_layer.weight.dtype == x.dtype
        )


def use_lora_linear(model: Any) -> int:
    """Turns every plain LoRA layer of a peft model into a LoraLinear; returns how many there were."""
    layers = [module for module in model.modules() if type(module) is Linear]
    for layer in layers:
        layer.__class__ = LoraLinear
    return len(layers)


class _Product(torch.autograd.Function):
    """x·Wᵀ + bias + scaling·(x·Aᵀ)·Bᵀ, without a gradient of the frozen W."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Shape (…, out). x (…, in), weight (out, in), down = A (r, in) and up = B (out, r) in fp32."""
        flat = x.reshape(-1, x.shape[-1])
        down, up = down.to(x.dtype), up.to(x.dtype) * scaling
        inner = flat @ down.T
        output = linear(flat, weight, bias).addmm_(inner, up.T)
        ctx.save_for_backward(flat, weight, down, up, inner)
        ctx.scaling = scaling
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        flat, weight, down, up, inner = ctx.saved_tensors
        outer = gradients[0].reshape(-1, up.shape[0])
        of_inner = outer @ up
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (outer @ weight).addmm_(of_inner, down).view(*gradients[0].shape[:-1], -1)
        of_down = (of_inner.T @ flat).float()
        of_up = (outer.T @ inner).float().mul_(ctx.scaling)
        return of_x, None, None, of_down, of_up, None
