"""Whether a policy can judge a comparison at all: everything that is INVALID before any statistics."""

from collections.abc import Iterator
from datetime import date

from harness.config.gate import GateConfig, RuleConfig, WaiverConfig
from harness.gate.policy import overruled, rules_for, unmatched, unsliced
from harness.gate.sequential import looks_at, needs_all
from harness.gate.significance import untestable_reason
from harness.records.gate import Comparison, MetricComparison, Waiver


def invalid_reasons(policy: GateConfig, comparison: Comparison, today: date) -> list[str]:
    """Every reason, in words; none means that the verdict rests on statistics alone."""
    faults = [*comparison.faults, *_not_measured(policy, comparison, today), *overruled(policy, comparison.metrics)]
    faults += unsliced(policy, comparison.metrics)
    for metric in comparison.metrics:
        for rule in rules_for(policy, metric):
            faults += _misfits(rule, metric)
    faults += _stopped(policy, comparison)
    faults += _not_against(policy, comparison)
    for other in comparison.others:
        against = f"against {other.baseline.label}: "
        faults += [against + fault for fault in other.faults]
        faults += [against + fault for fault in _lacking(policy, comparison, other)]
    return list(dict.fromkeys(faults))


def _not_against(policy: GateConfig, comparison: Comparison) -> Iterator[str]:
    """A baseline that the policy names and nobody compared with."""
    done = {other.baseline.label for other in comparison.others} | set(comparison.same)
    for name in policy.baselines:
        if name not in done:
            yield f"policy {policy.name} tests against {name} too, and the candidate was not compared with it"


def waived_as_missing(policy: GateConfig, comparison: Comparison, today: date) -> list[Waiver]:
    """Waivers of rules whose metric was not measured."""
    return [
        Waiver(rule=rule.metric, used_for="missing", expired=today > granted.expires, **granted.model_dump())
        for rule in _unmatched(policy, comparison)
        if isinstance(granted := rule.on_missing, WaiverConfig)
    ]


def _unmatched(policy: GateConfig, comparison: Comparison) -> list[RuleConfig]:
    measured = {metric.task for metric in comparison.metrics}
    return unmatched(policy.rules, comparison.metrics, measured | set(comparison.evaluated))


def _not_measured(policy: GateConfig, comparison: Comparison, today: date) -> Iterator[str]:
    """A rule without a metric, or a required role without one: a missing metric never passes."""
    for rule in _unmatched(policy, comparison):
        told = f"policy {policy.name}: no metric matches the {rule.role} rule '{rule.metric}'; it was not measured"
        waiver = rule.on_missing
        if not isinstance(waiver, WaiverConfig):
            yield told
        elif today > waiver.expires:
            yield f"{told}, and the waiver '{waiver.name}' expired on {waiver.expires.isoformat()}"
    roles = {rule.role for metric in comparison.metrics for rule in rules_for(policy, metric)}
    for role in policy.require:
        if role not in roles:
            yield f"policy {policy.name} demands a {role}, and none was measured"
    if not roles:
        yield "no metric was gated at all"


def _lacking(policy: GateConfig, comparison: Comparison, other: Comparison) -> Iterator[str]:
    """Guards of the main comparison that a further baseline has no metric for."""
    measured = {(metric.key, metric.slice) for metric in other.metrics}
    for metric in comparison.metrics:
        guarded = any(rule.role == "guard" for rule in rules_for(policy, metric))
        if guarded and (metric.key, metric.slice) not in measured:
            yield f"the guard {metric.key} was not measured"
    for metric in other.metrics:
        for rule in rules_for(policy, metric):
            if rule.role == "guard":
                yield from _misfits(rule, metric)


def _misfits(rule: RuleConfig, metric: MetricComparison) -> Iterator[str]:
    """Why a rule cannot be held against a metric: direction, range, margin, too little to test."""
    if rule.direction is not None and rule.direction != metric.direction:
        yield f"{metric.key}: the policy says {rule.direction} is better, the task says {metric.direction}"
    elif rule.floor is not None and metric.direction == "lower":
        yield f"{metric.key}: lower is better, so it needs a ceiling, not a floor"
    low, high = rule.range
    if not (low <= metric.lowest and metric.highest <= high):
        yield (
            f"{metric.key} has values from {metric.lowest:.4g} to {metric.highest:.4g}, outside the range "
            f"{low:.4g} to {high:.4g} that margins and floors refer to; set the rule's range"
        )
    margin = rule.margin_of(metric.reference)
    if margin is not None and not 0 < margin < 1:
        size = f"{margin:.4g} of its range at a baseline of {metric.reference:.4g}"
        yield f"{metric.key}: a margin of {rule.margin} is {size}; it must lie between 0 and all of the range"
    if (told := untestable_reason(metric)) is not None:
        yield f"{metric.key} {told}"


def _stopped(policy: GateConfig, comparison: Comparison) -> Iterator[str]:
    """Early ends that the policy does not allow."""
    for task, early in sorted(comparison.stopped.items()):
        if policy.sequential is None:
            told = f"task {task} stopped after {early.items} of {early.planned} items"
            yield f"{told}; policy {policy.name} allows no interim looks"
        elif early.items not in (counts := looks_at(policy, early.planned).counts):
            looks = ", ".join(map(str, counts))
            yield f"task {task} stopped after {early.items} items; the policy looks after {looks}"
        for metric in comparison.metrics:
            for rule in rules_for(policy, metric) if metric.task == task else []:
                if (why := needs_all(rule, metric.only_baseline_right is not None)) is not None:
                    yield f"task {task} stopped early, and the {rule.role} rule '{rule.metric}' needs all items: {why}"
        pooled = {m.task for m in comparison.metrics for part in m.strata or [] if part.task == task}
        for group in sorted(pooled):
            if any(rules_for(policy, metric) for metric in comparison.metrics if metric.task == group):
                yield f"task {task} stopped early, and the policy decides on its group {group}, which needs all items"
