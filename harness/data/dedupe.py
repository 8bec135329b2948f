"""Duplicates among all rows: exact, near, and questions with several answers. Holds sketches, never texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.data.minhash import DedupeConfig, Sketches


@dataclass(frozen=True)
class Duplicate:
    """A row that repeats an earlier one. Rows are numbered in the order in which they were added."""

    row: int
    of: int
    kind: Literal["exact", "near"]
    jaccard: float


@dataclass(frozen=True)
class Found:
    """All duplicates in row order; `conflicts` are groups of kept rows with one prompt and different answers.

    `clusters` numbers the rows so that duplicates, near-duplicates and rows with one prompt share a number:
    a split that keeps clusters whole does not leak.
    """

    duplicates: list[Duplicate]
    conflicts: list[list[int]]
    clusters: NDArray[np.int64]


class Duplicates:
    """Collects the sketches of rows batch by batch; `find` compares them all.

        duplicates = Duplicates(config)
        for batch in batches:
            duplicates.add(sketch(batch, config, without))
        found = duplicates.find()

    A row repeats the first kept row that it is similar to, so the outcome depends on the order of rows alone,
    not on batches or processes. About 300 bytes of memory a row; n-grams go to a temporary file.
    """

    def __init__(self, config: DedupeConfig):
        self._config = config

    def add(self, sketches: Sketches) -> None:
        raise NotImplementedError

    def find(self, live: NDArray[np.bool_] | Sequence[bool] | None = None) -> Found:
        """Compares all rows, or those that are `live` (the others are nobody's duplicate and in no cluster: -1)."""
        raise NotImplementedError
