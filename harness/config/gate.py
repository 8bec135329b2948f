"""The configuration of the gate: a policy, its rules and their margins."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from harness.config.group import Count, Group

Alpha = Annotated[float, Field(gt=0, lt=0.5)]
Power = Annotated[float, Field(gt=0.5, lt=1)]
FIELD_NAME = re.compile(r'[^"\\\x00-\x1f]+')  # field names that the reader of samples supports
MARGIN = re.compile(r"(?P<size>\d+(?:\.\d+)?)\s*(?P<unit>points?|units?|%\s*of\s+baseline)")
MARGIN_FORMS = "'2 points' (of 100 on the metric's range), '5% of baseline', or '0.3 units' (of the metric itself)"


def _field_name(name: str) -> str:
    if not FIELD_NAME.fullmatch(name):
        raise ValueError("is not a field name: it is empty, or contains a quote, a backslash or a control character")
    return name


FieldName = Annotated[str, AfterValidator(_field_name)]


@dataclass(frozen=True)
class Tolerance:
    """A margin in one of its three units: points (a hundredth of the metric's range), units, share of the baseline."""

    size: float
    unit: Literal["points", "units", "relative"]

    def on_scale(self, baseline: float, width: float) -> float:
        """The margin as a share of the metric's range `width`; `baseline` is a mean in the metric's own unit."""
        if self.unit == "points":
            return self.size / 100
        return self.size / width if self.unit == "units" else self.size * abs(baseline) / width


def parse_margin(text: object) -> Tolerance:
    """The margin with its unit; raises ValueError if the unit is missing or the size is not larger than 0."""
    found = MARGIN.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"a margin needs a unit: use {MARGIN_FORMS}, not {text!r}")
    size = float(found["size"])
    if size <= 0:
        raise ValueError(f"a margin must be larger than 0, not {text!r}")
    if found["unit"].startswith("%"):
        return Tolerance(size / 100, "relative")
    return Tolerance(size, "points" if found["unit"].startswith("point") else "units")


class WaiverConfig(Group):
    """Lets a metric be missing or inconclusive until a date; shown in every output."""

    name: Annotated[str, Field(min_length=1)]
    """Name of the waiver in the verdict."""

    reason: Annotated[str, Field(min_length=1)]
    """Why the waiver is granted."""

    expires: date
    """Last day on which the waiver holds (UTC)."""


class SequentialConfig(Group):
    """Interim looks at a task's items in seeded random order, at unchanged error rates."""

    looks: Annotated[int, Field(ge=2, le=20)] = 4
    """Number of equally spaced looks; the last one is at all items."""


class RuleConfig(Group):
    """What the gate requires of some metrics."""

    metric: Annotated[str, Field(max_length=500)]
    """Glob over `suite/task/metric`: the metrics that the rule applies to."""

    role: Literal["guard", "target", "info"]
    """guard: must not fall; target: must be reached; info: shown, decides nothing."""

    direction: Literal["higher", "lower"] | None = None
    """Whether higher or lower values are better; null: as the task defines it."""

    margin: str | list[str] | None = None
    """Tolerated drop (guard) or required gain (target), with its unit; of several forms the strictest counts."""

    floor: float | None = None
    """Value that a target must surely reach, in the metric's own unit."""

    ceiling: float | None = None
    """Value that a target must surely stay below, in the metric's own unit; needs `direction: lower`."""

    range: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest value that an item can have."""

    alpha: Alpha | None = None
    """Level of the test that a pass needs; null: the policy's `alpha_pass`."""

    power: Power | None = None
    """Power that the needed number of items is computed for; null: the policy's."""

    minimum_n: Count | None = None
    """Fewest items with which the metric can pass; null: the policy's."""

    cluster: FieldName | None = None
    """Field of an item's document that groups dependent items; null: items are independent."""

    slices: list[str] = []
    """Globs of slices that must also meet the rule; other slices are only shown."""

    optional: bool = False
    """Whether the rule applies only if its task was evaluated."""

    on_missing: Literal["block"] | WaiverConfig = "block"
    """What happens when no metric matches: the verdict is INVALID, or a waiver lets it pass."""

    on_inconclusive: Literal["block"] | WaiverConfig = "block"
    """What happens when the evidence is inconclusive: it counts, or a waiver lets it pass."""

    @field_validator("margin", mode="before")
    @classmethod
    def _with_unit(cls, margin: object) -> object:
        for form in margin if isinstance(margin, list) else [margin]:
            if form is not None:
                parse_margin(form)
        return margin

    @model_validator(mode="after")
    def _decidable(self) -> "RuleConfig":
        limits = [limit for limit in (self.floor, self.ceiling) if limit is not None]
        if self.role == "guard" and not self.margins:
            raise ValueError(f"a guard needs a margin, the drop that it tolerates: {MARGIN_FORMS}")
        if self.role == "guard" and limits:
            raise ValueError("a guard has no floor or ceiling; add a target rule for it")
        if self.role == "target" and not self.margins and not limits:
            raise ValueError("a target needs a floor (or a ceiling), or a margin to improve by")
        if self.floor is not None and self.direction == "lower":
            raise ValueError("a metric where lower is better takes a ceiling, not a floor")
        if self.ceiling is not None and self.direction != "lower":
            raise ValueError("a ceiling needs direction: lower")
        if not self.range[0] < self.range[1]:
            raise ValueError("range must be [lowest, highest]")
        if any(m.size >= {"points": 100, "units": self.width, "relative": 1}[m.unit] for m in self.margins):
            raise ValueError(f"the margin {self.margin} would tolerate any value; use a smaller one")
        if any(not self.range[0] <= limit <= self.range[1] for limit in limits):
            raise ValueError(f"floor and ceiling must lie within range {list(self.range)}")
        return self

    @property
    def margins(self) -> list[Tolerance]:
        forms: Sequence[str | None] = self.margin if isinstance(self.margin, list) else [self.margin]
        return [parse_margin(form) for form in forms if form is not None]

    @property
    def width(self) -> float:
        return self.range[1] - self.range[0]

    def margin_of(self, baseline: float) -> float | None:
        """The strictest margin as a share of `range`; `baseline` is a mean in the metric's own unit."""
        return min((margin.on_scale(baseline, self.width) for margin in self.margins), default=None)


