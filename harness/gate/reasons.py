"""The wording of a verdict's reasons: how far a metric moved, and the evidence for it."""

from harness.config.gate import RuleConfig
from harness.core.console import plural
from harness.records.gate import MetricComparison


def amount(share: float, width: float) -> str:
    """A difference, given as a share of the metric's range: '2.1 points' for a range of 1, else in its own unit."""
    return f"{100 * share:.1f} points" if width == 1 else f"{share * width:.4g}"


def change(metric: MetricComparison, name: str, width: float) -> str:
    """'gsm8k fell by 2.1 points'; where lower is better, it also says which of the two is better."""
    size = abs(metric.candidate - metric.baseline) / width
    if not metric.delta:
        return f"{name} did not change"
    verb = "rose" if metric.candidate > metric.baseline else "fell"
    judged = {("rose", "lower"): ", which is worse", ("fell", "lower"): ", which is better"}
    return f"{name} {verb} by {amount(size, width)}{judged.get((verb, metric.direction), '')}"


def facts(metric: MetricComparison, width: float) -> str:
    """'95% interval −3.4 to −0.8 points; 41 of 1319 items got worse, 12 got better'."""
    low, high = (_signed(limit / width, width) for limit in (metric.ci_low, metric.ci_high))
    text = f"95% interval {low} to {high}" + (" points" if width == 1 else "")
    text += f" ({metric.interval_doubt})" if metric.interval_doubt else ""
    if metric.only_baseline_right is None:
        text += f" on {plural(metric.n, 'item')}"
    else:
        lost, gained = metric.only_baseline_right, metric.only_candidate_right
        text += f"; {lost} of {plural(metric.n, 'item')} got worse, {gained} got better"
    return f"{text}, clustered by {metric.clustered_by}" if metric.clustered_by else text


def value(share: float, rule: RuleConfig) -> str:
    """A mean in the metric's own unit. `share` is its share of the rule's range, counted from the end that is worse."""
    from_lowest = 1 - share if rule.ceiling is not None else share
    return f"{from_lowest:.1%}" if rule.range == (0.0, 1.0) else f"{rule.range[0] + from_lowest * rule.width:.4g}"


def needs(needed: int | None, n: int) -> str:
    """'; needs about 29 items in all (25 more)'; '' where the number is not known."""
    if not needed:
        return ""
    return f"; needs about {needed:,} items in all ({needed - n:,} more)" if needed > n else "; needs more items"


def _signed(share: float, width: float) -> str:
    text = f"{100 * share:.1f}" if width == 1 else f"{share * width:.4g}"
    return text.replace("-", "−")
