"""Which packed sequence is trained on when: known before training, the same for any number of processes."""

import dataclasses
import hashlib
import math
import random
from collections.abc import Sequence

from harness.train.packing import IGNORED, Packed


def data_order(packs: int, epochs: float, seed: int) -> list[int]:
    """Numbers of the packs in training order: shuffled anew each epoch, the last epoch in part where it is one."""
    wanted = max(1, math.ceil(packs * epochs))
    generator = random.Random(seed)
    order: list[int] = []
    while len(order) < wanted:
        epoch = list(range(packs))
        generator.shuffle(epoch)
        order += epoch
    return order[:wanted]


def steps_of(order: Sequence[int], per_step: int) -> int:
    """Optimiser steps; the last one may hold fewer sequences."""
    return math.ceil(len(order) / per_step)


def members_of(order: Sequence[int], step: int, per_step: int) -> list[int]:
    """The packs of an optimiser step (counted from 1)."""
    return list(order[(step - 1) * per_step : step * per_step])


def padded(packs: Sequence[Packed], order: Sequence[int], processes: int) -> list[Packed]:
    """The packs in training order, with sequences that carry no loss added so that every process gets as many."""
    ordered = [packs[index] for index in order]
    blank = dataclasses.replace(packs[0], labels=[IGNORED] * len(packs[0].labels))
    return [*ordered, *[blank] * (-len(ordered) % processes)]


def order_sha256(packs: Sequence[Packed], order: Sequence[int]) -> str:
    """Digest of every token, position and label in the order of training."""
    digests = [hashlib.sha256(repr((p.input_ids, p.position_ids, p.labels)).encode()).hexdigest() for p in packs]
    return hashlib.sha256("".join(digests[index] for index in order).encode()).hexdigest()
