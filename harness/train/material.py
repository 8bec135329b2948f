"""What is trained on, ready for the trainer: packed sequences, their order, and whose rows they are."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from harness.config_train import TrainConfig
from harness.train.order import data_order, members_of, padded, steps_of
from harness.train.packing import Packed, pack
from harness.train.prepare import Prepared


@dataclass(frozen=True)
class Material:
    """Packs and the order they are trained in; `row_ids` and `row_sources` belong to the numbers in `Packed.rows`."""

    packs: list[Packed]
    order: list[int]
    row_ids: list[str]
    row_sources: list[str]
    per_step: int

    @property
    def steps(self) -> int:
        return steps_of(self.order, self.per_step)

    @property
    def sources(self) -> list[str]:
        """Names of the sources."""
        return sorted(set(self.row_sources))

    def members(self, step: int) -> list[Packed]:
        return [self.packs[index] for index in members_of(self.order, step, self.per_step)]

    def tokens(self, step: int) -> tuple[int, int]:
        """(all, supervised) tokens of an optimiser step."""
        found = self.members(step)
        return sum(len(p.input_ids) for p in found), sum(p.supervised for p in found)

    def rows_of(self, step: int) -> list[str]:
        """Ids of the rows of an optimiser step (counted from 1)."""
        return [self.row_ids[row] for packed in self.members(step) for row in packed.rows]

    def examples(self, processes: int) -> list[dict[str, list[int]]]:
        """The trainer's dataset, in training order; packs that come again are the same objects."""
        ordered = padded(self.packs, self.order, processes)
        made = {key: _example(packed) for key, packed in {id(p): p for p in ordered}.items()}
        return [made[id(packed)] for packed in ordered]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> "Material":
        values: dict[str, Any] = json.loads(path.read_text())
        packs = [Packed(**{**p, "rows": tuple(p["rows"])}) for p in values.pop("packs")]
        return cls(packs=packs, **values)


def material(prepared: Prepared, config: TrainConfig) -> Material:
    """Rows packed and put in order, both by the seed."""
    packs = pack(prepared.rendered, config.sequence_length, config.seed)
    return Material(
        packs=packs,
        order=data_order(len(packs), config.epochs, config.seed),
        row_ids=[str(row["id"]) for row in prepared.rows],
        row_sources=[str(row["source"]) for row in prepared.rows],
        per_step=config.sequences_per_step,
    )


def _example(packed: Packed) -> dict[str, list[int]]:
    """With the number of its row for every token."""
    starts = [position == 0 for position in packed.position_ids]
    row = [packed.rows[number - 1] for number in accumulate(starts)]
    columns = {"input_ids": packed.input_ids, "position_ids": packed.position_ids, "labels": packed.labels}
    return {**columns, "row": row}


def rows_by_source(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    names = [str(row["source"]) for row in rows]
    return {name: names.count(name) for name in sorted(set(names))}
