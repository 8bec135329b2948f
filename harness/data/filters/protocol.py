"""What a filter says about a row, and what a filter is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Row = dict[str, Any]


@dataclass(frozen=True)
class Judgement:
    """One filter's finding on one row.

    `reason` is None for a clean row, otherwise what was found and where, in words (never the personal datum itself);
    quarantine shows it as `<code>: <reason>`. `redacted` is the row with the finding masked, where the filter can.
    `evidence` holds short kinds that are counted (entity types, rule names).
    """

    reason: str | None = None
    redacted: Row | None = None
    evidence: tuple[str, ...] = ()


CLEAN = Judgement()


class Filter(Protocol):
    """One reason code. `judge` is pure: each judgement depends on its row alone, whatever the batch.

    A filter is built from its configuration, pickles cheaply, and loads its model on first use in each process.
    """

    code: str

    def judge(self, rows: Sequence[Row]) -> list[Judgement]:
        """One judgement per row, in the same order."""
        ...
