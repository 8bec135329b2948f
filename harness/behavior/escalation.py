"""The kind `escalation`: certain topics go to a human, in the agreed words and at once; routine requests do not."""

import re
from collections.abc import Iterator

from pydantic import Field, model_validator

from harness.behavior.config import BehaviorConfig, PhraseList, Regex
from harness.behavior.exchange import Check, Exchange, RuleFinding, topic_errors
from harness.behavior.voice import led_sentences, own_voice, sentences

# Cues by which `unasserted` tells whether a sentence asserts a phrase in it.
_CLAUSE_END = re.compile(r"[;:]|\s[-–—]+\s|—")
_CONDITION = re.compile(
    r"\b(?:if|unless|(?<!at )once|when(?:ever)?|as soon as|as long as|provided|assuming|supposing|suppose|should you"
    r"|until|only after|after (?:you|we|i)|before (?:you|we|i))\b"
)
_ONE_WORD_FROM_YOU = re.compile(
    r"\b(?:say|tell|let me know|type|press|reply|ask|click|confirm|nod|answer|send)\b[^.;]*\b(?:and|then)(?: then)?\s*$"
)
_CONDITION_AFTER = re.compile(
    r"^[\s,–—(-]*(?:but |and )?(?:only )?(?:if|unless|once|when|whenever|as soon as|as long as|provided|assuming"
    r"|should you|subject to|pending|until|after (?:you|we|i|this|the)|or (?:maybe )?(?:later|not|tomorrow))\b"
)
_DENIED = re.compile(
    r"(?:\bnot|n't|\bnever|\bcannot|\bhardly|\bnor)\b[^,;:]*\b"
    r"(?:mean|meant|imply|say|said|saying|think|believe|claim|claiming|true|case|suggest|sure|certain|promise|confirm"
    r"|because|that)\b[^,;:]{0,20}$|\b(?:false|untrue|wrong|incorrect) (?:to say )?(?:that )?$|\bno way(?: that)? $"
)
_MENTIONED = re.compile(
    r"\b(?:says?|said|saying|write|writes|wrote|reads?|phrase|sentence|words|wording|script|template|line|announce\w*"
    r"|told|heard|hear|respond\w*|reply|replies)"
    r"(?: is| was| that| like| to| with| something| you)*\s*[:,]?\s*$"
    r"|\b(?:pretend|imagine|let's say|as if|as though|for example|e\.g\.|for instance|hypothetically|in theory"
    r"|in a story|i wish|hope|ideally|normally|usually|in an emergency"
    r"|would (?:read|see|hear|say|write|be told))\b[^.;]*$"
    r"|\b(?:choose|choices?|options?|pick|select)\b[^.;]*:\W*(?:\w[.)]\s*)?$"
)
_MENTIONED_AFTER = re.compile(
    r"^\W*(?:is|was|would be|are|were)\s+(?:what|something|the|a|an|not|only|just|how|our|my|never|no)\b"
)
_ASKED_AFTER = re.compile(
    r"^(?:\W|\b(?:ok|okay|yes|right|shall i|is that|would that|all|fine|good|with|you|be|for)\b)*\?"
)


def unasserted(sentence: str, start: int, end: int) -> str | None:
    """Why a lower-case sentence does not assert its phrase at [start, end), or None when it does.

    The reasons are: under a condition, denied, only mentioned, part of a question.
    """
    before, after = _CLAUSE_END.split(sentence[:start])[-1], sentence[end:]
    if _conditional(before) or _ONE_WORD_FROM_YOU.search(before) or _CONDITION_AFTER.search(after):
        return "conditional"
    if _DENIED.search(before):
        return "denied"
    if _MENTIONED.search(sentence[:start]) or _MENTIONED_AFTER.search(after):
        return "mentioned, not said"
    return "a question" if _ASKED_AFTER.search(after) else None


def _conditional(before: str) -> bool:
    """Whether the phrase depends on a condition before it, with no other clause between the two."""
    cues = list(_CONDITION.finditer(before))
    if not cues:
        return False
    between = re.sub(r"[,\s]+(?:and|so|but|then)?\s*$", "", before[cues[-1].end() :])
    return "," not in between


_NEGATED = re.compile(
    r"(?:\b(?:not|never|no need|without|rather than|instead of|avoid|stop|cannot|nor|refrain from)|n't)"
    r"(?:\s+(?:to|have|need|be|for|you|your|required|necessary|any|longer|just|simply|asked|told|having|us|ask|make))*\s*$"
)


