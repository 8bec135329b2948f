"""Attention of rows in batches is attention by its definition, whatever their lengths and what they share."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

LENGTHS = st.lists(st.one_of(st.integers(1, 40), st.integers(100, 300)), min_size=1, max_size=6)


def positions(lengths: list[int], shared: int) -> Any:
    """Of a packed sequence whose first row has `shared` tokens more, which the others see too."""
    import torch

    starts = [0, *[shared] * (len(lengths) - 1)]
    sizes = [lengths[0] + shared, *lengths[1:]]
    return torch.cat([torch.arange(start, start + size) for start, size in zip(starts, sizes, strict=True)])


def by_definition(query: Any, key: Any, value: Any, rows: Any) -> Any:
    """Shape (tokens, heads, width): all of the sequence at once, under a mask."""
    import torch

    heads, tokens, width = query.shape
    sees = torch.zeros(tokens, tokens, dtype=torch.bool)
    for row in rows:
        own = slice(row.start, row.end)
        sees[own, row.root : row.root + row.shared] = True
        sees[own, own] = torch.ones(row.end - row.start, row.end - row.start, dtype=torch.bool).tril()
    key, value = (t.repeat_interleave(heads // len(t), 0) for t in (key, value))
    scores = (query @ key.mT / math.sqrt(width)).masked_fill(~sees, -math.inf)
    return (scores.softmax(-1) @ value).transpose(0, 1)


@pytest.mark.parametrize("heads", [(4, 2), (3, 3), (6, 1)], ids=str)
@given(lengths=LENGTHS, shared=st.sampled_from([0, 0, 9, 130]))
@settings(max_examples=25, deadline=None)
def test_values_and_gradients_are_those_of_the_definition(
    heads: tuple[int, int], lengths: list[int], shared: int
) -> None:
    import torch

    from harness.train.cpu.attention import BatchedRowAttention, Layout, row_bounds

    where = positions(lengths, shared)
    rows, tokens = row_bounds(where), len(where)
    generator = torch.Generator().manual_seed(tokens)
    query, key, value = (
        torch.randn(count, tokens, 8, generator=generator, requires_grad=True) for count in (heads[0], *heads[1:] * 2)
    )
    wanted = by_definition(query, key, value, rows)
    found = BatchedRowAttention.apply(query, key, value, Layout(rows, tokens, *heads), 8**-0.5)
    outer = torch.randn(wanted.shape, generator=generator)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for one, other in zip(
        torch.autograd.grad(found, (query, key, value), outer),
        torch.autograd.grad(wanted, (query, key, value), outer),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@given(LENGTHS, st.sampled_from([0, 9, 130]))
@settings(max_examples=50, deadline=None)
def test_every_query_has_one_place_and_padding_is_bounded(lengths: list[int], shared: int) -> None:
    from harness.train.cpu.attention import Layout, row_bounds

    where = positions(lengths, shared)
    layout = Layout(row_bounds(where), len(where), 4, 2)
    assert layout.query[layout.by_head].tolist() == list(range(4 * len(where)))
    blocks = sum(batch.blocks for batch in layout.batches)
    assert sum(batch.blocks * batch.queries for batch in layout.batches) <= len(where) + 16 * blocks
    assert len(layout.query) == 4 * sum(batch.blocks * batch.queries for batch in layout.batches)
    assert len(layout.key) == 2 * sum(batch.blocks * batch.keys for batch in layout.batches)


def test_rows_of_like_length_are_one_batch() -> None:
    from harness.train.cpu.attention import Layout, row_bounds

    where = positions([40, 38, 36, 30, 20], 0)
    assert [(b.blocks, b.queries) for b in Layout(row_bounds(where), len(where), 9, 3).batches] == [(4, 40), (1, 20)]
