"""Packs several conversations into one training sequence, and puts the sequences in training order.

No conversation attends to another. Positions restart at 0 with every conversation; transformers builds the
block-diagonal causal mask from them when no attention mask is given. Labels are already shifted: position t predicts
`labels[t]`.

    tokens      a a a b b c c c c       three conversations: a, b, c
    positions   0 1 2 0 1 0 1 2 3
"""

import dataclasses
import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from harness.config.train import TrainConfig
from harness.prompt.render import Rendered
from harness.train.prepare import Prepared

IGNORED = -100
MIXED = 0.01  # nats: packed rows that change each other's log-probabilities by more are computed apart


@dataclass(frozen=True)
class Pack:
    """One training sequence; the three lists have equal length. `rows` holds the numbers of its conversations."""

    input_ids: list[int]
    position_ids: list[int]
    labels: list[int]
    rows: tuple[int, ...] = ()

    @property
    def supervised(self) -> int:
        return sum(label != IGNORED for label in self.labels)


def pack(rows: Sequence[Rendered], length: int, seed: int) -> list[Pack]:
    """Every row once, packed into shuffled sequences of at most `length` tokens by best-fit decreasing.

    Raises ValueError for a row longer than `length`; `prepare` reports such rows first.
    """
    sequences = plan_sequences([len(row.ids) for row in rows], length, seed)
    return [join([rows[index] for index in members], members) for members in sequences]


def plan_sequences(sizes: Sequence[int], length: int, seed: int) -> list[list[int]]:
    """Which rows share a sequence: longest rows first, each where it leaves the least room (best-fit decreasing).

    Rows of equal size, and the sequences, are in random order. Near-linear time: open sequences are indexed by their
    remaining room.
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


def padding_share(packs: Sequence[Pack], length: int) -> float:
    """Share of the sequences' total length that holds no token."""
    return 1 - sum(len(p.input_ids) for p in packs) / (length * len(packs))


def join(rows: Sequence[Rendered], members: Sequence[int] = ()) -> Pack:
    """The rows as one sequence; `members` are their numbers."""
    ids: list[int] = []
    positions: list[int] = []
    labels: list[int] = []
    for row in rows:
        ids += row.ids
        positions += range(len(row.ids))
        targets = [i if supervised else IGNORED for i, supervised in zip(row.ids, row.mask, strict=True)]
        labels += [*targets[1:], IGNORED]
    return Pack(ids, positions, labels, tuple(members))


def data_order(packs: int, epochs: float, seed: int) -> list[int]:
    """Numbers of the packs in training order, shuffled for each epoch; a fractional last epoch is cut short.

    The order is fixed before training and is the same for any number of processes.
    """
    wanted = max(1, math.ceil(packs * epochs))
    generator = random.Random(seed)
    order: list[int] = []
    while len(order) < wanted:
        epoch = list(range(packs))
        generator.shuffle(epoch)
        order += epoch
    return order[:wanted]


def padded(packs: Sequence[Pack], order: Sequence[int], processes: int) -> list[Pack]:
    """The packs in training order, plus sequences without loss so that every process gets equally many."""
    ordered = [packs[index] for index in order]
    blank = dataclasses.replace(packs[0], labels=[IGNORED] * len(packs[0].labels))
    return [*ordered, *[blank] * (-len(ordered) % processes)]


