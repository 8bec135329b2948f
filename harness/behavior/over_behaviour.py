"""The kind `over_behaviour`: no trained behaviour shows in answers to requests that do not call for it."""

from functools import cached_property

from pydantic import Field, field_validator

from harness.behavior.config import BehaviorConfig
from harness.behavior.exchange import Check, Exchange, RuleFinding, topic_errors
from harness.behavior.registry import Behavior, behavior_folders, load_behavior
from harness.core.errors import nearest


class OverBehaviourConfig(BehaviorConfig):
    """The behaviours that are watched for."""

    topics: list[str]
    """Topics of requests that call for none of the behaviours."""

    leaks: dict[str, str] = Field(min_length=1)
    """For each rule, the behaviour that must leave no sign: the name of its folder under `tasks/`."""

    @field_validator("leaks")
    @classmethod
    def _behaviours_exist(cls, value: dict[str, str]) -> dict[str, str]:
        known = behavior_folders()
        unknown = [
            f"there is no behaviour {name!r}. {nearest(name, known)}" for name in value.values() if name not in known
        ]
        if unknown:
            raise ValueError("; ".join(unknown))
        return value


class OverBehaviour:
    def __init__(self, config: OverBehaviourConfig):
        self.config = config

    @cached_property
    def _behaviours(self) -> dict[str, Behavior]:
        """Read on first use, so that an error in one of their files is reported as theirs."""
        return {rule: load_behavior(name) for rule, name in self.config.leaks.items()}

    def check(self, exchange: Exchange) -> Check:
        """`leak` is 1 when any behaviour shows, `no_leak` when none does. Those in details.allow may show."""
        if exchange.topic not in self.config.topics:
            return Check([])
        allowed = exchange.details.get("allow") or []
        findings = [
            RuleFinding(rule, sign is None, f"no sign of {self.config.leaks[rule]}", sign or "none")
            for rule, behavior in self._behaviours.items()
            if self.config.leaks[rule] not in allowed
            for sign in [behavior.leaked(exchange.response)]
        ]
        clean = all(finding.passed for finding in findings)
        rules = {finding.rule: float(finding.passed) for finding in findings}
        return Check(findings, {"leak": float(not clean), "no_leak": float(clean), **rules})

    def without(self, text: str) -> str:
        return text

    def leaked(self, text: str) -> str | None:
        """None: this behaviour has no sign of its own."""
        return None

    def item_errors(self, item: Exchange) -> list[str]:
        known = set(self.config.leaks.values())
        unknown = sorted(set(item.details.get("allow") or []) - known)
        return [
            *topic_errors(item, self.config.topics),
            *(f"details.allow: {name!r} is not under 'leaks'. {nearest(name, known)}" for name in unknown),
        ]
