"""What the filters found, counted as batches pass: rows, kinds and a few masked examples for each reason code."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.data.filtering import FilterOutcome
from harness.data.row import DataRow
from harness.records.stages import FilterFinding

EXAMPLES = 3
SHOWN = 160
_MASKED = (
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), "<e-mail>"),
    (re.compile(r"\d(?:[ .\-/]?\d){3,}"), "<number>"),
)


def masked(text: str) -> str:
    """A short text on one line without addresses and long numbers: what a data card may show of a row."""
    for pattern, name in _MASKED:
        text = pattern.sub(name, text)
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


@dataclass
class _Found:
    action: str
    rows: int = 0
    by_source: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


class Tally:
    """Counts by reason code, those that found nothing included: a filter that ran is told from one that did not."""

    def __init__(self, actions: dict[str, str]):
        self._found = {code: _Found(action) for code, action in actions.items()}
        self._rows: Counter[str] = Counter()

    def add(self, row: DataRow, outcomes: Sequence[FilterOutcome], shown: bool = True) -> None:
        """The findings in one row, as the row goes on (redacted where configured); `shown`: its text may be."""
        self._rows.update({o.code for o in outcomes} | {o.code.split(" ")[0] for o in outcomes})
        personal = not shown or any(o.code == "personal_data" and o.action != "redact" for o in outcomes)
        for outcome in outcomes:
            found = self._found.setdefault(outcome.code, _Found(outcome.action))
            found.rows += 1
            found.by_source[row["source"]] += 1
            found.kinds.update(outcome.evidence)
            if len(found.examples) < EXAMPLES:
                text = "" if personal else f" ({masked(row['instruction'])} → {masked(row['output'])})"
                found.examples.append(f"{row['source']}/{row['id']}: {masked(outcome.reason)}{text}")

    def rows_of(self, code: str) -> int:
        """Rows with a finding of that code; `behavior` stands for every behaviour, and counts a row once."""
        return self._rows[code]

    def findings(self) -> list[FilterFinding]:
        return [
            FilterFinding(
                code=code,
                action=found.action,
                rows=found.rows,
                by_source=dict(sorted(found.by_source.items())),
                kinds=dict(sorted(found.kinds.items())),
                examples=found.examples,
            )
            for code, found in self._found.items()
        ]


def broken_limits(
    rows_of: Callable[[str], int], read: int, max_rows: dict[str, int], max_share: dict[str, float]
) -> list[str]:
    """Every limit that the rows found by reason code break, in words."""
    told = [
        f"{code}: {rows_of(code)} rows found, at most {most} allowed (audit.limits.max_rows.{code})"
        for code, most in max_rows.items()
        if rows_of(code) > most
    ]
    return told + [
        f"{code}: {rows_of(code) / read:.2%} of {read} rows found, at most {most:.2%} allowed "
        f"(audit.limits.max_share.{code})"
        for code, most in max_share.items()
        if read and rows_of(code) / read > most
    ]
