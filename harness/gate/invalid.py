"""What makes a verdict INVALID: reasons why a policy cannot be applied to a comparison. Nothing is tested then."""

from collections.abc import Iterator
from datetime import date

from harness.config.gate import GateConfig, RuleConfig, WaiverConfig
from harness.gate.policy import overruled, rules_for, unmatched, unsliced
from harness.gate.sequential import looks_at, needs_all
from harness.gate.significance import untestable_reason
from harness.records.gate import Comparison, MetricComparison, Waiver


def invalid_reasons(policy: GateConfig, comparison: Comparison, today: date) -> list[str]:
    """Every reason, one sentence each; empty: the tests can be made. Waivers count until they expire, as of `today`."""
    reasons = [*comparison.faults, *_not_measured(policy, comparison, today), *overruled(policy, comparison.metrics)]
    reasons += unsliced(policy, comparison.metrics)
    for metric in comparison.metrics:
        for rule in rules_for(policy, metric):
            reasons += _misfits(rule, metric)
    reasons += _early_stops(policy, comparison)
    compared = {other.baseline.label for other in comparison.others} | set(comparison.same)
    reasons += [
        f"policy {policy.name} also tests against {name}, but the candidate was not compared with it"
        for name in policy.baselines
        if name not in compared
    ]
    for other in comparison.others:
        found = list(other.faults)
        measured = {(metric.key, metric.slice) for metric in other.metrics}
        for metric in comparison.metrics:
            guarded = any(rule.role == "guard" for rule in rules_for(policy, metric))
            if guarded and (metric.key, metric.slice) not in measured:
                found.append(f"the guard {metric.key} was not measured on this baseline")
        for metric in other.metrics:
            for rule in rules_for(policy, metric):
                found += _misfits(rule, metric) if rule.role == "guard" else []
        reasons += [f"against {other.baseline.label}: {reason}" for reason in found]
    return list(dict.fromkeys(reasons))


def waived_as_missing(policy: GateConfig, comparison: Comparison, today: date) -> list[Waiver]:
    """The waivers, valid or expired, of rules whose metric was not measured."""
    return [
        Waiver(rule=rule.metric, used_for="missing", expired=today > granted.expires, **granted.model_dump())
        for rule in _unmatched(policy, comparison)
        if isinstance(granted := rule.on_missing, WaiverConfig)
    ]


def _unmatched(policy: GateConfig, comparison: Comparison) -> list[RuleConfig]:
    measured = {metric.task for metric in comparison.metrics}
    return unmatched(policy.rules, comparison.metrics, measured | set(comparison.evaluated))


def _not_measured(policy: GateConfig, comparison: Comparison, today: date) -> Iterator[str]:
    """Rules and required roles without a metric: a missing metric never passes."""
    keys = sorted({metric.key for metric in comparison.metrics})
    measured = f". Measured: {', '.join(keys[:5])}{' …' if keys[5:] else ''}; correct the rule, or evaluate the task"
    for rule in _unmatched(policy, comparison):
        missing = f"policy {policy.name}: no metric matches the {rule.role} rule '{rule.metric}'; it was not measured"
        waiver = rule.on_missing
        if not isinstance(waiver, WaiverConfig):
            yield missing + (measured if keys else "; evaluate the task on both sides")
        elif today > waiver.expires:
            yield f"{missing}, and the waiver '{waiver.name}' expired on {waiver.expires.isoformat()}"
    roles = {rule.role for metric in comparison.metrics for rule in rules_for(policy, metric)}
    for role in policy.require:
        if role not in roles:
            yield f"policy {policy.name} requires a {role}, but none was measured"
    if not roles:
        yield (
            "no metric was tested: no guard or target of the policy matches any. policy=any guards every metric "
            "between 0 and 1; --init-policy FILE writes a policy for what was measured"
        )


def _misfits(rule: RuleConfig, metric: MetricComparison) -> Iterator[str]:
    """Why a rule cannot be applied to a metric: direction, range, margin, or too few items for any test."""
    if rule.direction is not None and rule.direction != metric.direction:
        yield f"{metric.key}: the policy says that {rule.direction} is better, the task says {metric.direction}"
    elif rule.floor is not None and metric.direction == "lower":
        yield f"{metric.key}: lower is better; give the rule a ceiling in place of the floor"
    low, high = rule.range
    if not (low <= metric.lowest and metric.highest <= high):
        yield (
            f"{metric.key} has values from {metric.lowest:.4g} to {metric.highest:.4g}, outside the range "
            f"{low:.4g} to {high:.4g} that margins and floors refer to; set the rule's range"
        )
    margin = rule.margin_of(metric.reference)
    if margin is not None and not 0 < margin < 1:
        size = f"{margin:.4g} of the range at a baseline of {metric.reference:.4g}"
        yield f"{metric.key}: a margin of {rule.margin} is {size}; it must be more than 0 and less than the whole range"
    if (why := untestable_reason(metric)) is not None:
        yield f"{metric.key} {why}"


def _early_stops(policy: GateConfig, comparison: Comparison) -> Iterator[str]:
    """Early stops that the policy does not allow."""
    for task, early in sorted(comparison.stopped.items()):
        if policy.sequential is None:
            stopped = f"task {task} stopped after {early.items} of {early.planned} items"
            yield f"{stopped}; policy {policy.name} allows no interim looks"
        elif early.items not in (counts := looks_at(policy, early.planned).counts):
            looks = ", ".join(map(str, counts))
            yield f"task {task} stopped after {early.items} items; the policy looks after {looks}"
        for metric in comparison.metrics:
            for rule in rules_for(policy, metric) if metric.task == task else []:
                if (why := needs_all(rule, metric.only_baseline_right is not None)) is not None:
                    yield f"task {task} stopped early, but the {rule.role} rule '{rule.metric}' needs all items: {why}"
        pooled = {m.task for m in comparison.metrics for part in m.strata or [] if part.task == task}
        for group in sorted(pooled):
            if any(rules_for(policy, metric) for metric in comparison.metrics if metric.task == group):
                yield f"task {task} stopped early, but the policy tests its group {group}, which needs all items"