@dataclass(frozen=True)
class TrainingBatches:
    """The training data: packed sequences, and the optimiser step that each belongs to.

    `order` holds the numbers of the packs in training order, `per_step` of them per step. `row_ids` and `row_sources`
    are indexed by the numbers in `Pack.rows`.
    """

    packs: list[Pack]
    order: list[int]
    row_ids: list[str]
    row_sources: list[str]
    per_step: int

    @property
    def steps(self) -> int:
        """Number of optimiser steps; the last one may hold fewer sequences."""
        return math.ceil(len(self.order) / self.per_step)

    @property
    def order_sha256(self) -> str:
        """SHA-256 of every token, position and label in training order."""
        packs = [(p.input_ids, p.position_ids, p.labels) for p in self.packs]
        digests = [hashlib.sha256(repr(lists).encode()).hexdigest() for lists in packs]
        return hashlib.sha256("".join(digests[index] for index in self.order).encode()).hexdigest()

    @property
    def sources(self) -> list[str]:
        """Names of the sources, sorted."""
        return sorted(set(self.row_sources))

    def members(self, step: int) -> list[Pack]:
        """The sequences of an optimiser step (counted from 1)."""
        return [self.packs[index] for index in self.order[(step - 1) * self.per_step : step * self.per_step]]

    def tokens(self, step: int) -> tuple[int, int]:
        """(total, supervised) number of tokens in an optimiser step."""
        members = self.members(step)
        return sum(len(p.input_ids) for p in members), sum(p.supervised for p in members)

    def rows_of(self, step: int) -> list[str]:
        """Ids of the rows of an optimiser step (counted from 1)."""
        return [self.row_ids[row] for packed in self.members(step) for row in packed.rows]

    def examples(self, processes: int) -> list[dict[str, list[int]]]:
        """The trainer's dataset in training order; repeated packs are the same objects."""
        ordered = padded(self.packs, self.order, processes)
        examples = {key: _example(packed) for key, packed in {id(p): p for p in ordered}.items()}
        return [examples[id(packed)] for packed in ordered]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> "TrainingBatches":
        values: dict[str, Any] = json.loads(path.read_text())
        packs = [Pack(**{**p, "rows": tuple(p["rows"])}) for p in values.pop("packs")]
        return cls(packs=packs, **values)


def training_batches(prepared: Prepared, config: TrainConfig) -> TrainingBatches:
    """The rows packed and put in training order, both by train.seed."""
    packs = pack(prepared.rendered, config.sequence_length, config.seed)
    return TrainingBatches(
        packs=packs,
        order=data_order(len(packs), config.epochs, config.seed),
        row_ids=[str(row["id"]) for row in prepared.rows],
        row_sources=[str(row["source"]) for row in prepared.rows],
        per_step=config.sequences_per_step,
    )


def rows_are_independent(model: Any) -> bool:
    """Whether a packed row's logits do not depend on the row before it, tried on the model at hand.

    The same row follows two rows of equal length: shapes and positions are the same, so only attention or state that
    crosses the rows can change its log-probabilities. Not so in OPT, Falcon, and models with Mamba or convolutions.
    """
    import torch

    words = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    first, other, second = (torch.randint(words, (1, 24), generator=generator) for _ in range(3))
    positions = torch.arange(24).repeat(2)[None].to(model.device)
    training = model.training
    model.eval()
    with torch.no_grad():
        left, right = (
            model(input_ids=torch.cat((before, second), 1).to(model.device), position_ids=positions, use_cache=False)
            .logits[0, 24:]
            .float()
            .log_softmax(-1)
            for before in (first, other)
        )
    model.train(training)
    return float((left - right).abs().max()) < MIXED


def packed_logits(model: Any, inputs: dict[str, Any], supervised: Any, *, apart: bool) -> Any:
    """Logits at the `supervised` places of a packed sequence, shape (places, vocabulary).

    With `apart`, each row is computed alone: for models whose rows would see each other.
    """
    import torch

    ids, positions = inputs["input_ids"], inputs["position_ids"]
    if not apart:
        return model(input_ids=ids, position_ids=positions, logits_to_keep=supervised, use_cache=False).logits[0]
    starts = [*(positions[0] == 0).nonzero()[:, 0].tolist(), ids.shape[1]]
    found = []
    for start, end in pairwise(starts):
        own = supervised[(supervised >= start) & (supervised < end)] - start
        if len(own):
            row = {"input_ids": ids[:, start:end], "position_ids": positions[:, start:end]}
            found.append(model(**row, logits_to_keep=own, use_cache=False).logits[0])
    if not found:
        return model(input_ids=ids, position_ids=positions, logits_to_keep=supervised, use_cache=False).logits[0]
    return torch.cat(found)


def _example(packed: Pack) -> dict[str, list[int]]:
    """The trainer's columns, one value per token each; `row` is the number of the token's row."""
    starts = [position == 0 for position in packed.position_ids]
    row = [packed.rows[number - 1] for number in accumulate(starts)]
    columns = {"input_ids": packed.input_ids, "position_ids": packed.position_ids, "labels": packed.labels}
    return {**columns, "row": row}


def collate(examples: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
    """The packed sequences concatenated, as tensors of shape (1, tokens), dtype int64."""
    import torch

    return {key: torch.tensor([[value for one in examples for value in one[key]]]) for key in examples[0]}
