"""The input and output of a behaviour's check: one exchange, and one finding for each rule."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from harness.core.errors import nearest


@dataclass(frozen=True)
class Exchange:
    """One request with its answer."""

    instruction: str
    response: str
    input: str = ""

    topic: str = ""
    """Decides whether a behaviour applies."""

    details: dict[str, Any] = field(default_factory=dict)
    """What an evaluation item says about its right answer; empty for training rows."""


@dataclass(frozen=True)
class RuleFinding:
    """The outcome of one rule on one exchange."""

    rule: str
    passed: bool

    expected: str
    """What the rule demands, for a person to read."""

    found: str
    """What the answer has instead, or the wording that meets the demand."""


@dataclass(frozen=True)
class Check:
    """All findings on one exchange; none where the behaviour does not apply."""

    findings: list[RuleFinding]

    metrics: dict[str, float] = field(default_factory=dict)
    """What a task reports for the exchange, by metric: mostly 0 or 1, or a share between them."""

    @property
    def passed(self) -> bool:
        """Whether every rule that applies is met."""
        return all(finding.passed for finding in self.findings)

    def rules(self) -> list[dict[str, Any]]:
        """The findings as they are written to files."""
        return [{"rule": f.rule, "pass": f.passed, "expected": f.expected, "found": f.found} for f in self.findings]


def topic_errors(item: Exchange, known: Iterable[str]) -> list[str]:
    """One message when an evaluation item has a topic that its behaviour says nothing about, else none."""
    topics = list(known)
    return (
        [] if item.topic in topics else [f"topic {item.topic!r} is not in behavior.yaml. {nearest(item.topic, topics)}"]
    )
