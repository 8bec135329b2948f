"""How good a behaviour's check is: its verdicts against labelled answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.behavior.exchange import Check
from harness.stats.proportion import wilson_interval

FILE = Path("labelled") / "answers.jsonl"
Label = dict[str, Any]


@dataclass(frozen=True)
class Rate:
    """A share with its counts. Printed with Wilson's two-sided 95% interval."""

    right: int
    of: int

    @property
    def value(self) -> float:
        return self.right / self.of if self.of else float("nan")

    def __str__(self) -> str:
        low, high = wilson_interval(self.right, self.of) if self.of else (0.0, 1.0)
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}] ({self.right}/{self.of})"


@dataclass(frozen=True)
class Grading:
    """How a check agrees with labels: precision and recall of failing and of passing answers."""

    rows: int

    hard: int
    """Answers labelled as hard cases."""

    fail_precision: Rate
    """Of the answers that the check failed, those that break the demand."""

    fail_recall: Rate
    """Of the answers that break the demand, those that the check failed."""

    pass_precision: Rate
    """Of the answers that the check passed, those that meet the demand."""

    pass_recall: Rate
    """Of the answers that meet the demand, those that the check passed."""

    missed: list[str]
    """Ids of bad answers that passed."""

    accused: list[str]
    """Ids of good answers that failed."""

    @property
    def lowest(self) -> float:
        """The smallest of the four rates."""
        rates = (self.fail_precision, self.fail_recall, self.pass_precision, self.pass_recall)
        return min(rate.value for rate in rates)

    def __str__(self) -> str:
        return (
            f"{self.rows} answers, {self.hard} hard\n"
            f"fail: precision {self.fail_precision}, recall {self.fail_recall}\n"
            f"pass: precision {self.pass_precision}, recall {self.pass_recall}"
        )


def grading(labels: Sequence[Label], check: Callable[[Label], Check]) -> Grading:
    """Precision and recall of `check` on labelled answers."""
    said = [check(label).passed for label in labels]
    missed = [label["id"] for label, passed in zip(labels, said, strict=True) if passed and not label["pass"]]
    accused = [label["id"] for label, passed in zip(labels, said, strict=True) if not passed and label["pass"]]
    good = sum(bool(label["pass"]) for label in labels)
    bad = len(labels) - good
    caught, spared = bad - len(missed), good - len(accused)
    return Grading(
        rows=len(labels),
        hard=sum(bool(label["hard"]) for label in labels),
        fail_precision=Rate(caught, caught + len(accused)),
        fail_recall=Rate(caught, bad),
        pass_precision=Rate(spared, spared + len(missed)),
        pass_recall=Rate(spared, good),
        missed=missed,
        accused=accused,
    )
