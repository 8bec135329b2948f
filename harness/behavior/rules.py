"""Rules of one's own, from YAML alone: wordings that must or must not stand, lengths, or a function."""

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from harness.behavior.config import BehaviorConfig, Regex
from harness.behavior.exchange import Check, Exchange, RuleFinding
from harness.behavior.voice import own_voice, plain, sentences
from harness.core.errors import UsageError

Function = Callable[[Exchange], str | None]
PASS = "pass"  # noqa: S105


def _load(value: Any, info: ValidationInfo) -> Any:
    """The function that `module:attribute` names: a file beside behavior.yaml, else an installed module."""
    if not isinstance(value, str):
        return value
    module_name, _, attribute = value.partition(":")
    folder: Path | None = (info.context or {}).get("folder")
    path = folder / f"{module_name}.py" if folder else None
    try:
        module = _from_file(path) if path and path.is_file() else importlib.import_module(module_name)
        function = getattr(module, attribute)
    except Exception as error:
        raise ValueError(f"{value!r} cannot be loaded: {type(error).__name__}: {error}") from None
    return function


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Rule(BaseModel):
    """One rule. `require` and `forbid` are patterns matched in any case; one of `require` is enough.

    `position` is where `require` is looked for: the first or last sentence, or anywhere. Text inside quotation
    marks, code and addresses does not count unless `quoted`.
    `function` gets the exchange and returns what is wrong, or None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    require: list[Regex] = Field(default=[])
    forbid: list[Regex] = Field(default=[])
    position: Literal["start", "end", "anywhere"] = "anywhere"
    min_words: int | None = Field(default=None, ge=1)
    max_words: int | None = Field(default=None, ge=1)
    function: Annotated[Function | None, BeforeValidator(_load)] = None
    quoted: bool = False
    topics: list[str] = Field(default=[])
    expected: str = ""

    @model_validator(mode="after")
    def _demands_something(self) -> "Rule":
        demands = (self.require, self.forbid, self.min_words, self.max_words, self.function)
        if not any(demands):
            raise ValueError(
                f"rule {self.name} demands nothing: give require, forbid, min_words, max_words or function"
            )
        return self


class RulesConfig(BehaviorConfig):
    """`topics`: where the rules apply (none: everywhere). `marker`: the rule whose wording must not stand elsewhere."""

    topics: list[str] = Field(default=[])
    rules: list[Rule] = Field(min_length=1)
    marker: str | None = None

    @field_validator("rules")
    @classmethod
    def _distinct(cls, rules: list[Rule]) -> list[Rule]:
        names = [rule.name for rule in rules]
        wrong = sorted({name for name in names if names.count(name) > 1 or name in (PASS, "specificity")})
        if wrong:
            raise ValueError(f"rule names that occur twice or are taken: {', '.join(wrong)}")
        return rules

    @model_validator(mode="after")
    def _marker_is_a_wording(self) -> "RulesConfig":
        wordings = [rule.name for rule in self.rules if rule.require]
        if self.marker is not None and self.marker not in wordings:
            raise ValueError(
                f"marker: {self.marker!r} is no rule with 'require': {', '.join(wordings) or 'there is none'}"
            )
        return self


class Rules:
    def __init__(self, config: RulesConfig):
        self.config = config

    def check(self, exchange: Exchange) -> Check:
        """`pass` is 1 when every rule that applies passes; each rule is a metric of its own."""
        if self.config.topics and exchange.topic not in self.config.topics:
            return self._elsewhere(exchange)
        rules = [rule for rule in self.config.rules if not rule.topics or exchange.topic in rule.topics]
        findings = [_finding(rule, exchange) for rule in rules]
        metrics = {finding.rule: float(finding.passed) for finding in findings}
        return Check(findings, {PASS: float(all(metrics.values())), **metrics})

    def without(self, text: str) -> str:
        """The text without the sentences that carry a required wording."""
        patterns = [pattern for rule in self.config.rules for pattern in rule.require]
        return " ".join(s for s in sentences(text) if not any(_search(p, s) for p in patterns)).strip()

    def leaked(self, text: str) -> str | None:
        marker = next((rule for rule in self.config.rules if rule.name == self.config.marker), None)
        return None if marker is None else next(_matches(marker.require, _own_voice(marker, text)), None)

    def item_faults(self, item: Exchange) -> list[str]:
        return []

    def _elsewhere(self, exchange: Exchange) -> Check:
        if self.config.marker is None:
            return Check([])
        found = self.leaked(exchange.response)
        finding = RuleFinding(
            f"no_{self.config.marker}", found is None, f"no {self.config.marker} here", found or "none"
        )
        return Check([finding], {"specificity": float(finding.passed)})


def _finding(rule: Rule, exchange: Exchange) -> RuleFinding:
    """The rule's first fault; rules with several demands pass when all are met."""
    faults = [(expected, found) for expected, found in _demands(rule, exchange) if found is not None]
    if not faults:
        return RuleFinding(rule.name, True, rule.expected or f"rule {rule.name}", "nothing wrong")
    expected, found = faults[0]
    return RuleFinding(rule.name, False, rule.expected or expected, found)


def _demands(rule: Rule, exchange: Exchange) -> Iterator[tuple[str, str | None]]:
    """What each part of a rule expects, with what is wrong, or None."""
    text = _own_voice(rule, exchange.response)
    words = len(exchange.response.split())
    if rule.require:
        place = _place(rule, text)
        where = {"start": " in the first sentence", "end": " in the last sentence", "anywhere": ""}[rule.position]
        found = next(_matches(rule.require, place), None)
        yield f"a wording of '{rule.name}'{where}", None if found else (place[:80] or "nothing")
    if rule.forbid:
        yield f"no wording of '{rule.name}'", next(_matches(rule.forbid, text), None)
    if rule.min_words is not None:
        yield f"at least {rule.min_words} words", f"{words} words" if words < rule.min_words else None
    if rule.max_words is not None:
        yield f"at most {rule.max_words} words", f"{words} words" if words > rule.max_words else None
    if rule.function is not None:
        yield f"what '{rule.name}' demands", _called(rule, rule.function, exchange)


def _called(rule: Rule, function: Function, exchange: Exchange) -> str | None:
    """What the function finds wrong; raises UsageError when it fails, or returns anything but text or None."""
    try:
        found = function(exchange)
    except Exception as error:
        raise UsageError(f"the function of rule {rule.name} failed: {type(error).__name__}: {error}") from error
    if found is not None and not isinstance(found, str):
        raise UsageError(f"the function of rule {rule.name} must return text (what is wrong) or None, not {found!r}")
    return found


def _own_voice(rule: Rule, text: str) -> str:
    return plain(text) if rule.quoted else own_voice(text)


def _place(rule: Rule, text: str) -> str:
    found = list(sentences(text))
    if rule.position == "anywhere" or not found:
        return text.strip()
    return found[0] if rule.position == "start" else found[-1]


def _matches(patterns: list[Regex], text: str) -> Iterator[str]:
    for pattern in patterns:
        if match := re.search(pattern, text, re.IGNORECASE):
            yield match[0] or pattern


def _search(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None
