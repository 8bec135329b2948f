"""How numbers and verdicts read, the same in HTML, Markdown, JUnit and on the terminal."""

import math
import re

from harness.records import MetricVerdict, Verdict, VerdictName

NOTHING = "–"
SENTENCES: dict[VerdictName, str] = {
    "PASS": "The candidate may replace the baseline: every requirement of the policy is met.",
    "FAIL": "The candidate must not replace the baseline: it got worse where it may not, or missed a target.",
    "INCONCLUSIVE": "The evidence does not decide: neither harm nor its absence is shown at this sample size.",
    "INVALID": "No verdict on the candidate: the evidence cannot be compared or trusted.",
}
COLUMNS = ("metric", "role", "n", "baseline", "candidate", "delta [95% interval]", "limit", "verdict")
NUMBERS = {"n", "baseline", "candidate"}
WORST_FIRST: dict[VerdictName, int] = {"INVALID": 0, "FAIL": 1, "INCONCLUSIVE": 2, "PASS": 3}

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` with U+FFFD for what a terminal, XML or UTF-8 cannot carry, and for marks that reorder text."""
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """`text` printable and with every run of white space as one space."""
    return " ".join(printable(text.replace("\r", "\n")).split())


def metric_name(metric: MetricVerdict) -> str:
    """`suite/task/metric`, with the slice when it is not the whole task."""
    name = f"{metric.suite}/{metric.task}/{metric.metric}"
    return name if metric.slice == "all" else f"{name} [{metric.slice}]"


def worst_first(verdict: Verdict) -> list[MetricVerdict]:
    """Metrics that decide before information, the worst first, otherwise in the policy's order."""
    return sorted(verdict.metrics, key=lambda m: (m.role == "info", WORST_FIRST[m.verdict]))


def is_share(metric: MetricVerdict) -> bool:
    """Whether the metric reads as a percentage: right/wrong items, or means between 0 and 1."""
    return metric.only_baseline_right is not None or all(0 <= x <= 1 for x in (metric.baseline, metric.candidate))


def value_text(metric: MetricVerdict, value: float) -> str:
    """A mean of this metric: `63.4%`, or four significant digits."""
    if not math.isfinite(value):
        return "not a number"
    return f"{100 * value:.1f}%" if is_share(metric) else f"{value:.4g}"


def difference_text(metric: MetricVerdict, value: float) -> str:
    """A signed difference of this metric: `-2.1 pp` (percentage points), or four significant digits."""
    return f"{_signed(metric, value)} pp" if is_share(metric) else _signed(metric, value)


def interval_text(metric: MetricVerdict) -> str:
    """The 95% interval of the difference, in the unit of `difference_text`: `[-4.0, -0.2]`."""
    return f"[{_signed(metric, metric.ci_low)}, {_signed(metric, metric.ci_high)}]"


def limit_text(metric: MetricVerdict) -> str:
    """What the policy demands: `margin 2.0 pp`, `improve by 2.0 pp`, `floor 90.0%`."""
    limits = []
    if metric.margin is not None:
        size = difference_text(metric, metric.margin).removeprefix("+")
        limits.append(f"improve by {size}" if metric.role == "target" else f"margin {size}")
    if metric.floor is not None:
        limits.append(f"floor {value_text(metric, metric.floor)}")
    return ", ".join(limits) or NOTHING


def flips_text(metric: MetricVerdict) -> str:
    """Items lost and won: `12 worse, 5 better`."""
    if metric.only_baseline_right is None or metric.only_candidate_right is None:
        return NOTHING
    return f"{metric.only_baseline_right} worse, {metric.only_candidate_right} better"


def cells(metric: MetricVerdict) -> tuple[str, ...]:
    """One text a column of COLUMNS; none is escaped for anything."""
    return (
        one_line(metric_name(metric)),
        metric.role,
        str(metric.n),
        value_text(metric, metric.baseline),
        value_text(metric, metric.candidate),
        f"{difference_text(metric, metric.delta)} {interval_text(metric)}",
        limit_text(metric),
        "info" if metric.role == "info" else metric.verdict,
    )


def _signed(metric: MetricVerdict, value: float) -> str:
    if not math.isfinite(value):
        return "unknown"
    if is_share(metric):
        return f"{round(100 * value, 1) + 0.0:+.1f}"  # + 0.0 turns -0.0 into 0.0
    return f"{value + 0.0:+.4g}"
