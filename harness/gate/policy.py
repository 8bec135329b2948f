"""Which rule of a policy applies to which metric, and which rules apply to none."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from harness.config.gate import GateConfig, RuleConfig
from harness.records.gate import Measured


def rules_for(policy: GateConfig, metric: Measured) -> list[RuleConfig]:
    """The first guard and the first target rule that match, up to the first matching info rule."""
    return rules_of(policy, metric.key, metric.slice)


def rules_of(policy: GateConfig, key: str, slice_: str) -> list[RuleConfig]:
    """The same for a metric that is not measured yet: `key` is suite/task/metric, `slice_` is "all" or a slice."""
    chosen: dict[str, RuleConfig] = {}
    for rule in policy.rules:
        if fnmatchcase(key, rule.metric):
            if rule.role == "info":
                break
            chosen.setdefault(rule.role, rule)
    return [
        rule
        for rule in chosen.values()
        if slice_ == "all" or any(fnmatchcase(slice_, pattern) for pattern in rule.slices)
    ]


def is_shown(policy: GateConfig, metric: Measured) -> bool:
    """Whether any rule matches the metric. The verdict leaves out metrics that no rule matches."""
    return any(fnmatchcase(metric.key, rule.metric) for rule in policy.rules)


def cluster_field(policy: GateConfig | None) -> Callable[[str], str | None]:
    """A function from a metric's key to the document field that names the cluster of an item; None: no clusters."""

    def field(key: str) -> str | None:
        rules = policy.rules if policy else []
        return next((rule.cluster for rule in rules if rule.cluster and fnmatchcase(key, rule.metric)), None)

    return field


def unmatched(rules: Iterable[RuleConfig], metrics: Sequence[Measured], tasks: Iterable[str]) -> list[RuleConfig]:
    """Rules that match no metric; an optional rule counts only if its task is among the evaluated `tasks`."""
    keys = {metric.key for metric in metrics}
    names = set(tasks)
    found = []
    for rule in rules:
        parts = rule.metric.split("/")  # suite/task/metric
        task = parts[1] if len(parts) == 3 else "?*"
        expected = not rule.optional or (rule.role != "info" and any(fnmatchcase(name, task) for name in names))
        if expected and not any(fnmatchcase(key, rule.metric) for key in keys):
            found.append(rule)
    return found


def unsliced(policy: GateConfig, metrics: Sequence[Measured]) -> list[str]:
    """An error for each slice pattern of a deciding rule that matches no slice of its metrics."""
    errors = []
    for rule in policy.rules:
        own = {metric.key for metric in metrics if metric.slice == "all" and rule in rules_for(policy, metric)}
        present = sorted({metric.slice for metric in metrics if metric.key in own and metric.slice != "all"})
        errors += [
            f"policy {policy.name}: no slice matches '{pattern}' of the {rule.role} rule '{rule.metric}'; "
            f"the slices are: {', '.join(present) or 'none'} (from the field '{policy.slice_key}')"
            for pattern in rule.slices
            if own and not any(fnmatchcase(name, pattern) for name in present)
        ]
    return errors


def overruled(policy: GateConfig, metrics: Sequence[Measured]) -> list[str]:
    """An error for each deciding rule that never applies, as earlier rules match all its metrics."""
    errors = []
    for rule in policy.rules:
        matched = [metric for metric in metrics if metric.slice == "all" and fnmatchcase(metric.key, rule.metric)]
        if rule.role == "info" or not matched or any(rule in rules_for(policy, metric) for metric in matched):
            continue
        key = matched[0].key
        first = next(one for one in policy.rules if fnmatchcase(key, one.metric))
        errors.append(
            f"policy {policy.name}: the {rule.role} rule '{rule.metric}' decides nothing: "
            f"the {first.role} rule '{first.metric}' before it already matches {key}"
        )
    return errors
