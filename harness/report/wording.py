"""How verdicts, metrics and numbers read; the same in HTML, Markdown, JUnit and on the terminal."""

import math
import re

from harness.core.console import plural
from harness.core.errors import ExitCode
from harness.records.gate import EXIT_CODES, Forgetting, Measured, MetricVerdict, Verdict, VerdictName

NOTHING = "–"
SENTENCES: dict[VerdictName, str] = {
    "PASS": "The candidate may replace the baseline: every requirement of the policy is met.",
    "FAIL": "The candidate must not replace the baseline: it got worse where it may not, or missed a target.",
    "INCONCLUSIVE": "The evidence is not sufficient: with this many items, harm can be neither shown nor ruled out.",
    "INVALID": "No verdict on the candidate: the evidence cannot be compared or trusted.",
}
COLUMNS = ("metric", "role", "n", "baseline", "candidate", "delta [95% interval]", "limit", "verdict")
NUMBERS = {"n", "baseline", "candidate"}

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """`text` with U+FFFD in place of characters that a terminal, XML or UTF-8 cannot carry, or that reorder text."""
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """`text`, printable, with each run of white space replaced by one space."""
    return " ".join(printable(text.replace("\r", "\n")).split())


def measured_name(metric: Measured) -> str:
    """`suite/task/metric`, with the slice where it is not the whole task: `suite/task/metric [slice]`."""
    return metric.key if metric.slice == "all" else f"{metric.key} [{metric.slice}]"


def metric_name(metric: MetricVerdict) -> str:
    """As `measured_name`, with the baseline where it is a further one."""
    name = measured_name(metric)
    return name if metric.against is None else f"{name} against {metric.against}"


def worst_first(verdict: Verdict) -> list[MetricVerdict]:
    """Metrics that decide, the worst first, else in the policy's order; then those only shown, without their slices."""
    listed = [metric for metric in verdict.metrics if metric.role != "info" or metric.slice == "all"]
    return sorted(listed, key=lambda m: (m.role == "info", -ExitCode(EXIT_CODES[m.verdict]).severity))


def slices(verdict: Verdict) -> list[MetricVerdict]:
    """Slices that are shown and decide nothing, the largest fall first."""
    shown = [metric for metric in verdict.metrics if metric.role == "info" and metric.slice != "all"]
    return sorted(shown, key=lambda m: (m.delta, metric_name(m)))


def outcome(metric: MetricVerdict) -> str:
    """The metric's verdict, `info` for one that decides nothing, `INCONCLUSIVE (waived)` for a waived one."""
    if metric.role == "info":
        return "info"
    return metric.verdict if metric.waived is None else f"{metric.verdict} (waived)"


def forgetting_text(lost: Forgetting) -> str:
    """What the suite lost, in three sentences: how many tasks fell, the largest fall, and the mean, with intervals.

    `Forgetting over 4 tasks: no task scored lower; up to 4 of 4 could still have lost ability (95%). Smallest change:
    quiz/acc +3.3 points [-2.1, +6.0]. Mean: +5.0 points [+1.2, +8.8].`
    """
    scored = "no task" if lost.fell == 0 else f"{lost.fell} of {plural(lost.tasks, 'task')}"
    low, high, tasks = lost.fell_low, lost.fell_high, lost.tasks
    if high == 0:
        truly = "none lost ability (95%)"
    elif low == 0:
        truly = f"up to {high} of {tasks} could {'still ' if lost.fell == 0 else ''}have lost ability (95%)"
    elif low == high:
        truly = f"{low} of {tasks} lost ability (95%)"
    else:
        truly = f"{low} to {high} of {tasks} lost ability (95%)"
    extreme = "Largest fall" if lost.worst_delta < 0 else "Smallest change"
    return (
        f"Forgetting over {plural(tasks, 'task')}: {scored} scored lower; {truly}. "
        f"{extreme}: {lost.worst} {_points(lost.worst_delta)} points "
        f"[{_points(lost.worst_low)}, {_points(lost.worst_high)}]. "
        f"Mean: {_points(lost.mean)} points [{_points(lost.mean_low)}, {_points(lost.mean_high)}]."
    )


def extras_text(metric: Measured) -> str:
    """Relative change, and flips beyond chance on multiple choice: `relative change -3.1% [-5.6%, -0.4%]`."""
    parts = []
    if (relative := metric.relative_drop) is not None:  # a drop is a change with the sign turned, limits swapped
        ends = (NOTHING if limit is None else _percent(-limit) for limit in (relative.high, relative.low))
        parts.append(f"relative change {_percent(-relative.drop)} [{', '.join(ends)}]")
    if (beyond := metric.beyond_chance) is not None:
        parts.append(
            f"flips beyond chance: {100 * beyond.forgetting:.1f}% forgotten "
            f"[{100 * beyond.forgetting_low:.1f}%, {100 * beyond.forgetting_high:.1f}%], "
            f"{100 * beyond.transfer:.1f}% gained [{100 * beyond.transfer_low:.1f}%, {100 * beyond.transfer_high:.1f}%]"
        )
    return "; ".join(parts)


def is_share(metric: Measured) -> bool:
    """Whether the metric reads as a percentage: its items are right or wrong, or its means lie between 0 and 1."""
    return metric.only_baseline_right is not None or all(0 <= x <= 1 for x in (metric.baseline, metric.candidate))


def value_text(metric: Measured, value: float) -> str:
    """A mean of this metric: `63.4%`, or four significant digits."""
    if not math.isfinite(value):
        return "not a number"
    return f"{100 * value:.1f}%" if is_share(metric) else f"{value:.4g}"


def difference_text(metric: Measured, value: float) -> str:
    """A signed difference of this metric: `-2.1 points` (percentage points), or four significant digits."""
    return f"{_signed(metric, value)} points" if is_share(metric) else _signed(metric, value)


def interval_text(metric: Measured) -> str:
    """The 95% interval of the difference, in the unit of `difference_text`: `[-4.0, -0.2]`, marked where doubtful."""
    interval = f"[{_signed(metric, metric.ci_low)}, {_signed(metric, metric.ci_high)}]"
    return f"{interval} (few items: not to be trusted)" if metric.interval_doubt else interval


def limit_text(metric: MetricVerdict) -> str:
    """What the policy demands: `margin 2.0 points`, `improve by 2.0 points`, `floor 90.0%`."""
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
    """Items that changed: `12 worse, 5 better`."""
    if metric.only_baseline_right is None or metric.only_candidate_right is None:
        return NOTHING
    return f"{metric.only_baseline_right} worse, {metric.only_candidate_right} better"


def cells(metric: MetricVerdict) -> tuple[str, ...]:
    """A text for each of COLUMNS, not escaped."""
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


def _percent(share: float) -> str:
    return f"{_points(share)}%"


def _signed(metric: Measured, value: float) -> str:
    if not math.isfinite(value):
        return "unknown"
    if is_share(metric):
        return f"{round(100 * value, 1) + 0.0:+.1f}"  # + 0.0 turns -0.0 into 0.0
    return f"{value + 0.0:+.4g}"
