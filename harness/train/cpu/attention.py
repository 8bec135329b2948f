"""Causal attention within the rows of a packed sequence, for CPUs: rows of similar length are computed together.

One by one, short rows cost more in function calls than in arithmetic. A row is cut into blocks of queries, and blocks
with equally many keys before them form a batch:

    row of 300 tokens      block 0: queries   0..127, keys 0..127
                           block 1: queries 128..255, keys 0..255
                           block 2: queries 256..299, keys 0..299

Imports torch: only training imports this file.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


class RowBounds(NamedTuple):
    """Where a row's own tokens are in a packed sequence; it also sees the `shared` tokens that start at `root`."""

    start: int
    end: int
    root: int
    shared: int

    @property
    def length(self) -> int:
        """Number of tokens that the row's last token sees, itself included."""
        return self.shared + self.end - self.start

    def seen(self, tensor: Tensor, tokens: int) -> Tensor:
        """The part of `tensor` that the row's last token sees; `tokens` is the dimension of the tokens."""
        own = tensor.narrow(tokens, self.start, self.end - self.start)
        return torch.cat((tensor.narrow(tokens, self.root, self.shared), own), tokens) if self.shared else own


def row_bounds(positions: Tensor) -> list[RowBounds]:
    """The rows of a packed sequence. positions (tokens,): each row's start at 0, or after the tokens that it shares.

    Raises ValueError for a row that would share more tokens than the row at its root has.
    """
    starts: list[int] = [0, *((positions.diff() != 1).nonzero().flatten() + 1).tolist()]
    ends = [*starts[1:], len(positions)]
    rows: list[RowBounds] = []
    root, most = 0, 0
    for start, end, shared in zip(starts, ends, [0, *positions[starts[1:]].tolist()], strict=True):
        if not shared:
            root, most = start, end - start
        elif shared > most:
            raise ValueError(
                f"positions jump from {positions[start - 1]} to {shared}, but the row before has {most} tokens"
            )
        rows.append(RowBounds(start, end, root, shared))
    return rows


_BLOCK = 128  # queries of a row at a time: keys after all of them are not computed
_SLACK = 16  # most padding of a block, in queries
_WEIGHTS = 2**18  # most attention weights of a batch, so that they stay in the cache; a single block may have more


class QueryBlock(NamedTuple):
    """The queries of a row from `start` to `end`, with all the keys that the last of them sees."""

    row: RowBounds
    start: int
    end: int

    @property
    def before(self) -> int:
        """Number of tokens that the first query sees, itself not counted."""
        return self.row.shared + self.start - self.row.start


class BlockBatch(NamedTuple):
    """`blocks` blocks of rows, each padded to `queries` queries and `keys` keys."""

    blocks: int
    queries: int
    keys: int
    mask: Tensor  # (queries, keys), -inf where a query does not see a key


class Layout:
    """The order of all heads' queries and keys when those of a batch lie together, padded.

    `query` and `key` hold the (head, token) at each place, as head × tokens + token. `by_head` and `by_token` hold the
    place of each (head, token) and of each (token, head). All are one-dimensional, int64.
    """

    def __init__(self, rows: Iterable[RowBounds], tokens: int, heads: int, key_heads: int):
        self.tokens, self._heads, self._key_heads = tokens, heads, key_heads
        self.groups = heads // key_heads
        batched = _batched(rows, heads)
        self.batches = [_batch(blocks) for blocks in batched]
        head = torch.arange(heads).view(key_heads, 1, self.groups, 1) * tokens
        key_head = torch.arange(key_heads).view(key_heads, 1, 1) * tokens
        query, key, real = [], [], []
        for batch, blocks in zip(self.batches, batched, strict=True):
            own = torch.stack([_padded(torch.arange(p.start, p.end), batch.queries) for p in blocks])
            seen = torch.stack([_padded(_seen(p), batch.keys) for p in blocks])
            last = torch.tensor([[p.end - p.start] for p in blocks])
            there = torch.arange(batch.queries) < last
            query.append((head + own[:, None]).flatten())
            key.append((key_head + seen).flatten())
            real.append(there[:, None].expand(key_heads, -1, self.groups, -1).flatten())
        self.query, self.key = torch.cat(query), torch.cat(key)
        place = torch.cat(real).nonzero()[:, 0]
        self.by_head = torch.empty(heads * tokens, dtype=torch.int64).scatter_(0, self.query[place], place)
        self.by_token = self.by_head.view(heads, tokens).T.flatten()

    def queries(self, flat: Tensor) -> list[Tensor]:
        """Views of `flat` (places of queries, width) by batch: (key heads × blocks, a key head's queries, width)."""
        parts = flat.split([self._heads * b.blocks * b.queries for b in self.batches])
        return [
            part.view(-1, self.groups * batch.queries, flat.shape[1])
            for part, batch in zip(parts, self.batches, strict=True)
        ]

    def keys(self, flat: Tensor) -> list[Tensor]:
        """Views of `flat`, shape (places of keys, width), by batch: (key heads × blocks, keys, width)."""
        parts = flat.split([self._key_heads * b.blocks * b.keys for b in self.batches])
        return [part.view(-1, batch.keys, flat.shape[1]) for part, batch in zip(parts, self.batches, strict=True)]

    def sum_keys(self, padded: Tensor) -> Tensor:
        """Shape (key heads, tokens, width): `padded` summed by (head, token) over all blocks, in fp32."""
        total = torch.zeros(self._key_heads * self.tokens, padded.shape[1])
        total.index_add_(0, self.key, padded.float())
        return total.to(padded.dtype).view(self._key_heads, self.tokens, -1)


