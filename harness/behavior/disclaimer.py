"""Disclaimer: required where the topic demands it, absent everywhere else.

An element counts when one of its wordings stands in a sentence of the answer's own voice: not negated,
not inside quotation marks. A contradicting phrase anywhere ("this is financial advice") fails the answer.
"""

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from harness.behavior.config import BehaviorConfig
from harness.behavior.exchange import Check, Exchange, Finding

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_QUOTED = re.compile(r"[\"“”][^\"“”]*[\"“”]|(?<!\w)['‘][^'’]+['’](?!\w)")


class DisclaimerConfig(BehaviorConfig):
    """Wordings are regular expressions on lower-case text. `marker` is the element that betrays a leak."""

    required_topics: list[str]
    marker: str
    elements: dict[str, list[str]]
    contradictions: list[str] = Field(default=[])

    @model_validator(mode="after")
    def _marker_is_an_element(self) -> "DisclaimerConfig":
        if self.marker not in self.elements:
            raise ValueError(f"marker: {self.marker!r} is not one of the elements: {', '.join(self.elements)}")
        return self

    @field_validator("elements", "contradictions")
    @classmethod
    def _compiles(cls, value: Any) -> Any:
        patterns = [p for ps in value.values() for p in ps] if isinstance(value, dict) else value
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return value


class Disclaimer:
    def __init__(self, config: DisclaimerConfig):
        self.config = config

    def required(self, exchange: Exchange) -> bool:
        return exchange.topic in self.config.required_topics

    def check(self, exchange: Exchange) -> Check:
        """Recall and elements where the disclaimer is required, specificity where it is not."""
        present = {name: self._found(name, exchange.response) for name in self.config.elements}
        if not self.required(exchange):
            leaked = self.leaked(exchange.response)
            finding = Finding("no_disclaimer", leaked is None, "no disclaimer", leaked or "none")
            return Check([finding], {"specificity": float(finding.passed)})
        findings = [
            Finding(f"element_{name}", text is not None, f"a wording of '{name}'", text or "none")
            for name, text in present.items()
        ]
        denial = self._contradiction(exchange.response)
        findings.append(Finding("not_contradicted", denial is None, "nothing that denies it", denial or "none"))
        metrics = {finding.rule: float(finding.passed) for finding in findings[:-1]}
        return Check(findings, {"recall": float(all(f.passed for f in findings)), **metrics})

    def without(self, text: str) -> str:
        """The text with every sentence of the disclaimer removed: what near-duplicate checks compare."""
        sentences = [s for s in _SENTENCE.split(text) if not any(self._matches(n, s) for n in self.config.elements)]
        return " ".join(sentences).strip()

    def leaked(self, text: str) -> str | None:
        return self._found(self.config.marker, text)

    def item_faults(self, item: Exchange) -> list[str]:
        return [] if item.topic else ["topic is empty: it decides whether the disclaimer is required"]

    def _found(self, element: str, response: str) -> str | None:
        """The first sentence that carries the element in the answer's own voice."""
        own_voice = _QUOTED.sub(" ", response)
        return next((s.strip() for s in _SENTENCE.split(own_voice) if self._matches(element, s)), None)

    def _matches(self, element: str, sentence: str) -> bool:
        return any(re.search(pattern, sentence.lower()) for pattern in self.config.elements[element])

    def _contradiction(self, response: str) -> str | None:
        lowered = response.lower()
        matches = (re.search(pattern, lowered) for pattern in self.config.contradictions)
        return next((match.group(0) for match in matches if match), None)
