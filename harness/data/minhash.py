"""MinHash sketches of rows (Broder, 1997): what near-duplicate search keeps of a row instead of its text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.config import Group
from harness.data.words import Hashes, Offsets

Without = Callable[[str], str]


class DedupeConfig(Group):
    """Near-duplicates: rows whose word n-grams have a Jaccard similarity of at least `jaccard`."""

    action: str = "drop"
    jaccard: float = 0.7
    ngram: int = 3
    permutations: int = 128
    seed: int = 42


@dataclass(frozen=True)
class Sketches:
    """What duplicates are found by, for some rows in order. Made by `sketch` in any process, joined by `Duplicates`."""

    texts: NDArray[np.void]
    prompts: NDArray[np.void]
    answers: NDArray[np.void]
    bands: Hashes
    grams: NDArray[np.uint32]
    offsets: Offsets


def sketch(rows: Sequence[Mapping[str, Any]], config: DedupeConfig, without: Without | None = None) -> Sketches:
    """The sketches of rows; pure, so that worker processes can make them.

    `without` removes from an answer what every answer must share (a behaviour's `.without`).
    """
    raise NotImplementedError
