"""The rules that tasks bring to a policy: `tasks/<name>/gate.yaml`, and how its rules join those of the policy.

    rules of the policy                  the first rule that matches a metric speaks for it, in this order
    rules of every task's gate.yaml      except those that a rule of the policy replaces
    the policy's catch-all (*/*/*)       and what stands after it

What comes out is an ordinary policy. A run, a verdict and an alias record it whole, so that a later change of a
gate.yaml alters no evidence.
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

DEFAULT = "default"


class TaskRule(RuleConfig):
    """A rule of a gate.yaml: `metric` is a metric of the task, or a glob over its metrics.

    It is due where the task was evaluated, and it only adds a demand: every other metric is left to the policy.
    """

    role: Literal["guard", "target"]
    """What the rule demands: no regression, or a floor."""

    optional: Literal[True] = True
    """The rule applies only if its task was evaluated."""

    @field_validator("metric")
    @classmethod
    def _of_the_task(cls, metric: str) -> str:
        if "/" in metric:
            raise ValueError("name the metric alone, such as 'recall': the suite and the task are added")
        return metric


class TaskGate(Group):
    """A gate.yaml. A policy takes the section that its `task_rules` names, or `default` where the file lacks it."""

    default: list[TaskRule]
    """Rules of every policy that names no other section."""

    strict: list[TaskRule] | None = None
    """Rules of policies with `task_rules: strict`; null: those of `default`."""

    smoke: list[TaskRule] | None = None
    """Rules of policies with `task_rules: smoke`; null: those of `default`."""

    @field_validator("default", "strict", "smoke")
    @classmethod
    def _none_shadowed(cls, rules: list[TaskRule] | None) -> list[TaskRule] | None:
        if faults := [told for index in range(len(rules or [])) if (told := shadow(rules or [], index))]:
            raise ValueError("; ".join(faults))
        return rules


def with_task_rules(policy: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a policy with the rules of every task that has a gate.yaml.

    Returns a policy that is itself faulty as it is: validating it tells why. Raises ConfigError with every fault of
    every gate.yaml, by file and key.
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
    """The rules of all gate.yaml files as a policy writes them, by the name of the task."""
    files = {
        path.parent.name: path for root in resources.task_roots() for path in root.glob(f"*/{resources.TASK_GATE}")
    }
    rules, faults = [], []
    for task, path in sorted(files.items()):
        try:
            chosen = _section(path, section)
        except ConfigError as error:
            faults += error.errors
            continue
        rules += [{**rule, "metric": f"*/{task}/{rule['metric']}", "optional": True} for rule in chosen]
    if faults:
        raise ConfigError(faults)
    return rules


def _section(path: Path, section: str) -> list[dict[str, Any]]:
    values = read_yaml(path)
    try:
        validate(TaskGate, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {fault}" for fault in error.errors) from None
    chosen: list[dict[str, Any]] | None = values.get(section)
    return values[DEFAULT] if chosen is None else chosen


def _replaces(own: RuleConfig, brought: Mapping[str, Any]) -> bool:
    """Whether a rule of the policy speaks for the metric of a task's rule, in whatever suite.

    A rule for one suite replaces it too: both could not speak for one metric, and what decides nothing is a fault.
    """
    if own.role not in ("info", brought["role"]) or _catches_all(own.metric):
        return False
    parts = own.metric.split("/")
    return fnmatchcase(brought["metric"], f"*/{parts[1]}/{parts[2]}" if len(parts) == 3 else own.metric)


def _catches_all(metric: str) -> bool:
    """Whether a glob names neither task nor metric: `*`, `*/*/*`, `smoke/*`."""
    suite, _, rest = metric.partition("/")
    return not rest.strip("*/") and (bool(rest) or suite.endswith("*"))
