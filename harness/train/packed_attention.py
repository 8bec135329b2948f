"""Attention over packed rows on the CPU: within each row, nothing computed above the diagonal's blocks.

PyTorch's kernels see a packed sequence as one with a mask and compute all of it, and their backward pass in
bfloat16 is slow on the CPU. Imports torch: only the training stage imports this file.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from harness.train.row_batches import BatchedRows, Layout
from harness.train.row_bounds import Row, bounds

NAME = "packed_rows"
_LONGEST = 1024  # a longer row would keep too many weights for the backward pass
_MODELS = ("llama", "mistral", "qwen2", "qwen3", "smollm3")  # plain causal attention that is told the positions
# By heads, for each tensor of positions that the layers of a model share, while it lives.
_LAYOUTS: Any = WeakIdKeyDictionary()


def use_packed_attention(model: Any) -> bool:
    """Whether `model` (as transformers loads it) now attends this way: known architectures without a window."""
    from transformers import AttentionInterface, AttentionMaskInterface

    if not known(model.config):
        return False
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)
    model.set_attn_implementation(NAME)
    return True


def known(shape: Any) -> bool:
    """Whether models of this configuration can attend this way."""
    return shape.model_type in _MODELS and not getattr(shape, "sliding_window", None)


def attends_by_rows(model: Any) -> bool:
    """Whether `use_packed_attention` was given this model."""
    return bool(getattr(model.config, "_attn_implementation", None) == NAME)


def mask(batch_size: int, q_length: int, kv_length: int, **arguments: Any) -> Tensor | None:
    """None where `attention` finds the rows by itself: one sequence, nothing cached, nothing padded."""
    from transformers.masking_utils import sdpa_mask

    if batch_size == 1 and q_length == kv_length and arguments.get("attention_mask") is None:
        return None
    found: Tensor | None = sdpa_mask(batch_size, q_length, kv_length, **arguments)
    return found


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **arguments: Any
) -> tuple[Tensor, None]:
    """(output of shape (1, tokens, heads, width), None). `bounds` says where rows begin.

    query (1, heads, tokens, width), key and value (1, key heads, tokens, width).
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward as kernel

    if attention_mask is not None or query.shape[0] > 1 or query.shape[2] != key.shape[2]:
        output: Tensor = kernel(module, query, key, value, attention_mask, **arguments)[0]
        return output, None
    positions = arguments["position_ids"]
    rows = bounds(positions[0])
    if arguments.get("dropout") or max(row.length for row in rows) > _LONGEST:
        parts = [_by_kernel(kernel, module, row, query, key, value, arguments) for row in rows]
        return torch.cat(parts, dim=1), None
    layouts = _LAYOUTS.setdefault(positions, {})
    if (heads := (query.shape[1], key.shape[1])) not in layouts:
        layouts[heads] = Layout(rows, query.shape[2], *heads)
    scale = arguments.get("scaling") or query.shape[-1] ** -0.5
    with torch.autocast(query.device.type, enabled=False):
        output = BatchedRows.apply(*(t[0].to(value.dtype) for t in (query, key, value)), layouts[heads], scale)
    return output[None], None


def _by_kernel(
    kernel: Any, module: Any, row: Row, query: Tensor, key: Tensor, value: Tensor, arguments: dict[str, Any]
) -> Tensor:
    output: Tensor = kernel(module, *(row.seen(t, 2) for t in (query, key, value)), None, **arguments)[0]
    return output[:, row.shared :]
