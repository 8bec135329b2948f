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
    """Every row once, in as few sequences of at most `length` tokens as best-fit decreasing finds, shuffled.

    A row longer than `length` raises ValueError; callers report such rows before.
    """
    together = plan([len(row.ids) for row in rows], length, seed)
    return [join([rows[index] for index in members], members) for members in together]


def plan(sizes: Sequence[int], length: int, seed: int) -> list[list[int]]:
    """Which rows share a sequence: longest rows first, each where it leaves the least room (best-fit decreasing).

    Rows of one size, and the sequences, are in random order. Near-linear: open sequences are found by their room.
    """
    generator = random.Random(seed)
    order = list(range(len(sizes)))
    generator.shuffle(order)
    order.sort(key=lambda index: -sizes[index])
    if order and sizes[order[0]] > length:
        raise ValueError(f"row {order[0]} has {sizes[order[0]]} tokens; a sequence holds {length}")
    bins: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(length + 1)]
    occupied = 0  # bit r is set while a sequence with room for r tokens is open
    for index in order:
        size = sizes[index]
        if fitting := occupied >> size:
            room = size + (fitting & -fitting).bit_length() - 1
            fit = by_room[room].pop()
            if not by_room[room]:
                occupied ^= 1 << room
        else:
            room, fit = length, len(bins)
            bins.append([])
        bins[fit].append(index)
        by_room[room - size].append(fit)
        occupied |= 1 << (room - size)
    generator.shuffle(bins)
    return bins


def padding_share(packs: Sequence[Packed], length: int) -> float:
    """Share of the sequences' places that hold no token."""
    return 1 - sum(len(p.input_ids) for p in packs) / (length * len(packs))


def join(rows: Sequence[Rendered], members: Sequence[int] = ()) -> Packed:
    """The rows as one sequence; `members` are their numbers."""
    ids: list[int] = []
    positions: list[int] = []
    labels: list[int] = []
    for row in rows:
        ids += row.ids
        positions += range(len(row.ids))
        targets = [i if supervised else IGNORED for i, supervised in zip(row.ids, row.mask, strict=True)]
        labels += [*targets[1:], IGNORED]
    return Packed(ids, positions, labels, tuple(members))
