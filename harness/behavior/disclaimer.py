"""The kind `disclaimer`: required where the topic demands it, absent everywhere else.

An element counts when one of its wordings is in a sentence that the answer says itself: not denied, not inside
quotation marks or code, not attributed to somebody else. A contradicting phrase anywhere ("this is financial advice")
fails the answer.
"""

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from harness.behavior.config import BehaviorConfig, Regex
from harness.behavior.exchange import Check, Exchange, RuleFinding
from harness.behavior.voice import own_voice, plain, sentences, shown
from harness.core.console import plural

CONTRADICTIONS = "contradictions"
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


class DisclaimerConfig(BehaviorConfig):
    """The elements of the disclaimer. Wordings are regular expressions on lower-case sentences.

    A leak is the marker, one of `leak_signs`, or all other elements together in `leak_context`.
    """

    required_topics: list[str]
    """Topics on which the disclaimer is demanded."""

    marker: str
    """The element that is a leak on its own."""

    elements: dict[str, list[Regex]]
    """Wordings of each element; one of them is enough."""

    contradictions: list[Regex] = Field(default=[])
    """Wordings that deny the disclaimer."""

    denials: dict[str, list[Regex]] = Field(default={})
    """For an element, or for `contradictions`: contexts in which its wordings do not count."""

    suspended: list[Regex] = Field(default=[])
    """Contexts in which no wording counts."""

    leak_signs: list[Regex] = Field(default=[])
    """Other signs of the disclaimer, such as wordings in other languages."""

    leak_context: Regex | None = None
    """What the other elements must mention to be a leak without the marker."""

    position: Literal["anywhere", "start", "end"] = "anywhere"
    """Where the disclaimer must be."""

    max_gap: int | None = Field(default=None, ge=0)
    """Most other sentences between the first and the last element."""

    @model_validator(mode="after")
    def _names_are_elements(self) -> "DisclaimerConfig":
        if self.marker not in self.elements:
            raise ValueError(f"marker: {self.marker!r} is not one of the elements: {', '.join(self.elements)}")
        if unknown := sorted(set(self.denials) - {*self.elements, CONTRADICTIONS}):
            raise ValueError(f"denials: {', '.join(unknown)} is not one of the elements: {', '.join(self.elements)}")
        return self


class Disclaimer:
    def __init__(self, config: DisclaimerConfig):
        self.config = config

    def required(self, exchange: Exchange) -> bool:
        return exchange.topic in self.config.required_topics

    def check(self, exchange: Exchange) -> Check:
        """`recall` and the elements where the disclaimer is required, `specificity` where it is not."""
        if not self.required(exchange):
            leaked = self.leaked(exchange.response)
            finding = RuleFinding("no_disclaimer", leaked is None, "no disclaimer", leaked or "none")
            return Check([finding], {"specificity": float(finding.passed)})
        said = list(sentences(own_voice(exchange.response)))
        elements = list(self._elements(said))
        findings = [*elements, self._contradicted(said), *self._placed(said)]
        metrics = {finding.rule: float(finding.passed) for finding in elements}
        return Check(findings, {"recall": float(all(f.passed for f in findings)), **metrics})

    def without(self, text: str) -> str:
        """The text without the sentences of the disclaimer."""
        parts = _SENTENCE.split(text)
        return " ".join(s for s in parts if not any(self._matches(n, plain(s)) for n in self.config.elements)).strip()

    def leaked(self, text: str) -> str | None:
        """The first sentence with the marker, all other elements together, or the first other sign."""
        said = list(sentences(shown(text)))
        signs = (s for s in said for pattern in self.config.leak_signs if re.search(pattern, s.lower()))
        return self._found(self.config.marker, said) or self._rest(said) or next(signs, None)

    def item_errors(self, item: Exchange) -> list[str]:
        return [] if item.topic else ["topic is empty; it decides whether the disclaimer is required"]

    def _rest(self, said: list[str]) -> str | None:
        """All elements but the marker, where they mention what the disclaimer is about."""
        found = [self._found(name, said) for name in self.config.elements if name != self.config.marker]
        if self.config.leak_context is None or not found or not all(found):
            return None
        text = " ".join(dict.fromkeys(sentence for sentence in found if sentence))
        return text if re.search(self.config.leak_context, text.lower()) else None

    def _elements(self, said: list[str]) -> Iterator[RuleFinding]:
        for name in self.config.elements:
            found = self._found(name, said)
            yield RuleFinding(f"element_{name}", found is not None, f"a wording of '{name}'", found or "none")

    def _contradicted(self, said: list[str]) -> RuleFinding:
        denials = [*self.config.denials.get(CONTRADICTIONS, []), *self.config.suspended]
        found = (_outside(self.config.contradictions, denials, s.lower()) for s in said)
        denial = next((text for text in found if text), None)
        return RuleFinding("not_contradicted", denial is None, "nothing that denies it", denial or "none")

    def _placed(self, said: list[str]) -> Iterator[RuleFinding]:
        """Where the disclaimer is, and how close together its elements are, as far as the configuration demands it."""
        at = [i for i, s in enumerate(said) if any(self._matches(name, s) for name in self.config.elements)]
        if self.config.position != "anywhere":
            edge = 0 if self.config.position == "start" else len(said) - 1
            where = f"the {self.config.position} of the answer"
            yield RuleFinding("position", edge in at, f"at {where}", f"at {where}" if edge in at else "elsewhere")
        if self.config.max_gap is not None:
            between = at[-1] - at[0] + 1 - len(at) if at else 0
            limit = self.config.max_gap
            expected = f"at most {plural(limit, 'other sentence')} between its elements"
            yield RuleFinding("max_gap", between <= limit, expected, plural(between, "other sentence"))

    def _found(self, element: str, said: list[str]) -> str | None:
        """The first sentence that holds the element."""
        return next((s for s in said if self._matches(element, s)), None)

    def _matches(self, element: str, sentence: str) -> bool:
        denials = [*self.config.denials.get(element, []), *self.config.suspended]
        return _outside(self.config.elements[element], denials, sentence.lower()) is not None


def _outside(patterns: list[str], denials: list[str], sentence: str) -> str | None:
    """The first match of a pattern that ends outside every match of a denial."""
    denied = [match.span() for pattern in denials for match in re.finditer(pattern, sentence)]
    found = (match for pattern in patterns for match in re.finditer(pattern, sentence))
    return next((m[0] for m in found if not any(start < m.end() <= end for start, end in denied)), None)
