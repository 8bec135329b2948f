"""Grades the graders: labelled answers against what a behaviour says of them."""

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
    """A share with its counts; the interval is Wilson's, 95%, two-sided."""

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
    """How a check agrees with labels. Of answers that break the demand: `fail_*`; of those that keep it: `pass_*`.

    Precision: of those the check called so, how many are so. Recall: of those that are so, how many it called so.
    `missed` are ids of bad answers that passed, `accused` ids of good answers that failed.
    """

    rows: int
    hard: int
    fail_precision: Rate
    fail_recall: Rate
    pass_precision: Rate
    pass_recall: Rate
    missed: list[str]
    accused: list[str]

    @property
    def lowest(self) -> float:
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
