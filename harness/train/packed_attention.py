"""Attention over packed rows on the CPU: each row by itself, nothing computed above the diagonal's blocks.

PyTorch's kernels see a packed sequence as one with a mask and compute all of it, and their backward pass in
bfloat16 is slow on the CPU. Imports torch: only the training stage imports this file.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

NAME = "packed_rows"
_BLOCK = 128  # queries at a time: their scores stay in the cache
_LONGEST = 1024  # a longer row would keep too many weights for the backward pass
_MODELS = ("llama", "mistral", "qwen2", "qwen3", "smollm3")  # plain causal attention that is told the positions


def use_packed_attention(model: Any) -> bool:
    """Whether `model` (as transformers loads it) now attends this way: known architectures without a window."""
    from transformers import AttentionInterface, AttentionMaskInterface

    config = model.config
    if config.model_type not in _MODELS or getattr(config, "sliding_window", None):
        return False
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)
    model.set_attn_implementation(NAME)
    return True


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
    """(output of shape (1, tokens, heads, width), None). Rows begin where `position_ids` are 0.

    query (1, heads, tokens, width), key and value (1, key heads, tokens, width).
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward as kernel

    if attention_mask is not None or query.shape[0] > 1 or query.shape[2] != key.shape[2]:
        output: Tensor = kernel(module, query, key, value, attention_mask, **arguments)[0]
        return output, None
    rows = bounds(arguments["position_ids"][0])
    if arguments.get("dropout") or max(end - start for start, end in rows) > _LONGEST:
        parts = [kernel(module, *(t[:, :, a:b] for t in (query, key, value)), None, **arguments)[0] for a, b in rows]
        return torch.cat(parts, dim=1), None
    _, heads, tokens, width = key.shape
    by_head = [t[0].to(value.dtype).contiguous() for t in (query, key, value)]
    by_head[0] = by_head[0].view(heads, -1, tokens, width)
    scale = arguments.get("scaling") or width**-0.5
    with torch.autocast(query.device.type, enabled=False):
        output = _PackedRows.apply(*by_head, rows, scale)
    return output.view(1, tokens, -1, width), None


def bounds(positions: Tensor) -> list[tuple[int, int]]:
    """(start, end) of each row of a packed sequence. positions (tokens,), restarting with every row."""
    starts: list[int] = [0, *((positions.diff() != 1).nonzero().flatten() + 1).tolist()]
    return list(zip(starts, [*starts[1:], len(positions)], strict=True))


class _PackedRows(torch.autograd.Function):
    """Causal softmax attention of each row (Vaswani et al., 2017), a block of queries at a time."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, rows: list[tuple[int, int]], scale: float
    ) -> Tensor:
        """Shape (tokens, key heads, queries, width). query (key heads, queries of each, tokens, width)."""
        heads, groups, tokens, width = query.shape
        output = query.new_empty(tokens, heads, groups, width)
        by_head = output.permute(1, 2, 0, 3)
        later = query.new_full((1, _BLOCK, _BLOCK), float("-inf")).triu(1)
        kept = []
        for row, start, end in _blocks(rows):
            size = end - start
            block = _flat(query, start, end)
            scores = torch.bmm(block, key[:, row:end].mT).mul_(scale)
            scores.view(heads * groups, size, -1)[..., start - row :].add_(later[:, :size, :size])
            weights = torch.softmax(scores, -1)
            by_head[:, :, start:end] = torch.bmm(weights, value[:, row:end]).view(heads, groups, size, width)
            kept += [block, weights]
        ctx.save_for_backward(query, key, value, *kept)
        ctx.rows, ctx.scale = rows, scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        query, key, value, *kept = ctx.saved_tensors
        gradient = gradients[0].permute(1, 2, 0, 3)
        of_query, of_key, of_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        last = set(ctx.rows)  # a row's last block comes first, and reaches all its keys
        for number, (row, start, end) in reversed(list(enumerate(_blocks(ctx.rows)))):
            block, weights = kept[2 * number : 2 * number + 2]
            outer = _flat(gradient, start, end)
            of_weights = torch.bmm(outer, value[:, row:end].mT)
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(ctx.scale)
            of_query[:, :, start:end] = torch.bmm(of_scores, key[:, row:end]).view_as(of_query[:, :, start:end])
            add = Tensor.copy_ if (row, end) in last else Tensor.add_
            add(of_key[:, row:end], torch.bmm(of_scores.mT, block))
            add(of_value[:, row:end], torch.bmm(weights.mT, outer))
        return of_query, of_key, of_value, None, None


def _blocks(rows: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """(start of the row, start of the block, end of the block) for every block of queries."""
    for row, end in rows:
        for start in range(row, end, _BLOCK):
            yield row, start, min(start + _BLOCK, end)


def _flat(tensor: Tensor, start: int, end: int) -> Tensor:
    """The block as (key heads, queries a key head × tokens, width): one product for all heads that share keys."""
    return tensor[:, :, start:end].reshape(tensor.shape[0], -1, tensor.shape[-1])
