"""Rows that hold an evaluation item of the run: exact, by overlapping n-grams, or nearly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.config import Group
from harness.data.filters.judgement import Judgement


class DecontaminateConfig(Group):
    """When a row counts as holding an item."""

    similarity: float = 0.8


@dataclass(frozen=True)
class Match:
    """The evaluation item a row holds, how it was recognised, and how much of the item's words were found (0 to 1)."""

    item_id: str
    task: str
    kind: Literal["exact", "ngram", "near"]
    score: float


class Decontamination:
    """An index over evaluation items: dictionaries with `id`, `text`, and where known `task` and `answers`.

    Pure and picklable: a row's match depends on the row and the items alone. Also a filter (`judge`).
    """

    code = "contamination"
    digest: str

    def __init__(self, items: Sequence[Mapping[str, Any]], config: DecontaminateConfig):
        raise NotImplementedError

    def match(self, row: Mapping[str, Any]) -> Match | None:
        return self.match_all([row])[0]

    def match_all(self, rows: Sequence[Mapping[str, Any]]) -> list[Match | None]:
        """The best match of each row, in order; instruction, input, output and messages are searched."""
        raise NotImplementedError

    def judge(self, rows: Sequence[Mapping[str, Any]]) -> list[Judgement]:
        raise NotImplementedError
