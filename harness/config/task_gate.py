"""Gate rules that a task brings along, in `tasks/<name>/gate.yaml`, and how they join the rules of a policy.

    rules of the policy                  the first rule that matches a metric applies, in this order
    rules of every task's gate.yaml      except those that a rule of the policy replaces
    the policy's catch-all (*/*/*)       and all rules after it

The result is an ordinary policy. Runs, verdicts and aliases record all of it, so a later change of a gate.yaml does not
alter any evidence.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError, field_validator

from harness.config.experiment import read_yaml, validate
from harness.config.gate import RuleConfig, shadow
from harness.config.group import Group
from harness.core import resources
from harness.core.errors import ConfigError

DEFAULT, NO_RULES = "default", "none"


class TaskRule(RuleConfig):
    """A rule in a gate.yaml: `metric` is a metric of the task, or a glob over its metrics.

    It applies only if the task was evaluated, and only adds a requirement: other metrics are left to the policy.
    """

    role: Literal["guard", "target"]
    """guard: must not fall; target: must be reached."""

    optional: Literal[True] = True
    """Always true: the rule applies only if its task was evaluated."""

    @field_validator("metric")
    @classmethod
    def _of_the_task(cls, metric: str) -> str:
        if "/" in metric:
            raise ValueError("give the metric alone, such as 'recall': suite and task are added")
        return metric


class TaskGate(Group):
    """A gate.yaml. A policy uses the section that its `task_rules` names, or `default` if the file lacks it."""

    default: list[TaskRule]
    """Rules for policies with `task_rules: default`, and for those whose own section is missing."""

    strict: list[TaskRule] | None = None
    """Rules for policies with `task_rules: strict`; null: those of `default`."""

    smoke: list[TaskRule] | None = None
    """Rules for policies with `task_rules: smoke`; null: those of `default`."""

    @field_validator("default", "strict", "smoke")
    @classmethod
    def _none_shadowed(cls, rules: list[TaskRule] | None) -> list[TaskRule] | None:
        if errors := [error for index in range(len(rules or [])) if (error := shadow(rules or [], index))]:
            raise ValueError("; ".join(errors))
        return rules


def with_task_rules(policy: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a policy, plus the rules of every task that has a gate.yaml.

    An invalid policy is returned unchanged: its validation reports why. Raises ConfigError with all errors of all
    gate.yaml files, by file and key.
    """
    rules = policy.get("rules") or []
    try:
        own = [RuleConfig.model_validate(rule) for rule in rules]
    except (ValidationError, TypeError):
        return dict(policy)
    brought = [
        rule
        for rule in _task_rules(str(policy.get("task_rules", DEFAULT)))
        if not any(_replaces(one, rule) for one in own)
    ]
    end = next((place for place, rule in enumerate(own) if _catches_all(rule.metric)), len(own))
    return {**policy, "rules": [*rules[:end], *brought, *rules[end:]]}


def _task_rules(section: str) -> list[dict[str, Any]]:
    """The rules of all gate.yaml files in the form of a policy's rules, sorted by task."""
    if section == NO_RULES:
        return []
    files = {
        path.parent.name: path for root in resources.task_roots() for path in root.glob(f"*/{resources.TASK_GATE}")
    }
    rules, errors = [], []
    for task, path in sorted(files.items()):
        try:
            chosen = _section(path, section)
        except ConfigError as error:
            errors += error.errors
            continue
        rules += [{**rule, "metric": f"*/{task}/{rule['metric']}", "optional": True} for rule in chosen]
    if errors:
        raise ConfigError(errors)
    return rules


def _section(path: Path, section: str) -> list[dict[str, Any]]:
    values = read_yaml(path)
    try:
        validate(TaskGate, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {line}" for line in error.errors) from None
    chosen: list[dict[str, Any]] | None = values.get(section)
    return values[DEFAULT] if chosen is None else chosen


def _replaces(own: RuleConfig, brought: Mapping[str, Any]) -> bool:
    """Whether a rule of the policy replaces a task's rule, because it covers the same metric in any suite.

    A rule for a single suite replaces it too: only one rule can apply to a metric, and a rule that never applies is an
    error.
    """
    if own.role not in ("info", brought["role"]) or _catches_all(own.metric):
        return False
    parts = own.metric.split("/")
    return fnmatchcase(brought["metric"], f"*/{parts[1]}/{parts[2]}" if len(parts) == 3 else own.metric)


def _catches_all(metric: str) -> bool:
    """Whether a glob names neither task nor metric: `*`, `*/*/*`, `smoke/*`."""
    suite, _, rest = metric.partition("/")
    return not rest.strip("*/") and (bool(rest) or suite.endswith("*"))
