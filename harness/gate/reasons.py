"""What was found and why it decides, in plain words."""

from harness.config.gate import RuleConfig
from harness.records.gate import MetricComparison


def amount(share: float, width: float) -> str:
    """A difference as a share of a metric's range: percentage points of a share, else in the metric's own unit."""
    return f"{100 * share:.1f} points" if width == 1 else f"{share * width:.4g}"


def change(metric: MetricComparison, name: str, width: float) -> str:
    """'gsm8k fell by 2.1 points': better or worse, whichever way the metric counts."""
    size = abs(metric.candidate - metric.baseline) / width
    if not metric.delta:
        return f"{name} did not change"
    verb = "rose" if (metric.candidate > metric.baseline) else "fell"
    good = {("rose", "lower"): ", which is worse", ("fell", "lower"): ", which is better"}.get(
        (verb, metric.direction), ""
    )
    return f"{name} {verb} by {amount(size, width)}{good}"


def facts(metric: MetricComparison, width: float) -> str:
    """'95% interval −3.4 to −0.8; 41 items got worse, 12 better, of 1319'."""
    low, high = (_signed(limit / width, width) for limit in (metric.ci_low, metric.ci_high))
    told = f"95% interval {low} to {high}" + (f" ({metric.interval_doubt})" if metric.interval_doubt else "")
    if metric.only_baseline_right is None:
        told += f" on {metric.n} items"
    else:
        lost, gained = metric.only_baseline_right, metric.only_candidate_right
        told += f"; {lost} items got worse, {gained} better, of {metric.n}"
    return f"{told}, clustered by {metric.clustered_by}" if metric.clustered_by else told


def value(share: float, rule: RuleConfig) -> str:
    """A mean given as a share of the rule's range, turned so that larger is better, in the metric's own unit."""
    turned = 1 - share if rule.ceiling is not None else share
    return f"{turned:.1%}" if rule.range == (0.0, 1.0) else f"{rule.range[0] + turned * rule.width:.4g}"


def items(needed: int | None) -> str:
    return f"; about {needed:,} items would decide" if needed else ""


def _signed(share: float, width: float) -> str:
    text = f"{100 * share:.1f}" if width == 1 else f"{share * width:.4g}"
    return text.replace("-", "−")
