"""Packing: several conversations in one sequence, none attending to another.

Positions restart at 0 with every conversation; transformers builds the block-diagonal causal mask from
them when no attention mask is given. Labels are already shifted: position t predicts `labels[t]`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from harness.prompt.render import Rendered

IGNORED = -100


@dataclass(frozen=True)
class Packed:
    """One training sequence; the three lists have equal length. `rows` are the numbers of its conversations."""

    input_ids: list[int]
    position_ids: list[int]
    labels: list[int]
    rows: tuple[int, ...] = ()

    @property
    def supervised(self) -> int:
        return sum(label != IGNORED for label in self.labels)


def pack(rows: Sequence[Rendered], length: int, seed: int) -> list[Packed]:
    """Rows in shuffled order, first-fit into sequences of at most `length` tokens.

    A row longer than `length` raises ValueError; callers report such rows before.
    """
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    bins: list[list[int]] = []
    room: list[int] = []
    for index in order:
        size = len(rows[index].ids)
        if size > length:
            raise ValueError(f"row {index} has {size} tokens; a sequence holds {length}")
        fit = next((b for b, free in enumerate(room) if free >= size), None)
        if fit is None:
            bins.append([])
            room.append(length)
            fit = len(bins) - 1
        bins[fit].append(index)
        room[fit] -= size
    return [_join([rows[index] for index in members], members) for members in bins]


def _join(rows: Sequence[Rendered], members: Sequence[int]) -> Packed:
    ids: list[int] = []
    positions: list[int] = []
    labels: list[int] = []
    for row in rows:
        ids += row.ids
        positions += range(len(row.ids))
        targets = [i if supervised else IGNORED for i, supervised in zip(row.ids, row.mask, strict=True)]
        labels += [*targets[1:], IGNORED]
    return Packed(ids, positions, labels, tuple(members))
