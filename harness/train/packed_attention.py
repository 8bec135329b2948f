"""Attention over packed rows on the CPU: each row by itself, nothing computed above the diagonal's blocks.

PyTorch's kernels see a packed sequence as one with a mask and compute all of it, and their backward pass in
bfloat16 is slow on the CPU. Imports torch: only the training stage imports this file.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

NAME = "packed_rows"
_BLOCK = 128  # queries at a time: their scores stay in the cache
_LONGEST = 1024  # a longer row would keep too many weights for the backward pass
_MODELS = ("llama", "mistral", "qwen2", "qwen3", "smollm3")  # plain causal attention that is told the positions


class Row(NamedTuple):
    """A row's own tokens in a packed sequence; before them it sees the first `shared` tokens after `root`."""

    start: int
    end: int
    root: int
    shared: int

    @property
    def length(self) -> int:
        """Tokens that its last token sees, itself included."""
        return self.shared + self.end - self.start

    def seen(self, tensor: Tensor, tokens: int = 1) -> Tensor:
        """What of `tensor` the row's last token sees; `tokens` is the dimension of the tokens."""
        own = tensor.narrow(tokens, self.start, self.end - self.start)
        return torch.cat((tensor.narrow(tokens, self.root, self.shared), own), tokens) if self.shared else own

    def blocks(self) -> list[tuple[int, int]]:
        """(start, end) of the blocks of its queries."""
        return [(start, min(start + _BLOCK, self.end)) for start in range(self.start, self.end, _BLOCK)]


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
    rows = bounds(arguments["position_ids"][0])
    if arguments.get("dropout") or max(row.length for row in rows) > _LONGEST:
        parts = [_by_kernel(kernel, module, row, query, key, value, arguments) for row in rows]
        return torch.cat(parts, dim=1), None
    _, heads, tokens, width = key.shape
    by_head = [t[0].to(value.dtype).contiguous() for t in (query, key, value)]
    by_head[0] = by_head[0].view(heads, -1, tokens, width)
    scale = arguments.get("scaling") or width**-0.5
    with torch.autocast(query.device.type, enabled=False):
        output = _PackedRows.apply(*by_head, rows, scale)
    return output.view(1, tokens, -1, width), None


def _by_kernel(
    kernel: Any, module: Any, row: Row, query: Tensor, key: Tensor, value: Tensor, arguments: dict[str, Any]
) -> Tensor:
    output: Tensor = kernel(module, *(row.seen(t, 2) for t in (query, key, value)), None, **arguments)[0]
    return output[:, row.shared :]


def bounds(positions: Tensor) -> list[Row]:
    """The rows of a packed sequence. positions (tokens,): each row's begin anew, at 0 or after what it shares.

    Raises ValueError where a row would share more than the row at its root has.
    """
    starts: list[int] = [0, *((positions.diff() != 1).nonzero().flatten() + 1).tolist()]
    ends = [*starts[1:], len(positions)]
    rows: list[Row] = []
    root, most = 0, 0
    for start, end, shared in zip(starts, ends, [0, *positions[starts[1:]].tolist()], strict=True):
        if not shared:
            root, most = start, end - start
        elif shared > most:
            raise ValueError(
                f"positions go from {positions[start - 1]} to {shared}, and the row before has {most} tokens"
            )
        rows.append(Row(start, end, root, shared))
    return rows


class _PackedRows(torch.autograd.Function):
    """Causal softmax attention of each row (Vaswani et al., 2017), a block of queries at a time."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, rows: list[Row], scale: float) -> Tensor:
        """Shape (tokens, key heads, queries, width). query (key heads, queries of each, tokens, width)."""
        heads, groups, tokens, width = query.shape
        output = query.new_empty(tokens, heads, groups, width)
        by_head = output.permute(1, 2, 0, 3)
        later = query.new_full((1, _BLOCK, _BLOCK), float("-inf")).triu(1)
        kept = []
        for row in rows:
            keys, values = row.seen(key), row.seen(value)
            for start, end in row.blocks():
                size, seen = end - start, row.shared + end - row.start
                block = _flat(query, start, end)
                scores = torch.bmm(block, keys[:, :seen].mT).mul_(scale)
                scores.view(heads * groups, size, -1)[..., seen - size :].add_(later[:, :size, :size])
                weights = torch.softmax(scores, -1)
                by_head[:, :, start:end] = torch.bmm(weights, values[:, :seen]).view(heads, groups, size, width)
                kept += [block, weights]
        ctx.save_for_backward(query, key, value, *kept)
        ctx.rows, ctx.scale = rows, scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        query, key, value, *kept = ctx.saved_tensors
        gradient = gradients[0].permute(1, 2, 0, 3)
        of_query, of_key, of_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        of_shared = _Shared(of_key, of_value)
        for row in reversed(ctx.rows):
            keys, values = row.seen(key), row.seen(value)
            of_keys, of_values = of_shared.places(row)
            for start, end in reversed(row.blocks()):
                weights, block = kept.pop(), kept.pop()
                seen = row.shared + end - row.start
                outer = _flat(gradient, start, end)
                of_weights = torch.bmm(outer, values[:, :seen].mT)
                of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(ctx.scale)
                of_query[:, :, start:end] = torch.bmm(of_scores, keys[:, :seen]).view_as(of_query[:, :, start:end])
                add = (
                    Tensor.copy_ if end == row.end else Tensor.add_
                )  # the last block comes first, and reaches all keys
                add(of_keys[:, :seen], torch.bmm(of_scores.mT, block))
                add(of_values[:, :seen], torch.bmm(weights.mT, outer))
            of_shared.take(row, of_keys, of_values)
        of_shared.add()
        return of_query, of_key, of_value, None, None


class _Shared:
    """Gradients of keys and values, where rows add to those of the tokens they share: their sums are in fp32."""

    def __init__(self, *whole: Tensor):
        self._whole = whole
        self._sums: dict[tuple[int, int], list[Tensor]] = {}

    def places(self, row: Row) -> list[Tensor]:
        """Where the gradients of all that the row sees are written, each (key heads, tokens seen, width)."""
        if row.shared:
            return [t.new_empty(t.shape[0], row.length, t.shape[2]) for t in self._whole]
        return [t[:, row.start : row.end] for t in self._whole]

    def take(self, row: Row, *found: Tensor) -> None:
        """Sorts the row's gradients into its own and those of what it shares."""
        if not row.shared:
            return
        if (key := (row.root, row.shared)) not in self._sums:
            self._sums[key] = [torch.zeros_like(one[:, : row.shared], dtype=torch.float32) for one in found]
        for whole, one, total in zip(self._whole, found, self._sums[key], strict=True):
            whole[:, row.start : row.end] = one[:, row.shared :]
            total += one[:, : row.shared]

    def add(self) -> None:
        """Adds the sums, once the rows that begin with the shared tokens have their own gradients."""
        for (root, shared), sums in self._sums.items():
            for whole, one in zip(self._whole, sums, strict=True):
                whole[:, root : root + shared] += one


def _flat(tensor: Tensor, start: int, end: int) -> Tensor:
    """The block as (key heads, queries a key head × tokens, width): one product for all heads that share keys."""
    return tensor[:, :, start:end].reshape(tensor.shape[0], -1, tensor.shape[-1])
