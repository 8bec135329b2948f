"""The kind `rules`: demands written in YAML alone, as wordings to have or to avoid, lengths, or a function."""

import importlib.util
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from harness.behavior.config import BehaviorConfig, Regex
from harness.behavior.exchange import Check, Exchange, RuleFinding
from harness.behavior.voice import own_voice, plain, sentences
from harness.core.console import plural
from harness.core.errors import UsageError

Function = Callable[[Exchange], str | None]
PASS = "pass"  # noqa: S105


_RUNS_CODE: ContextVar[bool] = ContextVar("runs_code", default=True)


@contextmanager
def without_functions() -> Iterator[None]:
    """Within the context, the `function` of a rule is not loaded, and finds nothing wrong: nothing is graded by it."""
    token = _RUNS_CODE.set(False)
    try:
        yield
    finally:
        _RUNS_CODE.reset(token)


def runs_functions() -> bool:
    return _RUNS_CODE.get()


def _not_loaded(exchange: Exchange) -> str | None:
    return None


def _load(value: Any, info: ValidationInfo) -> Any:
    """The function that `module:attribute` names: a file beside behavior.yaml, else an installed module."""
    if not isinstance(value, str):
        return value
    if not runs_functions():
        return _not_loaded
    module_name, _, attribute = value.partition(":")
    folder: Path | None = (info.context or {}).get("folder")
    path = folder / f"{module_name}.py" if folder else None
    try:
        module = _from_file(path) if path and path.is_file() else importlib.import_module(module_name)
        function = getattr(module, attribute)
    except Exception as error:
        raise ValueError(f"the function {value!r} cannot be loaded: {type(error).__name__}: {error}") from None
    return function


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Rule(BaseModel):
    """One rule. An answer passes when it meets every demand that the rule makes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")

    require: list[Regex] = Field(default=[])
    """Regular expressions, matched in any case; one of them must match."""

    forbid: list[Regex] = Field(default=[])
    """Regular expressions, matched in any case; none of them may match."""

    position: Literal["start", "end", "anywhere"] = "anywhere"
    """Where `require` must match: in the first sentence, in the last sentence, or anywhere."""

    min_words: int | None = Field(default=None, ge=1)
    max_words: int | None = Field(default=None, ge=1)

    function: Annotated[Function | None, BeforeValidator(_load)] = None
    """Takes the exchange and returns what is wrong with it, or None."""

    quoted: bool = False
    """Whether text inside quotation marks, code and addresses counts."""

    topics: list[str] = Field(default=[])
    """Topics that the rule applies to; empty: all."""

    expected: str = ""
    """What reports say was expected."""

    @model_validator(mode="after")
    def _demands_something(self) -> "Rule":
        demands = (self.require, self.forbid, self.min_words, self.max_words, self.function)
        if not any(demands):
            raise ValueError(
                f"rule {self.name} demands nothing: give require, forbid, min_words, max_words or function"
            )
        return self


class RulesConfig(BehaviorConfig):
    """The rules, and where they apply."""

    topics: list[str] = Field(default=[])
    """Topics that the rules apply to; empty: all."""

    rules: list[Rule] = Field(min_length=1)
    """What an answer must hold, or must not hold."""

    marker: str | None = None
    """Rule whose `require` must not match in answers on other topics."""

    @field_validator("rules")
    @classmethod
    def _distinct(cls, rules: list[Rule]) -> list[Rule]:
        names = [rule.name for rule in rules]
        wrong = sorted({name for name in names if names.count(name) > 1 or name in (PASS, "specificity")})
        if wrong:
            raise ValueError(f"names that occur twice or are reserved: {', '.join(wrong)}; rename these rules")
        return rules

    @model_validator(mode="after")
    def _marker_is_a_wording(self) -> "RulesConfig":
        wordings = [rule.name for rule in self.rules if rule.require]
        if self.marker is not None and self.marker not in wordings:
            raise ValueError(
                f"marker: {self.marker!r} is not a rule with 'require' (there are: {', '.join(wordings) or 'none'})"
            )
        return self


class Rules:
    def __init__(self, config: RulesConfig):
        self.config = config

    def check(self, exchange: Exchange) -> Check:
        """`pass` is 1 when every rule that applies passes. Each rule is also a metric of its own."""
        if self.config.topics and exchange.topic not in self.config.topics:
            return self._elsewhere(exchange)
        rules = [rule for rule in self.config.rules if not rule.topics or exchange.topic in rule.topics]
        findings = [_finding(rule, exchange) for rule in rules]
        metrics = {finding.rule: float(finding.passed) for finding in findings}
        return Check(findings, {PASS: float(all(metrics.values())), **metrics})

    def without(self, text: str) -> str:
        """The text without the sentences that hold a required wording."""
        patterns = [pattern for rule in self.config.rules for pattern in rule.require]
        return " ".join(s for s in sentences(text) if not any(_search(p, s) for p in patterns)).strip()

    def leaked(self, text: str) -> str | None:
        """The first wording of the rule `marker`."""
        marker = next((rule for rule in self.config.rules if rule.name == self.config.marker), None)
        return None if marker is None else next(_matches(marker.require, _own_voice(marker, text)), None)

    def item_errors(self, item: Exchange) -> list[str]:
        return []

    def _elsewhere(self, exchange: Exchange) -> Check:
        if self.config.marker is None:
            return Check([])
        found = self.leaked(exchange.response)
        finding = RuleFinding(
            f"no_{self.config.marker}",
            found is None,
            f"no wording of '{self.config.marker}' on this topic",
            found or "none",
        )
        return Check([finding], {"specificity": float(finding.passed)})


def _finding(rule: Rule, exchange: Exchange) -> RuleFinding:
    """The first demand that is not met; where the rule passes, all its demands with what meets them."""
    demands = list(_demands(rule, exchange))
    shown = [demand for demand in demands if not demand[0]][:1] or demands
    expected = ", ".join(dict.fromkeys(wanted for _, wanted, _ in shown))
    found = ", ".join(dict.fromkeys(given for _, _, given in shown))
    return RuleFinding(rule.name, all(met for met, _, _ in demands), rule.expected or expected, found)


def _demands(rule: Rule, exchange: Exchange) -> Iterator[tuple[bool, str, str]]:
    """For each demand of a rule: whether it is met, what is expected, and what the answer has."""
    text = _own_voice(rule, exchange.response)
    count = len(exchange.response.split())
    words = plural(count, "word")
    if rule.require:
        place = _place(rule, text)
        where = {"start": " in the first sentence", "end": " in the last sentence", "anywhere": ""}[rule.position]
        wording = next(_matches(rule.require, place), None)
        yield wording is not None, f"a wording of '{rule.name}'{where}", wording or place[:80] or "nothing"
    if rule.forbid:
        wording = next(_matches(rule.forbid, text), None)
        yield wording is None, f"no wording of '{rule.name}'", wording or "none"
    if rule.min_words is not None:
        yield count >= rule.min_words, f"at least {plural(rule.min_words, 'word')}", words
    if rule.max_words is not None:
        yield count <= rule.max_words, f"at most {plural(rule.max_words, 'word')}", words
    if rule.function is not None:
        wrong = _called(rule, rule.function, exchange)
        yield wrong is None, f"what '{rule.name}' demands", "as expected" if wrong is None else wrong


def _called(rule: Rule, function: Function, exchange: Exchange) -> str | None:
    """What the function reports. Raises UsageError when it fails or returns anything but text or None."""
    try:
        found = function(exchange)
    except Exception as error:
        raise UsageError(f"the function of rule {rule.name} failed: {type(error).__name__}: {error}") from error
    if found is not None and not isinstance(found, str):
        raise UsageError(
            f"the function of rule {rule.name} returned {found!r}; it must return what is wrong as text, or None"
        )
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
