"""Applies all filters to a batch of rows, and makes its sketches for the search for duplicates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.core.console import plural
from harness.core.errors import EnvironmentFault
from harness.data.dedupe import DedupeConfig, Sketches, sketch
from harness.data.filters.protocol import Filter, Judgement
from harness.data.row import DataRow, exchanges, joined_exchanges


@dataclass(frozen=True)
class FilterOutcome:
    """What one filter found in a row, and what was done about it."""

    code: str
    action: str
    reason: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class FilteredBatch:
    """A batch after all filters."""

    rows: list[DataRow]
    """Redacted where configured."""

    outcomes: list[list[FilterOutcome]]
    """For each row, what the filters found."""

    sketches: Sketches


class FilterChain:
    """All filters in order, each with its action. It is pickled to worker processes, and the result for a batch depends
    on the batch alone.
    """

    def __init__(
        self,
        filters: Sequence[tuple[Filter, str]],
        dedupe: DedupeConfig,
        by_source: Mapping[str, Mapping[str, str]] | None = None,
    ):
        """`by_source` holds actions that replace those of the filters, by source and filter name."""
        self._filters = list(filters)
        self._dedupe = dedupe
        self._by_source = {source: dict(actions) for source, actions in (by_source or {}).items()}

    def __call__(self, rows: Sequence[DataRow]) -> FilteredBatch:
        current = list(rows)
        outcomes: list[list[FilterOutcome]] = [[] for _ in rows]
        for filter_, action in self._filters:
            for i, judgement in enumerate(judge_conversations(filter_, current)):
                if judgement.reason is None:
                    continue
                done = self._action(filter_.code, action, current[i], judgement)
                outcomes[i].append(FilterOutcome(filter_.code, done, judgement.reason, judgement.evidence))
                if done == "redact" and judgement.redacted is not None:
                    current[i] = judgement.redacted
        return FilteredBatch(current, outcomes, sketch(current, self._dedupe, self._without))

    def _action(self, code: str, action: str, row: DataRow, judgement: Judgement) -> str:
        """What is done with the row. It is dropped when its finding should be masked and cannot be."""
        wanted = self._by_source.get(row["source"], {}).get(code.split(" ")[0], action)
        return "drop" if wanted == "redact" and judgement.redacted is None else wanted

    @property
    def codes(self) -> dict[str, str]:
        """Action by reason code."""
        return {filter_.code: action for filter_, action in self._filters}

    @property
    def notes(self) -> list[str]:
        """What the filters did not look for: one sentence each."""
        return [note for filter_, _ in self._filters if hasattr(filter_, "notes") for note in filter_.notes()]

    def _without(self, answer: str) -> str:
        for filter_, _ in self._filters:
            remove: Callable[[str], str] | None = getattr(filter_, "without", None)
            answer = remove(answer) if remove else answer
        return answer


def judge_conversations(filter_: Filter, rows: Sequence[DataRow]) -> list[Judgement]:
    """One judgement for each row. A conversation of several turns is judged exchange by exchange.

    Raises EnvironmentFault for a filter that does not return one judgement for each row.
    """
    parts = [exchanges(row) for row in rows]
    whole = [part for pieces in parts for part in pieces]
    found = filter_.judge(whole)
    if not isinstance(found, list) or [type(judgement) for judgement in found] != [Judgement] * len(whole):
        raise EnvironmentFault(
            f"filter '{filter_.code}' of {type(filter_).__module__} does not return one Judgement for each row "
            f"({plural(len(whole), 'row')} given). Fix its method 'judge', or turn it off: "
            f"audit.filters.{filter_.code.split(' ')[0]}=null"
        )
    judgements: list[Judgement] = []
    start = 0
    for row, pieces in zip(rows, parts, strict=True):
        own = found[start : start + len(pieces)]
        start += len(pieces)
        judgements.append(own[0] if len(own) == 1 and not row.get("messages") else _collate(row, pieces, own))
    return judgements


def _collate(row: DataRow, pieces: Sequence[DataRow], found: Sequence[Judgement]) -> Judgement:
    """The judgement on a conversation, from those on its exchanges (`pieces`)."""
    reasons = [f"exchange {n}: {j.reason}" for n, j in enumerate(found, 1) if j.reason is not None]
    if not reasons:
        return Judgement()
    changed = [j.redacted if j.redacted is not None else piece for j, piece in zip(found, pieces, strict=True)]
    can_redact = all(j.reason is None or j.redacted is not None for j in found)
    evidence = tuple(dict.fromkeys(kind for j in found for kind in j.evidence))
    return Judgement("; ".join(reasons), joined_exchanges(row, changed) if can_redact else None, evidence)
