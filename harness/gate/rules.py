"""Applies one rule, a guard or a target, to one metric: the verdict on it and the reason in words."""

import math
from dataclasses import dataclass

from harness.config.gate import GateConfig, RuleConfig
from harness.core.console import plural
from harness.gate.sequential import LookProgress, looks_at, settled
from harness.gate.significance import floor_bounds, gain_p, items_for_floor, items_to_decide, pass_p, shortfall_p
from harness.records.gate import Comparison, MetricComparison, MetricVerdict, VerdictName

SHARED = frozenset(MetricComparison.model_fields)


@dataclass(frozen=True, eq=False)
class RuledMetric:
    """A deciding rule and a metric it speaks for; `against` names a baseline that is not the verdict's own."""

    rule: RuleConfig
    metric: MetricComparison
    against: str | None
    comparison: Comparison

    @property
    def name(self) -> str:
        name = self.metric.key if self.metric.slice == "all" else f"{self.metric.key} [{self.metric.slice}]"
        return name if self.against is None else f"{name} against {self.against}"


@dataclass(frozen=True)
class Levels:
    """The levels that one metric's p-values are compared with.

    `passing` is the level of non-inferiority. `failing` is the level of harm, for `p_harm`, which is adjusted for the
    number of guards; `p_harm_raw` is not. `look` counts from 1 and is None without interim looks; at a look,
    `guards` guards share the level of harm.
    """

    passing: float
    failing: float
    p_harm: float
    p_harm_raw: float
    look: int | None
    guards: int = 1

    @classmethod
    def of(
        cls, policy: GateConfig, one: RuledMetric, guards: int, raw: float | None, adjusted: float | None
    ) -> "Levels":
        p_raw = 1.0 if raw is None else raw
        if policy.sequential is None:
            passing, failing = policy.pass_level(one.rule.alpha), one.rule.alpha or policy.alpha_fail
            return cls(passing, failing, 1.0 if adjusted is None else adjusted, p_raw, None)
        early = one.comparison.stopped.get(one.metric.task)
        share = guards if one.rule.role == "guard" else 1
        plan = looks_at(policy, early.planned if early else one.metric.n, share, one.rule.alpha)
        look = plan.counts.index(early.items) if early else len(plan.counts) - 1
        return cls(plan.pass_levels[look], plan.fail_levels[look], p_raw, p_raw, look + 1, share)


def apply_rule(policy: GateConfig, one: RuledMetric, levels: Levels) -> MetricVerdict:
    """The verdict's line for this rule and metric. A sample smaller than the policy's minimum never passes."""
    line = _guard(policy, one, levels) if one.rule.role == "guard" else _target(policy, one, levels)
    minimum = one.rule.minimum_n or policy.minimum_n
    if one.metric.n < minimum and line.verdict == "PASS":
        reason = f"{line.reason}; the policy requires at least {minimum} items"
        line = line.model_copy(update={"verdict": "INCONCLUSIVE", "reason": reason, "n_needed": minimum})
    early = one.comparison.stopped.get(one.metric.task)
    if line.verdict != "INCONCLUSIVE" or early is None:
        return line
    if settled(policy, one.rule, LookProgress.of(one.metric, early.planned), levels.guards):
        return line
    # The evaluation stopped too early for this rule: its looks counted fewer guards or other baselines.
    why = (
        f"the evaluation stopped after {early.items} of {early.planned} items before this was decided: name every "
        "baseline in the policy before the candidate is evaluated, or evaluate the candidate on all items"
    )
    return line.model_copy(update={"reason": f"{line.reason}; {why}"})


def _guard(policy: GateConfig, one: RuledMetric, levels: Levels) -> MetricVerdict:
    """Non-inferior: PASS. Else worse: FAIL. Else INCONCLUSIVE, with the number of items that would decide."""
    metric, width = one.metric, one.rule.width
    margin = one.rule.margin_of(metric.reference) or 0.0
    p_pass = pass_p(metric, margin, width)
    tolerated = amount(margin, width)
    judged = f"the policy tolerates {tolerated}"
    needed = None
    if p_pass <= levels.passing:
        verdict: VerdictName = "PASS"
        judged += f"; a loss of {tolerated} or more is ruled out"
        if levels.p_harm_raw <= levels.failing:
            judged += "; tolerated regression: the fall is significant, but within the margin"
    elif levels.p_harm <= levels.failing:
        verdict = "FAIL"
    else:
        verdict = "INCONCLUSIVE"
        needed = items_to_decide(metric, margin, width, levels.passing, one.rule.power or policy.power)
        judged += f"; not enough evidence to rule out such a loss{needs(needed, metric)}"
    reason = f"{change(metric, one.name, width)}; {judged}; {facts(metric, width)}"
    return _line(one, levels, verdict, reason, p_pass, levels.p_harm, needed)


