"""Penalties against forgetting. Imports torch: only the training stage imports this file."""

from typing import Any

import torch
from torch.nn.functional import kl_div, log_softmax


def l2_to_start(model: Any, start: dict[str, torch.Tensor]) -> torch.Tensor:
    """Half the squared distance of the weights from where training started (L2-SP; Li, Grandvalet, Davoine, 2018).

    Of an adapter it is that of the change it makes, s·B·A; `start` holds the weights of a model trained in full.
    """
    if start:
        parts = [((p - start[n]) ** 2).sum() for n, p in model.named_parameters() if p.requires_grad]
    else:
        parts = [_change(module) for module in model.modules() if hasattr(module, "lora_A") and module.lora_A]
    return 0.5 * torch.stack(parts).sum()


def _change(module: Any) -> torch.Tensor:
    """|s·B·A|² in the Frobenius norm, from the products of rank r alone: tr(BᵀB·AAᵀ)."""
    (name,) = module.active_adapters
    a, b = module.lora_A[name].weight.float(), module.lora_B[name].weight.float()
    return float(module.scaling[name]) ** 2 * ((b.T @ b) * (a @ a.T)).sum()


def kl_to_base(model: Any, inputs: Any, positions: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Summed KL(base‖model) in nats over `positions`; the base is the model without its adapter.

    `logits` are the model's own at these positions, shape (positions, vocabulary).
    """
    with torch.no_grad(), model.disable_adapter():
        base = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            logits_to_keep=positions,
            use_cache=False,
        ).logits[0]
    ours, theirs = log_softmax(logits.float(), -1), log_softmax(base.float(), -1)
    return kl_div(ours, theirs, reduction="sum", log_target=True)