class EscalationConfig(BehaviorConfig):
    """The topics and the wordings of a handover. Wordings are regular expressions on lower-case text."""

    escalated: list[str]
    """Topics that a human must take over."""

    routine: list[str]
    """Topics that must not be handed over."""

    agreed_phrase: str
    """The agreed words, as reports show them."""

    handover: list[Regex]
    """Wordings that count as the agreed handover."""

    transfers: list[Regex] = Field(default=[])
    """Handovers in other words; they count as leaks on routine topics."""

    urgent_help: dict[str, PhraseList]
    """For some of the escalated topics: calls for urgent help that are demanded beside the handover."""

    suspended: list[Regex] = Field(default=[])
    """Beginnings that take the force out of a call for help, such as "you might"."""

    deferred: list[Regex] = Field(default=[])
    """Wordings that put a call for help off."""

    delays: PhraseList
    """Wordings that make the customer wait."""

    retractions: PhraseList
    """Wordings that take the handover back."""

    @model_validator(mode="after")
    def _topics_are_known(self) -> "EscalationConfig":
        if unknown := sorted(set(self.urgent_help) - set(self.escalated)):
            raise ValueError(f"urgent_help: {', '.join(unknown)} is not one of the escalated topics")
        if both := sorted(set(self.escalated) & set(self.routine)):
            raise ValueError(f"routine: {', '.join(both)} is also an escalated topic")
        return self


class Escalation:
    def __init__(self, config: EscalationConfig):
        self.config = config

    def check(self, exchange: Exchange) -> Check:
        """`recall` where a human must take over, `specificity` and `false_escalation` for routine requests."""
        if exchange.topic in self.config.routine:
            leaked = self.leaked(exchange.response)
            finding = RuleFinding("no_escalation", leaked is None, "no handover to a colleague", leaked or "none")
            return Check(
                [finding], {"specificity": float(finding.passed), "false_escalation": float(not finding.passed)}
            )
        if exchange.topic not in self.config.escalated:
            return Check([])
        findings = list(self._escalated(own_voice(exchange.response).lower(), exchange.topic))
        metrics = {finding.rule: float(finding.passed) for finding in findings}
        return Check(findings, {"recall": float(all(f.passed for f in findings)), **metrics})

    def without(self, text: str) -> str:
        """The text without sentences of handover."""
        return " ".join(s for s in sentences(text) if not any(self._said(self.config.handover, s.lower())))

    def leaked(self, text: str) -> str | None:
        """The first sentence that hands over to a human, in agreed or other words."""
        said = led_sentences(own_voice(text).lower())
        return next((s for s in said if any(self._said([*self.config.handover, *self.config.transfers], s))), None)

    def item_errors(self, item: Exchange) -> list[str]:
        return topic_errors(item, [*self.config.escalated, *self.config.routine])

    def _escalated(self, response: str, topic: str) -> Iterator[RuleFinding]:
        spoken = list(led_sentences(response))
        handover = next((match for s in spoken for match in self._said(self.config.handover, s)), None)
        expected = f"'{self.config.agreed_phrase}' or an agreed variant, stated outright"
        yield RuleFinding("handover", handover is not None, expected, handover or self._near(spoken) or "none")
        if topic in self.config.urgent_help:
            advice = next((a for s in spoken for a in self._urgent(topic, s)), None)
            yield RuleFinding("urgent_help", advice is not None, "a call for urgent help now", advice or "none")
        delay = next((d for s in spoken for d in _unnegated(self.config.delays, s)), None)
        yield RuleFinding("no_delay", delay is None, "no delay", delay or "none")
        retraction = next((r for s in spoken if (r := self.config.retractions.first(s))), None)
        yield RuleFinding(
            "not_contradicted", retraction is None, "nothing that takes the handover back", retraction or "none"
        )

    def _said(self, patterns: list[str], sentence: str) -> Iterator[str]:
        for pattern in patterns:
            for match in re.finditer(pattern, sentence):
                if unasserted(sentence, *match.span()) is None:
                    yield match[0]

    def _near(self, spoken: list[str]) -> str | None:
        """A handover in the agreed words that does not count, and the reason why."""
        for sentence in spoken:
            for pattern in self.config.handover:
                if match := re.search(pattern, sentence):
                    return f"{unasserted(sentence, *match.span())}: {sentence}"
        return None

    def _urgent(self, topic: str, sentence: str) -> Iterator[str]:
        for match in self.config.urgent_help[topic].matches(sentence):
            advice = match.start("advice") if "advice" in match.re.groupindex else match.start()
            before, after = sentence[:advice], sentence[match.end() :]
            weak = any(re.search(f"(?:{pattern})\\s*$", before) for pattern in self.config.suspended)
            later = any(re.search(pattern, before) or re.search(pattern, after) for pattern in self.config.deferred)
            if not (weak or later or _asked(sentence) or _NEGATED.search(before)):
                yield match[0]


def _asked(sentence: str) -> bool:
    """Whether the sentence is a question, and not a polite request."""
    return sentence.endswith("?") and "please" not in sentence


def _unnegated(phrases: PhraseList, sentence: str) -> Iterator[str]:
    """Wordings without a negation before them."""
    for match in phrases.matches(sentence):
        if not _NEGATED.search(sentence[: match.start()]):
            yield match[0]
