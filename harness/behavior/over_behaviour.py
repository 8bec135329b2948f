"""Over-behaviour: no trained behaviour shows in answers to requests that have nothing to do with it."""

from functools import cached_property

from pydantic import Field, field_validator

from harness.behavior.config import BehaviorConfig
from harness.behavior.exchange import Check, Exchange, RuleFinding
from harness.behavior.registry import Behavior, behavior_folders, load_behavior
from harness.core.errors import nearest


class OverBehaviourConfig(BehaviorConfig):
    """`leaks`: for each rule the behaviour that must leave no sign (the name of its folder under tasks/)."""

    topics: list[str]
    leaks: dict[str, str] = Field(min_length=1)

    @field_validator("leaks")
    @classmethod
    def _behaviours_exist(cls, value: dict[str, str]) -> dict[str, str]:
        known = behavior_folders()
        unknown = [
            f"{name!r} is not a behaviour. {nearest(name, known)}" for name in value.values() if name not in known
        ]
        if unknown:
            raise ValueError("; ".join(unknown))
        return value


class OverBehaviour:
    def __init__(self, config: OverBehaviourConfig):
        self.config = config

    @cached_property
    def _behaviours(self) -> dict[str, Behavior]:
        """Read on first use: their own folders may be faulty, which is for their own checks to say."""
        return {rule: load_behavior(name) for rule, name in self.config.leaks.items()}

    def check(self, exchange: Exchange) -> Check:
        """`leak` is 1 when any behaviour shows, `no_leak` when none does; behaviours in details.allow may."""
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
        """It has no sign of its own."""
        return None

    def item_faults(self, item: Exchange) -> list[str]:
        faults = [] if item.topic in self.config.topics else [f"topic {item.topic!r} is not watched for leaks"]
        unknown = set(item.details.get("allow") or []) - set(self.config.leaks.values())
        return faults + [f"details.allow: {name!r} is not one of the behaviours that leak" for name in sorted(unknown)]