class GateConfig(Group):
    """A policy: what a candidate must show, and at which error rates.

    Of the rules that match a metric, the first guard and the first target apply, unless an info rule precedes them.
    """

    name: Annotated[str, Field(max_length=200)]
    """Name of the policy."""

    rules: list[RuleConfig]
    """Rules in order of precedence."""

    require: list[Literal["guard", "target"]] = ["guard"]
    """Roles of which at least one metric must have been measured; else the verdict is INVALID."""

    baselines: list[str] = []
    """Further baselines (aliases or runs) that no guard may fall against."""

    alpha_pass: Alpha = 0.05
    """Probability of passing a metric that is worse than its limit."""

    alpha_fail: Alpha = 0.05
    """Probability of failing a metric that did not get worse."""

    power: Power = 0.9
    """Probability of a decision for which the needed number of items is computed."""

    minimum_n: Count = 1
    """Fewest items with which a metric can pass; with fewer items it is INCONCLUSIVE."""

    slice_key: FieldName = "slice"
    """Field of an item's document that names its slice."""

    sequential: SequentialConfig | None = None
    """Interim looks, so that a clear task can end early; null: none."""

    candidates: Annotated[Count, Field(exclude_if=lambda count: count == 1)] = 1
    """Number of candidates that this one was chosen from; the level of each pass is divided by it (Bonferroni)."""

    task_rules: Annotated[Literal["default", "strict", "smoke", "none"], Field(exclude=True)] = "default"
    """Section of each tasks/<name>/gate.yaml whose rules are added to `rules`; none: no rules are. Not recorded."""

    @field_validator("rules")
    @classmethod
    def _some_rule(cls, rules: list[RuleConfig]) -> list[RuleConfig]:
        if not any(rule.role != "info" for rule in rules):
            raise ValueError("a policy without a guard or target decides nothing: add one")
        return rules

    @model_validator(mode="after")
    def _none_shadowed(self) -> "GateConfig":
        if errors := [error for index in range(len(self.rules)) if (error := shadow(self.rules, index))]:
            raise ValueError("; ".join(errors))
        return self

    def pass_level(self, alpha: float | None = None) -> float:
        """The level of the test that a pass needs, under a rule's own `alpha` where it has one."""
        return (alpha or self.alpha_pass) / self.candidates

    @property
    def fields(self) -> list[str]:
        """The fields of an item's document that name clusters and slices, sorted."""
        return sorted({self.slice_key, *(rule.cluster for rule in self.rules if rule.cluster)})


def shadow(rules: Sequence[RuleConfig], index: int) -> str | None:
    """Why a deciding rule can never apply: an earlier rule takes all its metrics. None if it can."""
    rule = rules[index]
    for earlier in rules[:index]:
        if rule.role != "info" and earlier.role in ("info", rule.role) and fnmatchcase(rule.metric, earlier.metric):
            return (
                f"the {rule.role} rule '{rule.metric}' never applies: the {earlier.role} rule '{earlier.metric}' "
                "before it takes all its metrics. Put the deciding rule first."
            )
    return None
