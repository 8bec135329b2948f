"""Root mean square normalisation with frozen weights, in few passes over memory (CPU).

Imports torch: only the training stage imports this file.
"""

from typing import Any

import torch

_NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm", "SmolLM3RMSNorm")  # one formula


class FrozenNorm:
    """In front of a norm of transformers': its own forward pass where weights are trained, or not on the CPU."""

    weight: Any
    variance_epsilon: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.weight.requires_grad or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().forward(x)  # type: ignore[misc]
        return _RmsNorm.apply(x, self.weight, self.variance_epsilon)


def use_frozen_norms(model: Any) -> int:
    """Gives the known norms of a model this forward pass; returns how many there were."""
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
