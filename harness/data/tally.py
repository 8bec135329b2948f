"""Counts of what the filters found: rows, kinds and a few masked examples for each reason code."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.core.console import plural
from harness.data.filtering import FilterOutcome
from harness.data.row import DataRow
from harness.records.stages import FilterFinding

EXAMPLES = 3
SHOWN = 160
_MASKED = (
    (re.compile(r"(?<![\w.+-])[\w.+-]++@[\w-]++\.[\w.-]+"), "<e-mail>"),
    (re.compile(r"\d(?:[ .\-/]?\d){3,}"), "<number>"),
)


def masked(text: str, most: int = SHOWN) -> str:
    """At most `most` characters of a text on one line, without addresses and long numbers: fit for a data card."""
    for pattern, name in _MASKED:
        text = pattern.sub(name, text)
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


@dataclass
class _Found:
    action: str
    """As configured for all sources."""

    rows: int = 0
    taken: Counter[str] = field(default_factory=Counter)
    """Rows by what was done with them: a source may have its own action."""

    by_source: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


class Tally:
    """Counts by reason code. A filter that found nothing is listed too, with 0 rows."""

    def __init__(self, actions: dict[str, str]):
        self._found = {code: _Found(action) for code, action in actions.items()}
        self._rows: Counter[str] = Counter()

    def add(self, row: DataRow, outcomes: Sequence[FilterOutcome], shown: bool = True) -> None:
        """Counts the findings in one row. `row` is what the filters left (redacted where configured); `shown` tells
        whether its text may appear in an example.
        """
        self._rows.update({o.code for o in outcomes} | {o.code.split(" ")[0] for o in outcomes})
        personal = not shown or any(o.code == "personal_data" and o.action != "redact" for o in outcomes)
        for outcome in outcomes:
            found = self._found.setdefault(outcome.code, _Found(outcome.action))
            found.rows += 1
            found.taken[outcome.action] += 1
            found.by_source[row["source"]] += 1
            found.kinds.update(outcome.evidence)
            if len(found.examples) < EXAMPLES:
                text = "" if personal else f" ({masked(row['instruction'])} → {masked(row['output'])})"
                found.examples.append(f"{row['source']}/{row['id']}: {masked(outcome.reason)}{text}")

    def rows_of(self, code: str) -> int:
        """Rows with a finding of that code. `behavior` stands for all behaviours and counts a row once."""
        return self._rows[code]

    def findings(self) -> list[FilterFinding]:
        return [
            FilterFinding(
                code=code,
                action=", ".join(action for action, _ in found.taken.most_common()) or found.action,
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
    """One message for each broken limit. `rows_of` gives the rows found by reason code, of `read` rows in all."""
    broken = [
        f"{code}: {plural(rows_of(code), 'row')} found, at most {most} allowed (audit.limits.max_rows.{code})"
        for code, most in max_rows.items()
        if rows_of(code) > most
    ]
    return broken + [
        f"{code}: found in {rows_of(code) / read:.2%} of {plural(read, 'row')}, at most {most:.2%} allowed "
        f"(audit.limits.max_share.{code})"
        for code, most in max_share.items()
        if read and rows_of(code) / read > most
    ]