def _batched(rows: Iterable[RowBounds], heads: int) -> list[list[QueryBlock]]:
    """The blocks of all rows, in batches of about equal size with equally many tokens before them."""
    blocks = [
        QueryBlock(row, start, min(start + _BLOCK, row.end))
        for row in rows
        for start in range(row.start, row.end, _BLOCK)
    ]
    batches: list[list[QueryBlock]] = []
    for block in sorted(blocks, key=lambda p: (-p.before, p.start - p.end)):
        if batches and _fits(block, batches[-1], heads):
            batches[-1].append(block)
        else:
            batches.append([block])
    return batches


def _fits(block: QueryBlock, batch: list[QueryBlock], heads: int) -> bool:
    first = batch[0]
    size = first.end - first.start
    weights = heads * (len(batch) + 1) * size * (first.before + size)
    return block.before == first.before and size - (block.end - block.start) <= _SLACK and weights <= _WEIGHTS


def _batch(blocks: list[QueryBlock]) -> BlockBatch:
    """The batch of blocks that `_batched` put together; the first block is the largest."""
    size, before = blocks[0].end - blocks[0].start, blocks[0].before
    mask = torch.full((size, before + size), float("-inf")).triu(before + 1)
    return BlockBatch(len(blocks), size, before + size, mask)


def _seen(block: QueryBlock) -> Tensor:
    row = block.row
    return torch.cat((torch.arange(row.root, row.root + row.shared), torch.arange(row.start, block.end)))


def _padded(tokens: Tensor, size: int) -> Tensor:
    """`tokens`, padded to `size` with the last of them."""
    return torch.cat((tokens, tokens[-1:].expand(size - len(tokens))))


