"""What a behaviour sees and says: one exchange in, one finding a rule out."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Exchange:
    """One request with its answer. `topic` tells a behaviour whether it applies.

    `details` is what an evaluation item knows about its right answer; training rows have none.
    """

    instruction: str
    response: str
    input: str = ""
    topic: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RuleFinding:
    """The outcome of one rule on one exchange."""

    rule: str
    passed: bool
    expected: str
    found: str


@dataclass(frozen=True)
class Check:
    """All findings on one exchange; `metrics` holds what a task reports for it (metric name to a share)."""

    findings: list[RuleFinding]
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    def rules(self) -> list[dict[str, Any]]:
        """The findings as they are written to files."""
        return [{"rule": f.rule, "pass": f.passed, "expected": f.expected, "found": f.found} for f in self.findings]
