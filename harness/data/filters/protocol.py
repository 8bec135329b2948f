"""What a filter says about a row, and what a filter is."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.data.row import DataRow


@dataclass(frozen=True)
class Judgement:
    """One filter's finding on one row.

    `reason` is None for a clean row, otherwise what was found and where, in words (never the personal datum itself);
    quarantine shows it as `<code>: <reason>`. `redacted` is the row with the finding masked, where the filter can.
    `evidence` holds short kinds that are counted (entity types, rule names).
    """

    reason: str | None = None
    redacted: DataRow | None = None
    evidence: tuple[str, ...] = ()


CLEAN = Judgement()


class Filter(Protocol):
    """One reason code. `judge` is pure: each judgement depends on its row alone, whatever the batch.

    A filter is built from its configuration (`__init__(self, config: …)`, with a Group that has a field `action`),
    pickles cheaply, and loads its model on first use in each process. `code` is the name that audit.filters has for
    it; where one name stands for several filters, a space and what tells them apart follow.
    """

    code: str

    @abstractmethod
    def judge(self, rows: Sequence[DataRow]) -> list[Judgement]:
        """One judgement per row, in the same order."""
        ...