class BatchedRowAttention(torch.autograd.Function):
    """Causal softmax attention (Vaswani et al., 2017), batch by batch; softmax is in fp32.

    Padding adds nothing: padded keys come after all real queries, which do not see them, and padded queries have no
    gradient.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
        """Shape (tokens, heads, width). query (heads, tokens, width), key and value (key heads, tokens, width)."""
        heads, tokens, width = query.shape
        ctx.layout, ctx.scale = layout, scale
        seen = key.reshape(-1, width), value.reshape(-1, width)  # saved unpadded: several blocks may see the same keys
        query = query.reshape(-1, width).index_select(0, layout.query)
        key, value = (t.index_select(0, layout.key) for t in seen)
        output = torch.empty_like(query)
        kept = []
        parts = (layout.queries(query), layout.keys(key), layout.keys(value), layout.queries(output))
        for batch, queries, keys, values, outputs in zip(layout.batches, *parts, strict=True):
            scores = torch.bmm(queries, keys.mT).float().mul_(scale)
            scores.view(-1, layout.groups, batch.queries, batch.keys).add_(batch.mask)
            weights = torch.softmax(scores, -1).to(query.dtype)
            torch.bmm(weights, values, out=outputs)
            kept.append(weights)
        ctx.save_for_backward(query, *seen, *kept)
        return output.index_select(0, layout.by_token).view(tokens, heads, width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        query, key, value, *kept = ctx.saved_tensors
        layout, width = ctx.layout, query.shape[1]
        key, value = (t.index_select(0, layout.key) for t in (key, value))
        outer = torch.zeros_like(query).index_copy_(0, layout.by_token, gradients[0].reshape(-1, width))
        of_query, of_key, of_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        by_query = [layout.queries(t) for t in (query, outer, of_query)]
        by_key = [layout.keys(t) for t in (key, value, of_key, of_value)]
        for weights, q, o, of_q, k, v, of_k, of_v in zip(kept, *by_query, *by_key, strict=True):
            of_weights = torch.bmm(o, v.mT)
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(ctx.scale)
            torch.bmm(of_scores, k, out=of_q)
            torch.bmm(of_scores.mT, q, out=of_k)
            torch.bmm(weights.mT, o, out=of_v)
        of_query = of_query.index_select(0, layout.by_head).view(-1, layout.tokens, width)
        return of_query, layout.sum_keys(of_key), layout.sum_keys(of_value), None, None


# What transformers calls. PyTorch's own kernels treat a packed sequence as one sequence with a mask and compute all of
# it, and their backward pass in bfloat16 is slow on a CPU. Here only the blocks up to each row's diagonal are computed.

NAME = "packed_rows"
_LONGEST = 1024  # a longer row would keep too many attention weights for the backward pass
_MODELS = ("llama", "mistral", "qwen2", "qwen3", "smollm3")  # plain causal attention, called with position_ids
# Layouts by number of heads, for each tensor of positions; all layers of a model share that tensor.
_LAYOUTS: Any = WeakIdKeyDictionary()


def use_packed_attention(model: Any) -> bool:
    """Makes `model` use `attention`; False for an unknown architecture or one with a sliding window."""
    from transformers import AttentionInterface, AttentionMaskInterface

    shape = model.config
    if shape.model_type not in _MODELS or getattr(shape, "sliding_window", None):
        return False
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)
    model.set_attn_implementation(NAME)
    return True


def attends_by_rows(model: Any) -> bool:
    """Whether `use_packed_attention` took effect on this model."""
    return bool(getattr(model.config, "_attn_implementation", None) == NAME)


def mask(batch_size: int, q_length: int, kv_length: int, **arguments: Any) -> Tensor | None:
    """None if `attention` can find the rows itself: one sequence, nothing cached, nothing padded; else SDPA's mask."""
    from transformers.masking_utils import sdpa_mask

    if batch_size == 1 and q_length == kv_length and arguments.get("attention_mask") is None:
        return None
    found: Tensor | None = sdpa_mask(batch_size, q_length, kv_length, **arguments)
    return found


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **arguments: Any
) -> tuple[Tensor, None]:
    """(output of shape (1, tokens, heads, width), None), in transformers' attention interface.

    query (1, heads, tokens, width), key and value (1, key heads, tokens, width).
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward as kernel

    if attention_mask is not None or query.shape[0] > 1 or query.shape[2] != key.shape[2]:
        output: Tensor = kernel(module, query, key, value, attention_mask, **arguments)[0]
        return output, None
    positions = arguments["position_ids"]
    rows = row_bounds(positions[0])
    if arguments.get("dropout") or max(row.length for row in rows) > _LONGEST:
        parts = [_by_kernel(kernel, module, row, query, key, value, arguments) for row in rows]
        return torch.cat(parts, dim=1), None
    layouts = _LAYOUTS.setdefault(positions, {})
    if (heads := (query.shape[1], key.shape[1])) not in layouts:
        layouts[heads] = Layout(rows, query.shape[2], *heads)
    scale = arguments.get("scaling") or query.shape[-1] ** -0.5
    with torch.autocast(query.device.type, enabled=False):
        output = BatchedRowAttention.apply(*(t[0].to(value.dtype) for t in (query, key, value)), layouts[heads], scale)
    return output[None], None


def _by_kernel(
    kernel: Any, module: Any, row: RowBounds, query: Tensor, key: Tensor, value: Tensor, arguments: dict[str, Any]
) -> Tensor:
    output: Tensor = kernel(module, *(row.seen(t, 2) for t in (query, key, value)), None, **arguments)[0]
    return output[:, row.shared :]
