"""Which rule of a policy speaks for which metric, and which rules speak for none."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from harness.config.gate import GateConfig, RuleConfig
from harness.records.gate import Measured


def rules_for(policy: GateConfig, metric: Measured) -> list[RuleConfig]:
    """The first guard and the first target rule that match, up to the first matching info rule."""
    chosen: dict[str, RuleConfig] = {}
    for rule in policy.rules:
        if fnmatchcase(metric.key, rule.metric):
            if rule.role == "info":
                break
            chosen.setdefault(rule.role, rule)
    return [rule for rule in chosen.values() if metric.slice == "all" or _names(rule.slices, metric.slice)]


def is_shown(policy: GateConfig, metric: Measured) -> bool:
    """Whether any rule matches the metric: what no rule matches is left out of the verdict."""
    return any(fnmatchcase(metric.key, rule.metric) for rule in policy.rules)


def _names(patterns: Sequence[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def cluster_field(policy: GateConfig | None) -> Callable[[str], str | None]:
    """The document field that groups the items of a metric, by the metric's key."""

    def field(key: str) -> str | None:
        rules = policy.rules if policy else []
        return next((rule.cluster for rule in rules if rule.cluster and fnmatchcase(key, rule.metric)), None)

    return field


def unmatched(rules: Iterable[RuleConfig], metrics: Sequence[Measured], tasks: Iterable[str]) -> list[RuleConfig]:
    """Rules that found no metric; an optional one only counts when its task was evaluated."""
    keys = {metric.key for metric in metrics}
    names = set(tasks)
    return [
        rule
        for rule in rules
        if not any(fnmatchcase(key, rule.metric) for key in keys)
        and (not rule.optional or (rule.role != "info" and any(fnmatchcase(n, _task(rule.metric)) for n in names)))
    ]


def unsliced(policy: GateConfig, metrics: Sequence[Measured]) -> list[str]:
    """Slices that a deciding rule demands and none of its metrics has, in words."""
    faults = []
    for rule in policy.rules:
        own = {metric.key for metric in metrics if metric.slice == "all" and rule in rules_for(policy, metric)}
        there = sorted({metric.slice for metric in metrics if metric.key in own and metric.slice != "all"})
        faults += [
            f"policy {policy.name}: no slice matches '{pattern}' of the {rule.role} rule '{rule.metric}'; "
            f"there are {', '.join(there) or 'none'} (read from the field '{policy.slice_key}')"
            for pattern in rule.slices
            if own and not any(fnmatchcase(name, pattern) for name in there)
        ]
    return faults


def overruled(policy: GateConfig, metrics: Sequence[Measured]) -> list[str]:
    """Deciding rules whose metrics are all taken by earlier rules, in words."""
    faults = []
    for rule in policy.rules:
        matched = [metric for metric in metrics if metric.slice == "all" and fnmatchcase(metric.key, rule.metric)]
        if rule.role == "info" or not matched or any(rule in rules_for(policy, metric) for metric in matched):
            continue
        key = matched[0].key
        first = next(one for one in policy.rules if fnmatchcase(key, one.metric))
        faults.append(
            f"policy {policy.name}: the {rule.role} rule '{rule.metric}' decides nothing: "
            f"the {first.role} rule '{first.metric}' before it takes {key}"
        )
    return faults


def _task(pattern: str) -> str:
    """The task part of a pattern `suite/task/metric`."""
    parts = pattern.split("/")
    return parts[1] if len(parts) == 3 else "?*"
