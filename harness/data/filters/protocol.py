"""What a filter is, and what it returns for a row."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.data.row import DataRow


@dataclass(frozen=True)
class Judgement:
    """One filter's finding on one row."""

    reason: str | None = None
    """What was found and where, without the personal data themselves; None for a clean row. The quarantine shows
    `<code>: <reason>`."""

    redacted: DataRow | None = None
    """The row with the finding masked, where the filter can do that."""

    evidence: tuple[str, ...] = ()
    """Short kinds that are counted, such as entity types and rule names."""


CLEAN = Judgement()


class Filter(Protocol):
    """A check of rows that has one reason code.

    `judge` is pure: each judgement depends on its row alone, not on the other rows of the batch. A filter is built from
    its settings (`__init__(self, config: …)`, annotated with a Group that has a field `action`). It is pickled to
    worker processes, so it loads its model on first use.
    """

    code: str
    """The name under `audit.filters`. Where several filters share a name, a space and a second name follow."""

    @abstractmethod
    def judge(self, rows: Sequence[DataRow]) -> list[Judgement]:
        """One judgement for each row, in the same order."""
        ...