def _target(policy: GateConfig, one: RuledMetric, levels: Levels) -> MetricVerdict:
    """A floor is met when the one-sided lower bound reaches it; a margin when the test shows a gain of more than it."""
    parts: list[tuple[VerdictName, str, int | None]] = []
    if one.rule.floor is not None or one.rule.ceiling is not None:
        parts.append(_floor(policy, one, levels))
    if one.rule.margin is not None:
        parts.append(_improvement(one, levels))
    verdict = max((name for name, _, _ in parts), key=["PASS", "INCONCLUSIVE", "FAIL"].index)
    share = (one.metric.candidate - one.rule.range[0]) / one.rule.width
    shown = value(1 - share if one.rule.ceiling is not None else share, one.rule)
    reason = f"{one.name} is {shown} on {plural(one.metric.n, 'item')}: " + "; ".join(text for _, text, _ in parts)
    needed = max((n for _, _, n in parts if n), default=None) if verdict == "INCONCLUSIVE" else None
    return _line(one, levels, verdict, reason, None, None, needed)


def _floor(policy: GateConfig, one: RuledMetric, levels: Levels) -> tuple[VerdictName, str, int | None]:
    """Shares are counted from the worse end of the range, so a ceiling becomes a floor."""
    rule, metric = one.rule, one.metric
    limit = rule.floor if rule.floor is not None else rule.ceiling or 0.0
    floor = (limit - rule.range[0]) / rule.width
    floor = floor if rule.floor is not None else 1 - floor
    low, high = floor_bounds(metric, rule.range[0], rule.width, (levels.passing, levels.failing))
    worst, best, limit_text = (value(share, rule) for share in (low, high, floor))
    is_floor = rule.floor is not None
    name = f"the floor of {limit_text}" if is_floor else f"the ceiling of {limit_text}"
    if low >= floor:
        outcome = f"reaches {name} (lower bound {worst})" if is_floor else f"stays under {name} (upper bound {worst})"
        return "PASS", outcome, None
    if high < floor:
        outcome = f"misses {name} (upper bound {best})" if is_floor else f"exceeds {name} (lower bound {best})"
        return "FAIL", outcome, None
    share = (metric.candidate - rule.range[0]) / rule.width
    share = share if is_floor else 1 - share
    needed = None
    if 0 < floor < 1:
        needed = items_for_floor(metric, share, floor, rule.width, levels.passing, rule.power or policy.power)
    between = f"{worst} and {best}" if is_floor else f"{best} and {worst}"
    text = f"{name} lies between the bounds {between}{needs(needed, metric)}"
    return "INCONCLUSIVE", text, needed


def _improvement(one: RuledMetric, levels: Levels) -> tuple[VerdictName, str, int | None]:
    metric, width = one.metric, one.rule.width
    margin = one.rule.margin_of(metric.reference) or 0.0
    size = amount(abs(metric.delta) / width, width)
    moved = f"improved by {size}" if metric.delta > 0 else f"got worse by {size}" if metric.delta else "did not change"
    demanded = amount(margin, width)
    if gain_p(metric, margin, width) <= levels.passing:
        return "PASS", f"{moved}; a gain of more than {demanded} is shown", None
    if shortfall_p(metric, margin, width) <= levels.failing:
        return "FAIL", f"{moved}; the policy demands {demanded}, and a gain that large is ruled out", None
    return (
        "INCONCLUSIVE",
        f"{moved}; the policy demands {demanded}, and such a gain is neither shown nor ruled out",
        None,
    )


def _line(
    one: RuledMetric,
    levels: Levels,
    verdict: VerdictName,
    reason: str,
    p_noninferior: float | None,
    p_harm: float | None,
    needed: int | None,
) -> MetricVerdict:
    margin = one.rule.margin_of(one.metric.reference)
    measured = {name: getattr(one.metric, name) for name in MetricVerdict.model_fields if name in SHARED}
    if (share := one.comparison.flip_share.get(one.metric.task)) is not None:
        reason += f"; an identical model flips {share:.1%} of these items (repeat check)"
    if levels.look is not None:
        reason += f"; decided at look {levels.look}"
    return MetricVerdict(
        **measured, role=one.rule.role, margin=None if margin is None else margin * one.rule.width,
        floor=one.rule.floor, ceiling=one.rule.ceiling, p_noninferior=p_noninferior, p_harm=p_harm, verdict=verdict,
        reason=reason, n_needed=needed, against=one.against, look=levels.look,
    )  # fmt: skip


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
    shares = (metric.ci_low / width, metric.ci_high / width)
    ends = (f"{100 * share:.1f}" if width == 1 else f"{share * width:.4g}" for share in shares)
    low, high = (end.replace("-", "−") for end in ends)
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


def needs(needed: int | None, metric: MetricComparison) -> str:
    """'; needs about 29 items in all (25 more)', or so many clusters; '' where the number is not known."""
    if not needed:
        return ""
    if metric.clusters is None:
        more = needed - metric.n
        return f"; needs about {needed:,} items in all ({more:,} more)" if more > 0 else "; needs more items"
    there = len(set(metric.clusters))
    groups = max(there + 1, math.floor(needed * there / metric.n + 1e-9))
    return f"; needs about {groups:,} clusters of {metric.clustered_by} in all ({groups - there:,} more)"
