"""Answers far longer or shorter than the others of their source: what an absolute limit cannot know."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from harness.config import Count, Group, Positive
from harness.data.pairs import Indices

CODE = "outlier"


class OutlierConfig(Group):
    """A length is an outlier when its logarithm lies more than `spread` interquartile ranges outside the quartiles of
    its source (Tukey 1977, "far out" at 3). Sources with fewer than `min_rows` rows are not looked at.
    """

    action: Literal["drop", "flag"] = "flag"
    spread: Positive = 3.0
    min_rows: Count = 100


@dataclass(frozen=True)
class Outlier:
    """An answer of `words` words in a source whose usual lengths end at `limit`."""

    words: int
    limit: float

    @property
    def kind(self) -> str:
        return "long" if self.words > self.limit else "short"

    @property
    def reason(self) -> str:
        beyond = "more than" if self.kind == "long" else "fewer than"
        return f"{self.words} words, {beyond} the {self.limit:.0f} at which the usual lengths of its source end"


class Lengths:
    """Words of each answer, in the order of the rows: four bytes a row."""

    def __init__(self, config: OutlierConfig):
        self._config = config
        self._words = array("I")

    def add(self, answer: str) -> None:
        self._words.append(len(answer.split()))

    def outliers(self, sources: Sequence[Indices]) -> dict[int, Outlier]:
        """Outliers by row number; `sources` holds the row numbers of each source."""
        words = np.frombuffer(self._words, np.uint32) if self._words else np.zeros(0, np.uint32)
        found: dict[int, Outlier] = {}
        for rows in sources:
            if len(rows) >= self._config.min_rows:
                low, high = self._fences(words[rows])
                odd = rows[(words[rows] < low) | (words[rows] > high)]
                found |= {int(row): Outlier(int(words[row]), high if words[row] > high else low) for row in odd}
        return found

    def _fences(self, words: Any) -> tuple[float, float]:
        """The shortest and the longest usual length. Where nearly all answers are equally long, half a doubling is
        taken as the least range, so that one word more is no outlier."""
        first, third = np.quantile(np.log2(words + 1.0), [0.25, 0.75])
        reach = self._config.spread * max(third - first, 0.5)
        return float(2 ** (first - reach) - 1), float(2 ** (third + reach) - 1)
