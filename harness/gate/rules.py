"""One metric under one rule: guard or target, with the reason in words."""

from dataclasses import dataclass

from harness.config.gate import GateConfig, RuleConfig
from harness.gate import reasons
from harness.gate.sequential import LookProgress, looks_at, settled
from harness.gate.significance import floor_bounds, gain_p, items_for_floor, items_to_decide, pass_p, shortfall_p
from harness.records.gate import Comparison, MetricComparison, MetricVerdict, VerdictName


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
    """Error rates of one decision; `p_harm` is comparable with `failing`. `look` counts from 1, None without looks;
    `guards` share the level of harm there."""

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
            passing, failing = one.rule.alpha or policy.alpha_pass, one.rule.alpha or policy.alpha_fail
            return cls(passing, failing, 1.0 if adjusted is None else adjusted, p_raw, None)
        early = one.comparison.stopped.get(one.metric.task)
        share = guards if one.rule.role == "guard" else 1
        plan = looks_at(policy, early.planned if early else one.metric.n, share, one.rule.alpha)
        look = plan.counts.index(early.items) if early else len(plan.counts) - 1
        return cls(plan.pass_levels[look], plan.fail_levels[look], p_raw, p_raw, look + 1, share)


def apply_rule(policy: GateConfig, one: RuledMetric, levels: Levels) -> MetricVerdict:
    """The line of the verdict. A sample below the policy's minimum never passes."""
    line = _guard(policy, one, levels) if one.rule.role == "guard" else _target(policy, one, levels)
    least = one.rule.minimum_n or policy.minimum_n
    if one.metric.n < least and line.verdict == "PASS":
        told = f"{line.reason}; the policy demands at least {least} items"
        line = line.model_copy(update={"verdict": "INCONCLUSIVE", "reason": told, "n_needed": least})
    if line.verdict == "INCONCLUSIVE" and (why := _stopped_undecided(policy, one, levels)):
        line = line.model_copy(update={"reason": f"{line.reason}; {why}"})
    return line


def _stopped_undecided(policy: GateConfig, one: RuledMetric, levels: Levels) -> str | None:
    """Why the evaluation ended before this was decided, in words: its looks knew other baselines, or fewer guards."""
    early = one.comparison.stopped.get(one.metric.task)
    if early is None or settled(policy, one.rule, LookProgress.of(one.metric, early.planned), levels.guards):
        return None
    return (
        f"the evaluation stopped after {early.items} of {early.planned} items before this was decided: name every "
        "baseline in the policy before the candidate is evaluated, or evaluate it whole"
    )


def _guard(policy: GateConfig, one: RuledMetric, levels: Levels) -> MetricVerdict:
    """Non-inferior → PASS; else harmed → FAIL; else INCONCLUSIVE with the n that would decide."""
    metric, width = one.metric, one.rule.width
    margin = one.rule.margin_of(metric.reference) or 0.0
    p_pass = pass_p(metric, margin, width)
    tolerated = reasons.amount(margin, width)
    judged = f"the policy tolerates {tolerated.removesuffix(' points') if metric.delta < 0 else tolerated}"
    needed = None
    if p_pass <= levels.passing:
        verdict: VerdictName = "PASS"
        judged += f"; a loss of {tolerated} or more is ruled out"
        if levels.p_harm_raw <= levels.failing:
            judged += "; tolerated regression: the fall is real, and inside the margin"
    elif levels.p_harm <= levels.failing:
        verdict = "FAIL"
    else:
        verdict = "INCONCLUSIVE"
        needed = items_to_decide(metric, margin, width, levels.passing, one.rule.power or policy.power)
        judged += f"; not enough evidence to rule out such a loss{reasons.items(needed)}"
    reason = f"{reasons.change(metric, one.name, width)}; {judged}; {reasons.facts(metric, width)}"
    return _line(one, levels, verdict, reason, p_pass, levels.p_harm, needed)


def _target(policy: GateConfig, one: RuledMetric, levels: Levels) -> MetricVerdict:
    """A floor is met when the one-sided lower bound reaches it; a margin when the gain surely exceeds it."""
    parts: list[tuple[VerdictName, str, int | None]] = []
    if one.rule.floor is not None or one.rule.ceiling is not None:
        parts.append(_floor(policy, one, levels))
    if one.rule.margin is not None:
        parts.append(_improvement(one, levels))
    verdict = max((name for name, _, _ in parts), key=["PASS", "INCONCLUSIVE", "FAIL"].index)
    share = (one.metric.candidate - one.rule.range[0]) / one.rule.width
    shown = reasons.value(1 - share if one.rule.ceiling is not None else share, one.rule)
    reason = f"{one.name} is {shown} on {one.metric.n} items: " + "; ".join(text for _, text, _ in parts)
    needed = max((n for _, _, n in parts if n), default=None) if verdict == "INCONCLUSIVE" else None
    return _line(one, levels, verdict, reason, None, None, needed)


def _floor(policy: GateConfig, one: RuledMetric, levels: Levels) -> tuple[VerdictName, str, int | None]:
    """Turned so that larger is better: a ceiling is a floor of what is left of the range."""
    rule, metric = one.rule, one.metric
    limit = rule.floor if rule.floor is not None else rule.ceiling or 0.0
    floor = (limit - rule.range[0]) / rule.width
    floor = floor if rule.floor is not None else 1 - floor
    low, high = floor_bounds(metric, rule.range[0], rule.width, (levels.passing, levels.failing))
    word, beyond = ("floor", ("at least", "below")) if rule.floor is not None else ("ceiling", ("at most", "above"))
    least, most, wanted = (reasons.value(share, rule) for share in (low, high, floor))
    if low >= floor:
        return "PASS", f"surely {beyond[0]} {wanted} (bound {least})", None
    if high < floor:
        return "FAIL", f"surely {beyond[1]} the {word} of {wanted} (bound {most})", None
    share = (metric.candidate - rule.range[0]) / rule.width
    share = share if rule.floor is not None else 1 - share
    needed = _items_for(share, floor, levels.passing, rule.power or policy.power)
    between = f"{least} and {most}" if rule.floor is not None else f"{most} and {least}"
    return "INCONCLUSIVE", f"between {between}, the {word} is {wanted}{reasons.items(needed)}", needed


def _items_for(share: float, floor: float, alpha: float, power: float) -> int | None:
    return items_for_floor(share, floor, alpha, power) if 0 < floor < 1 and share != floor else None


def _improvement(one: RuledMetric, levels: Levels) -> tuple[VerdictName, str, int | None]:
    metric, width = one.metric, one.rule.width
    margin = one.rule.margin_of(metric.reference) or 0.0
    gained = f"improved by {reasons.amount(metric.delta / width, width)}"
    demanded = reasons.amount(margin, width)
    if gain_p(metric, margin, width) <= levels.passing:
        return "PASS", f"{gained}, surely at least {demanded}", None
    if shortfall_p(metric, margin, width) <= levels.failing:
        return "FAIL", f"{gained}, less than the {demanded} demanded", None
    return "INCONCLUSIVE", f"{gained}; {demanded} are demanded", None


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
        reason += f"; an identical model flips {share:.1%} of these items"
    if levels.look is not None:
        reason += f"; decided at look {levels.look}"
    return MetricVerdict(
        **measured, role=one.rule.role, margin=None if margin is None else margin * one.rule.width,
        floor=one.rule.floor, ceiling=one.rule.ceiling, p_noninferior=p_noninferior, p_harm=p_harm, verdict=verdict,
        reason=reason, n_needed=needed, against=one.against, look=levels.look,
    )  # fmt: skip


SHARED = frozenset(MetricComparison.model_fields)
