"""How numbers and verdicts read, the same in HTML, Markdown, JUnit and on the terminal."""

import math
import re

from harness.core.errors import ExitCode
from harness.records.gate import EXIT_CODES, Forgetting, Measured, MetricVerdict, Verdict, VerdictName

NOTHING = "–"
SENTENCES: dict[VerdictName, str] = {
    "PASS": "The candidate may replace the baseline: every requirement of the policy is met.",
    "FAIL": "The candidate must not replace the baseline: it got worse where it may not, or missed a target.",
    "INCONCLUSIVE": "The evidence does not decide: neither harm nor its absence is shown at this sample size.",
    "INVALID": "No verdict on the candidate: the evidence cannot be compared or trusted.",
}
COLUMNS = ("metric", "role", "n", "baseline", "candidate", "delta [95% interval]", "limit", "verdict")
NUMBERS = {"n", "baseline", "candidate"}

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` with U+FFFD for what a terminal, XML or UTF-8 cannot carry, and for marks that reorder text."""
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """`text` printable and with every run of white space as one space."""
    return " ".join(printable(text.replace("\r", "\n")).split())


def measured_name(metric: Measured) -> str:
    return metric.key if metric.slice == "all" else f"{metric.key} [{metric.slice}]"


def metric_name(metric: MetricVerdict) -> str:
    """`suite/task/metric`, with the slice when it is not the whole task and the baseline when it is a further one."""
    name = measured_name(metric)
    return name if metric.against is None else f"{name} against {metric.against}"


def worst_first(verdict: Verdict) -> list[MetricVerdict]:
    """Metrics that decide before information, the worst first, otherwise in the policy's order; no slices for show."""
    listed = [metric for metric in verdict.metrics if metric.role != "info" or metric.slice == "all"]
    return sorted(listed, key=lambda m: (m.role == "info", -ExitCode(EXIT_CODES[m.verdict]).severity))


def slices(verdict: Verdict) -> list[MetricVerdict]:
    """Slices that are shown and decide nothing, those that fell most first."""
    shown = [metric for metric in verdict.metrics if metric.role == "info" and metric.slice != "all"]
    return sorted(shown, key=lambda m: (m.delta, metric_name(m)))


def outcome(metric: MetricVerdict) -> str:
    """The verdict in one word; information has none, and a waived one says so."""
    if metric.role == "info":
        return "info"
    return metric.verdict if metric.waived is None else f"{metric.verdict} (waived)"


def forgetting_text(verdict: Verdict) -> str | None:
    return None if verdict.forgetting is None else forgetting_sentence(verdict.forgetting)


def forgetting_sentence(found: Forgetting) -> str:
    """What the suite lost: worst, mean and count, each with its interval."""
    worst, mean = (_points(x) for x in (found.worst_delta, found.mean))
    ends = [_points(x) for x in (found.worst_low, found.worst_high, found.mean_low, found.mean_high)]
    tasks = f"{found.tasks} task{'s' if found.tasks != 1 else ''}"
    return (
        f"Forgetting over {tasks}: worst {found.worst} {worst} [{ends[0]}, {ends[1]}], mean {mean} "
        f"[{ends[2]}, {ends[3]}] points; {found.fell} scored lower, {found.fell_low} to {found.fell_high} truly fell."
    )


def extras_text(metric: Measured) -> str:
    """Relative drop, and flips beyond chance on multiple choice: `relative drop 3.1% [0.4%, 5.6%]`."""
    told = []
    if (found := metric.relative_drop) is not None:
        low, high = (NOTHING if limit is None else f"{100 * limit + 0.0:.1f}%" for limit in (found.low, found.high))
        told.append(f"relative drop {100 * found.drop + 0.0:.1f}% [{low}, {high}]")
    if (beyond := metric.beyond_chance) is not None:
        told.append(
            f"beyond chance {100 * beyond.forgetting:.1f}% forgotten "
            f"[{100 * beyond.forgetting_low:.1f}%, {100 * beyond.forgetting_high:.1f}%], "
            f"{100 * beyond.transfer:.1f}% gained [{100 * beyond.transfer_low:.1f}%, {100 * beyond.transfer_high:.1f}%]"
        )
    return "; ".join(told)


def is_share(metric: Measured) -> bool:
    """Whether the metric reads as a percentage: right/wrong items, or means between 0 and 1."""
    return metric.only_baseline_right is not None or all(0 <= x <= 1 for x in (metric.baseline, metric.candidate))


def value_text(metric: Measured, value: float) -> str:
    """A mean of this metric: `63.4%`, or four significant digits."""
    if not math.isfinite(value):
        return "not a number"
    return f"{100 * value:.1f}%" if is_share(metric) else f"{value:.4g}"


def difference_text(metric: Measured, value: float) -> str:
    """A signed difference of this metric: `-2.1 pp` (percentage points), or four significant digits."""
    return f"{_signed(metric, value)} pp" if is_share(metric) else _signed(metric, value)


def interval_text(metric: Measured) -> str:
    """The 95% interval of the difference, in the unit of `difference_text`: `[-4.0, -0.2]`; whether to trust it."""
    found = f"[{_signed(metric, metric.ci_low)}, {_signed(metric, metric.ci_high)}]"
    return f"{found} (few items: not to be trusted)" if metric.interval_doubt else found


def limit_text(metric: MetricVerdict) -> str:
    """What the policy demands: `margin 2.0 pp`, `improve by 2.0 pp`, `floor 90.0%`."""
    limits = []
    if metric.margin is not None:
        size = difference_text(metric, metric.margin).removeprefix("+")
        limits.append(f"improve by {size}" if metric.role == "target" else f"margin {size}")
    if metric.floor is not None:
        limits.append(f"floor {value_text(metric, metric.floor)}")
    if metric.ceiling is not None:
        limits.append(f"ceiling {value_text(metric, metric.ceiling)}")
    if metric.direction == "lower":
        limits.append("lower is better")
    return ", ".join(limits) or NOTHING


def flips_text(metric: Measured) -> str:
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
        outcome(metric),
    )


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def _signed(metric: Measured, value: float) -> str:
    if not math.isfinite(value):
        return "unknown"
    if is_share(metric):
        return f"{round(100 * value, 1) + 0.0:+.1f}"  # + 0.0 turns -0.0 into 0.0
    return f"{value + 0.0:+.4g}"
