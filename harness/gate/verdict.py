"""Policy × comparison → verdict: non-inferiority, else harm, else undecided."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from harness.config import GateConfig, RuleConfig
from harness.records import EXIT_CODES, Comparison, MetricComparison, MetricVerdict, Verdict, VerdictName
from harness.stats.continuous import harm_p_continuous, noninferiority_p_continuous
from harness.stats.multiple import holm
from harness.stats.paired import mcnemar_midp_harm, noninferiority_p
from harness.stats.power import n_for_floor, n_for_noninferiority
from harness.stats.proportion import wilson_lower, wilson_upper

SEED = 0
SEVERITY: list[VerdictName] = ["PASS", "INCONCLUSIVE", "FAIL", "INVALID"]


def decide(policy: GateConfig, comparison: Comparison) -> Verdict:
    """The verdict on a comparison. Whatever makes the evidence unusable is INVALID, before any statistics."""
    faults = [*comparison.faults, *_unmatched(policy, comparison), *_off_scale(policy, comparison)]
    if faults:
        return _verdict(policy, comparison, "INVALID", faults, [])
    ruled = [(rule, metric) for metric in comparison.metrics if (rule := _rule_for(policy, metric)) is not None]
    adjusted = _adjusted_harm([metric for rule, metric in ruled if rule.role == "guard"])
    metrics = [_decide_metric(policy, rule, metric, adjusted.get(metric.key)) for rule, metric in ruled]
    gated = [metric for metric in metrics if metric.role != "info"]
    worst = max((metric.verdict for metric in gated), key=SEVERITY.index)
    reasons = [metric.reason for metric in gated if metric.verdict == worst]
    return _verdict(policy, comparison, worst, reasons, metrics)


def _verdict(
    policy: GateConfig,
    comparison: Comparison,
    verdict: VerdictName,
    reasons: Sequence[str],
    metrics: Sequence[MetricVerdict],
) -> Verdict:
    return Verdict(
        verdict=verdict,
        exit_code=EXIT_CODES[verdict],
        policy=policy.name,
        reasons=list(reasons),
        baseline=comparison.baseline,
        candidate=comparison.candidate,
        metrics=list(metrics),
    )


def _rule_for(policy: GateConfig, metric: MetricComparison) -> RuleConfig | None:
    """The first rule that matches."""
    return next((rule for rule in policy.rules if fnmatchcase(metric.key, rule.metric)), None)


def _unmatched(policy: GateConfig, comparison: Comparison) -> list[str]:
    """A rule without a metric, or a required role without a rule that found one: a missing metric never passes."""
    keys = [metric.key for metric in comparison.metrics]
    faults = [
        f"policy {policy.name}: no metric matches the {rule.role} rule '{rule.metric}'; it was not measured"
        for rule in policy.rules
        if not rule.optional and not any(fnmatchcase(key, rule.metric) for key in keys)
    ]
    roles = {rule.role for metric in comparison.metrics if (rule := _rule_for(policy, metric)) is not None}
    faults += [
        f"policy {policy.name} demands a {role}, and none was measured" for role in policy.require if role not in roles
    ]
    return faults if roles & {"guard", "target"} else [*faults, "no metric was gated at all"]


def _off_scale(policy: GateConfig, comparison: Comparison) -> list[str]:
    """Margins and floors are shares: a metric on another scale cannot be judged by them."""
    faults = []
    for metric in comparison.metrics:
        rule = _rule_for(policy, metric)
        if rule is None or rule.role == "info":
            continue
        lowest = 0.0 if rule.floor is not None else -1.0
        values = [metric.baseline, metric.candidate]
        if not all(lowest <= value <= 1 for value in values) or any(abs(d) > 1 for d in metric.differences or []):
            faults.append(f"{metric.key} is not a share between 0 and 1: margins and floors do not apply to it")
        elif metric.differences is not None and metric.n < 2:
            faults.append(f"{metric.key} was measured on a single item")
    return faults


def _adjusted_harm(guards: Sequence[MetricComparison]) -> dict[str, float]:
    """p-values of harm over all guards, Holm-adjusted: a false alarm becomes no likelier with more guards."""
    return dict(zip([m.key for m in guards], holm([_harm_p(m) for m in guards]), strict=True))


def _decide_metric(
    policy: GateConfig, rule: RuleConfig, metric: MetricComparison, p_harm: float | None
) -> MetricVerdict:
    if rule.role == "guard":
        return _guard(policy, rule, metric, p_harm if p_harm is not None else 1.0)
    if rule.role == "target":
        return _target(policy, rule, metric)
    return _line(rule, metric, "PASS", f"{metric.key}: shown for information")


def _guard(policy: GateConfig, rule: RuleConfig, metric: MetricComparison, p_harm: float) -> MetricVerdict:
    """Non-inferior → PASS; else harmed → FAIL; else INCONCLUSIVE with the n that would decide."""
    margin = rule.margin or 0.0
    p_noninferior = _noninferiority_p(metric, margin)
    needed = None
    if p_noninferior <= policy.alpha_pass:
        verdict: VerdictName = "PASS"
        judged = f"a loss of {_points(margin)} points or more is ruled out"
        if _harm_p(metric) <= policy.alpha_fail:
            judged += "; tolerated regression: the fall is real, and inside the margin"
    elif p_harm <= policy.alpha_fail:
        verdict, judged = "FAIL", f"the policy tolerates {_points(margin)}"
    else:
        verdict = "INCONCLUSIVE"
        needed = _n_needed(policy, metric, margin)
        judged = f"not enough evidence to rule out a loss of {_points(margin)} points"
        judged += f"; about {needed} items would decide" if needed else ""
    return _line(rule, metric, verdict, f"{_change(metric)}; {judged}", p_noninferior, p_harm, needed)


def _target(policy: GateConfig, rule: RuleConfig, metric: MetricComparison) -> MetricVerdict:
    """A floor is met when the one-sided lower bound reaches it; a margin when the gain surely exceeds it."""
    parts = []
    needed = None
    if rule.floor is not None:
        verdict, judged, needed = _floor(policy, rule.floor, metric)
        parts.append((verdict, judged))
    if rule.margin is not None:
        parts.append(_improvement(policy, rule.margin, metric))
    verdict = max((name for name, _ in parts), key=SEVERITY.index)
    reason = f"{metric.key} is {metric.candidate:.1%} on {metric.n} items: " + "; ".join(text for _, text in parts)
    return _line(rule, metric, verdict, reason, needed=needed if verdict == "INCONCLUSIVE" else None)


def _floor(policy: GateConfig, floor: float, metric: MetricComparison) -> tuple[VerdictName, str, int | None]:
    right = round(metric.candidate * metric.n)
    low = wilson_lower(right, metric.n, policy.alpha_pass)
    if low >= floor:
        return "PASS", f"surely at least {floor:.1%} (lower bound {low:.1%})", None
    high = wilson_upper(right, metric.n, policy.alpha_fail)
    if high < floor:
        return "FAIL", f"surely below the floor of {floor:.1%} (upper bound {high:.1%})", None
    needed = n_for_floor(metric.candidate, floor, policy.alpha_pass, policy.power)
    tail = f"; about {needed} items would decide" if needed else ""
    return "INCONCLUSIVE", f"between {low:.1%} and {high:.1%}, the floor is {floor:.1%}{tail}", needed


def _improvement(policy: GateConfig, margin: float, metric: MetricComparison) -> tuple[VerdictName, str]:
    if metric.ci_low >= margin:
        return "PASS", f"improved by {_points(metric.delta)} points, surely at least {_points(margin)}"
    if metric.ci_high < margin:
        return "FAIL", f"improved by {_points(metric.delta)} points, less than the {_points(margin)} demanded"
    return "INCONCLUSIVE", f"improved by {_points(metric.delta)} points; {_points(margin)} are demanded"


def _noninferiority_p(metric: MetricComparison, margin: float) -> float:
    if metric.differences is not None:
        return noninferiority_p_continuous(np.array(metric.differences), margin, SEED)
    return noninferiority_p(metric.only_baseline_right or 0, metric.only_candidate_right or 0, metric.n, margin)


def _harm_p(metric: MetricComparison) -> float:
    if metric.differences is not None:
        return harm_p_continuous(np.array(metric.differences), SEED)
    return mcnemar_midp_harm(metric.only_baseline_right or 0, metric.only_candidate_right or 0)


def _n_needed(policy: GateConfig, metric: MetricComparison, margin: float) -> int | None:
    """Items for the planned power at the observed discordance, if the models are in truth equal."""
    if metric.differences is not None:
        spread = float(np.var(metric.differences))
    else:
        spread = ((metric.only_baseline_right or 0) + (metric.only_candidate_right or 0)) / metric.n
    return n_for_noninferiority(margin, spread, policy.alpha_pass, policy.power)


def _line(
    rule: RuleConfig,
    metric: MetricComparison,
    verdict: VerdictName,
    reason: str,
    p_noninferior: float | None = None,
    p_harm: float | None = None,
    needed: int | None = None,
) -> MetricVerdict:
    shared = metric.model_dump(exclude={"differences"})
    return MetricVerdict(
        **shared,
        role=rule.role,
        margin=rule.margin,
        floor=rule.floor,
        p_noninferior=p_noninferior,
        p_harm=p_harm,
        verdict=verdict,
        reason=reason,
        n_needed=needed,
    )


def _change(metric: MetricComparison) -> str:
    """'gsm8k fell by 2.1 points (95% interval -3.4 to -0.8; 41 items got worse, 12 better)'."""
    verb = "fell" if metric.delta < 0 else "rose"
    text = (
        f"{metric.key} {verb} by {_points(abs(metric.delta))} points"
        if metric.delta
        else f"{metric.key} did not change"
    )
    interval = f"95% interval {_points(metric.ci_low)} to {_points(metric.ci_high)}"
    if metric.only_baseline_right is None:
        return f"{text} ({interval})"
    return (
        f"{text} ({interval}; {metric.only_baseline_right} items got worse, "
        f"{metric.only_candidate_right} better, of {metric.n})"
    )


def _points(share: float) -> str:
    return f"{100 * share:.1f}"
