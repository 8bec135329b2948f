"""The kind `approved`: texts that an organisation has approved, word for word, where a topic demands them.

A text counts as said where its words stand in the answer in order, whatever their case, white space, punctuation and
typographic form. `tolerance` allows that many words to be missing, added or spelt otherwise; never a number, a
negation, or another word. What is inside quotation marks or code does not count, nor what the answer denies, dismisses
or contradicts.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.behavior.config import BehaviorConfig, Regex
from harness.behavior.exchange import Check, Exchange, RuleFinding
from harness.behavior.voice import own_voice, plain, quotations, sentences, without_code

PLACEHOLDER_WORDS = 6  # most words that one placeholder stands for
NEAR = 60  # characters of an answer that a finding shows
_WORD = re.compile(r"\{\w+\}|\w+(?:[.,]\d+)*(?:['\u2019]\w+)*%?")
_SENTENCE_END = re.compile(r"[.!?:;](?=[\s\"'\u201d\u2019)\]]|$)|\n")
_FULL_STOP = re.compile(r"[.!?](?=[\s\"'\u201d\u2019)\]]|$)|\n")
_PROTECTED = re.compile(
    r"\d.*|not?|never|none|nothing|n?either|nor|without|cannot|unless|except|only|hardly|barely|rarely"
    r"|seldom|\w+n'?t|always|guaranteed?|must|may|can|could|might|will|should"
)
_DENIED_BEFORE = re.compile(
    r"\b(?:not?|never|nor|without|cannot|\w+n't|ignor(?:e|ing)|disregard|forget(?:ting)?|skip(?:ping)?|drop|omit"
    r"|leave out|false|untrue|wrong|nonsense|myth|pretend|supposedly|allegedly|refuse|instead of|rather than"
    r"|stop saying|used to|boilerplate|small print|(?:supposed|have|had|required|told) (?:to )?(?:say|add|write)"
    r"|claims? that|they say)\b",
    re.IGNORECASE,
)
_THING = (
    r"(?:that|this|it|what i (?:just )?said|(?:the|my|that|this) (?:above|previous|last|usual|following|next"
    r"|small print|boilerplate|sentences?|lines?|disclaimer|warning|notice|rest|text))"
)
# Verbs that dismiss count unless they are denied themselves: "do not forget that fees matter".
_DISMISSED = re.compile(
    r"(?:(?<!\bnot )(?<!n't )(?<!\bnever )\b(?:ignore|disregard|forget|skip|scratch|never mind|pay no attention to)"
    r"|\b(?:don't|do not) (?:worry about|mind|take|believe|trust))\b[^.!?\n]{0,40}\b"
    rf"{_THING}\b"
    r"|\b(?:just|only) (?:kidding|joking|a joke|boilerplate|a formality|small print)\b"
    rf"|\b{_THING} (?:(?:is|was|does)(?: not|n't)|can't|cannot) (?:be )?"
    r"(?:true|apply|count|matter|meant|serious|taken|really)\b"
    rf"|\b{_THING} (?:is|was) (?:all )?(?:false|wrong|nonsense|untrue|boilerplate|a lie|a joke|rubbish)\b"
    r"|\b(?:none|not a word|nothing) of (?:that|this|it|the above) (?:is|was|applies|counts|matters)\b"
    r"|\b(?:does not|doesn't) apply (?:here|to you)\b|\blawyers? (?:make|made) me\b"
    r"|\b(?:have|had) to say (?:that|this)\b"
    r"|^\W*(?:no way|not really|as if|yeah,? right|of course not|whatever)\b",
    re.IGNORECASE,
)
# A clause that introduces the text (with a colon, or as the whole of the line above it) and takes it back.
_UNSAID = re.compile(
    r"(?:\b(?:not|never|no longer|refuse to|cannot)\b|n't\b)[^.!?\n]{0,30}\b(?:say|saying|tell|telling|write|writing"
    r"|add|adding|repeat|read|claim|claiming|hear|believe|true|going to|need|mean)\b"
    r"|\b(?:would|could|should have|might) (?:\w+ )?(?:say|write|add|tell|claim)\b"
    r"|\b(?:want|wants|wanted|make|makes|made|ask|asks|asked|force|forces|forced|require|requires|required|tell|told)"
    r" (?:me|us)\b|\b(?:a lie|lies|a joke|false|untrue|nonsense|rubbish|a myth|pretend(?:ing)?)\b",
    re.IGNORECASE,
)
_NOT = re.compile(r"\bnot ((?:(?!to\b|do\b|be\b)\w+ ){1,2}\w+)(?=[.,;:!?]|$)", re.IGNORECASE)
_NEGATED = re.compile(r"\b(?:not?|never|nor|neither|nothing|none|cannot|without|if|whether)\b|n't\b|\?", re.IGNORECASE)
_AFTER_IN_SENTENCE = re.compile(
    r"^[\s,;:\u2013\u2014-]*(?:not[!.]|or so (?:they|the)|which is (?:nonsense|false|untrue|not true|wrong|rubbish)"
    r"|but (?:you can |please )?(?:ignore|forget)|supposedly|allegedly|is (?:false|untrue|wrong|not true|nonsense)"
    r"|unless you|except (?:for you|today)|is what (?:i|they|we)\b)",
    re.IGNORECASE,
)


class ApprovedText(BaseModel):
    """One approved text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Annotated[str, Field(min_length=1)]
    """The text as approved. `{name}` stands for one to six words of the answer."""

    variants: list[str] = []
    """Other approved forms of it; one form is enough."""

    placement: Literal["anywhere", "start", "end", "own_paragraph"] = "anywhere"
    """Where it must stand: first, last, or as a paragraph of its own."""

    tolerance: Annotated[int, Field(ge=0, le=5)] = 0
    """Words that may be missing, added or spelt otherwise; never a number, a negation, a modal verb or another word."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "approved_text"
    """Name of the rule in findings and metrics."""

    @field_validator("variants", "text")
    @classmethod
    def _has_words(cls, value: str | list[str]) -> str | list[str]:
        for one in [value] if isinstance(value, str) else value:
            if not [word for word, _, _ in words_of(one) if not word.startswith("{")]:
                raise ValueError(f"{one!r} has no word besides placeholders; write the approved text")
        return value

    @property
    def forms(self) -> list[str]:
        return [self.text, *self.variants]


class ApprovedConfig(BehaviorConfig):
    """Approved texts, and where they are demanded."""

    required_topics: list[str] = []
    """Topics on which every text is demanded, and outside which none may be said; empty: all topics."""

    approved: list[ApprovedText] = Field(min_length=1)
    """The texts; each must be said."""

    contradictions: list[Regex] = []
    """Regular expressions, matched in any case, that contradict the texts wherever the answer says them."""

    @model_validator(mode="after")
    def _distinct(self) -> "ApprovedConfig":
        names = [one.name for one in self.approved]
        wrong = sorted({name for name in names if names.count(name) > 1 or name in ("recall", "specificity")})
        if wrong:
            raise ValueError(f"names that occur twice or are reserved: {', '.join(wrong)}; give each text its own name")
        return self


Words = list[tuple[str, int, int]]  # (word in its plain form, first character, end) in the text


def words_of(text: str) -> Words:
    """The words of a text in one form: small letters, straight apostrophes, compatibility characters replaced."""
    found = []
    for match in _WORD.finditer(text):
        word = unicodedata.normalize("NFKC", match[0]).casefold().replace("\u2019", "'")
        found.append((word, match.start(), match.end()))
    return found


@dataclass(frozen=True)
class Said:
    """Where an approved form stands in an answer: its characters, and the words that differ."""

    start: int
    end: int
    changes: tuple[str, ...] = ()


def said_in(form: str, answer: str, words: Words, tolerance: int) -> Iterator[Said]:
    """The places where the answer says the form, exact ones first; `words` are those of the answer."""
    wanted = [word for word, _, _ in words_of(form)]
    tokens = [word for word, _, _ in words]
    exact = list(_exact(wanted, tokens))
    for first, end in exact:
        yield Said(words[first][1], words[end - 1][2])
    if tolerance and not exact:
        for first, end, changes in _near(wanted, tokens, tolerance):
            yield Said(words[first][1], words[end - 1][2], changes)


def _exact(wanted: list[str], tokens: list[str]) -> Iterator[tuple[int, int]]:
    if not any(word.startswith("{") for word in wanted):
        key, text = " " + " ".join(wanted) + " ", " " + " ".join(tokens) + " "
        start = text.find(key)
        while start >= 0:
            first = text.count(" ", 0, start + 1) - 1
            yield first, first + len(wanted)
            start = text.find(key, start + 1)
        return
    gap = rf"(?:\S+ ){{1,{PLACEHOLDER_WORDS}}}?"
    pattern = "".join(gap if word.startswith("{") else re.escape(word) + " " for word in wanted)
    text = " ".join(tokens) + " "
    for match in re.finditer(rf"(?<!\S){pattern}", text):
        first = text.count(" ", 0, match.start())
        yield first, first + match[0].count(" ")


def _near(wanted: list[str], tokens: list[str], tolerance: int) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Places where at most `tolerance` words differ, none of them protected, the fewest changes first."""
    from rapidfuzz.distance import Levenshtein

    if len(set(wanted) & set(tokens)) < len(set(wanted)) - tolerance:
        return
    found = []
    for first in range(len(tokens)):
        for length in range(max(1, len(wanted) - tolerance), len(wanted) + tolerance + 1):
            part = tokens[first : first + length]
            if len(part) < length:
                break
            if part[0] not in wanted[: tolerance + 1] or part[-1] not in wanted[-tolerance - 1 :]:
                continue
            distance = Levenshtein.distance(wanted, part, score_cutoff=tolerance)
            if distance <= tolerance:
                found.append((distance, first, first + length, part))
    for _, first, end, part in sorted(found, key=lambda one: (one[0], one[1], one[2])):
        changes, protected = _changes(wanted, part)
        if not protected:
            yield first, end, changes


def _changes(wanted: list[str], part: list[str]) -> tuple[tuple[str, ...], bool]:
    """What differs, in words, and whether a protected word is among it."""
    from rapidfuzz.distance import Levenshtein

    changes: list[str] = []
    protected = False
    for edit in Levenshtein.editops(wanted, part):
        before = wanted[edit.src_pos] if edit.tag != "insert" else ""
        after = part[edit.dest_pos] if edit.tag != "delete" else ""
        changes.append(f"{before or '–'} → {after or '–'}")
        protected |= any(_PROTECTED.fullmatch(word) is not None for word in (before, after) if word)
        protected |= edit.tag == "replace" and not _alike(before, after)
    return tuple(changes), protected


def _alike(one: str, other: str) -> bool:
    """Whether two words are spellings of one: adviser and advisor, information and info, but not lose and gain."""
    from rapidfuzz.distance import Levenshtein

    short, long = sorted((one, other), key=len)
    return (len(short) >= 4 and long.startswith(short)) or (len(short) >= 5 and Levenshtein.distance(one, other) <= 2)


def broken_by(answer: str, said: Said, placement: str) -> str | None:
    """Why a text that is said does not count: quoted, denied, dismissed, or in another place. None where it counts."""
    quoted = any(start <= said.start and said.end <= end for start, end in quotations(answer))
    if quoted or not without_code(answer)[said.start : said.end].strip():
        return "inside quotation marks or code"
    before, after = answer[: said.start], answer[said.end :]
    begun = max((match.end() for match in _SENTENCE_END.finditer(before)), default=0)
    if denied := _DENIED_BEFORE.search(before[begun:]):
        return f"denied by '{denied[0]}' before it"
    if re.match(r"[^.!?\n]{0,20}\?", after):
        return "asked, and not said"
    if turned := _AFTER_IN_SENTENCE.search(after):
        return f"denied after it: {turned[0].strip()}"
    leading = before.rstrip("\n -*>#").rstrip()
    if leading.endswith(":") and (unsaid := _UNSAID.search(_FULL_STOP.split(leading)[-1])):
        return f"introduced by '{unsaid[0][:NEAR]}'"
    near_before = before[:begun]
    last = list(_FULL_STOP.finditer(near_before.rstrip()[:-1]))
    sentence_before = near_before[last[-1].end() :] if last else near_before
    if dismissed := (_DISMISSED.search(sentence_before) or _DISMISSED.search(after)):
        return f"dismissed: {dismissed[0][:NEAR]}"
    return _misplaced(answer, said, placement)


def _misplaced(answer: str, said: Said, placement: str) -> str | None:
    before, after = answer[: said.start], answer[said.end :]
    if placement == "start" and _FULL_STOP.search(before.strip()):
        return "not at the start of the answer"
    if placement == "end" and words_of(after):
        return "not at the end of the answer"
    if placement == "own_paragraph":
        line = before.rpartition("\n")[2] + after.partition("\n")[0]
        if words_of(line):
            return "not a paragraph of its own"
    return None


class Approved:
    def __init__(self, config: ApprovedConfig):
        self.config = config

    def check(self, exchange: Exchange) -> Check:
        """`recall`, and every text by its name, where the texts are demanded; `specificity` where they are not."""
        if self.config.required_topics and exchange.topic not in self.config.required_topics:
            leaked = self.leaked(exchange.response)
            finding = RuleFinding("no_approved_text", leaked is None, "none of the approved texts", leaked or "none")
            return Check([finding], {"specificity": float(finding.passed)})
        answer = plain(exchange.response)
        words = words_of(answer)
        findings = [self._finding(text, answer, words) for text in self.config.approved]
        metrics = {finding.rule: float(finding.passed) for finding in findings}
        findings.append(self._contradicted(answer, words))
        return Check(findings, {"recall": float(all(finding.passed for finding in findings)), **metrics})

    def without(self, text: str) -> str:
        """The text without the approved texts."""
        spans = [
            (said.start, said.end)
            for one in self.config.approved
            for form in one.forms
            for said in said_in(form, text, words_of(text), one.tolerance)
        ]
        for start, end in sorted(set(spans), reverse=True):
            text = text[:start] + text[end:].lstrip(".!?,;:")
        return text.strip()

    def leaked(self, text: str) -> str | None:
        """The first approved text that is said, quoted or not."""
        text = plain(text)
        words = words_of(text)
        for one in self.config.approved:
            for form in one.forms:
                if (said := next(said_in(form, text, words, one.tolerance), None)) is not None:
                    return text[said.start : said.end]
        return None

    def item_errors(self, item: Exchange) -> list[str]:
        return [] if item.topic or not self.config.required_topics else ["topic is empty; it decides what is required"]

    def _finding(self, text: ApprovedText, answer: str, words: Words) -> RuleFinding:
        """Whether a form of the text is said; else the nearest reason why not."""
        where = "" if text.placement == "anywhere" else f" ({text.placement.replace('_', ' ')})"
        expected = f"the approved text{where}: {text.text}"
        reasons = []
        for form in text.forms:
            for said in said_in(form, answer, words, text.tolerance):
                why = broken_by(answer, said, text.placement)
                if why is None:
                    changed = f" (with {', '.join(said.changes)})" if said.changes else ""
                    return RuleFinding(text.name, True, expected, answer[said.start : said.end] + changed)
                reasons.append(why)
        return RuleFinding(text.name, False, expected, reasons[0] if reasons else _nearest(text, words))

    def _contradicted(self, answer: str, words: Words) -> RuleFinding:
        """A configured contradiction; or a sentence that affirms what a text denies, outside the text itself."""
        rest = own_voice(answer)
        for text in self.config.approved:
            for form in text.forms:
                for said in said_in(form, answer, words, text.tolerance):
                    rest = rest[: said.start] + " " * (said.end - said.start) + rest[said.end :]
        found = (re.search(pattern, rest, re.IGNORECASE) for pattern in self.config.contradictions)
        denial = next((match[0] for match in found if match), None) or self._affirmed(rest)
        return RuleFinding("not_contradicted", denial is None, "nothing that contradicts it", denial or "none")

    def _affirmed(self, rest: str) -> str | None:
        denied = {phrase for text in self.config.approved for form in text.forms for phrase in _denied_phrases(form)}
        for sentence in sentences(rest):
            for phrase in denied:
                match = re.search(
                    rf"\b(?:is|are|was|am|'s|'re)\s+(?:\w+\s+){{0,2}}{re.escape(phrase)}\b", sentence.lower()
                )
                if match and not _NEGATED.search(sentence):
                    return match[0]
        return None


def _denied_phrases(form: str) -> list[str]:
    """What a text says something is not: "financial advice" of "this is not financial advice"."""
    return [match[1].lower() for match in _NOT.finditer(plain(form))]


def _nearest(text: ApprovedText, words: Words) -> str:
    """What the answer has of the text: the words of it that are missing."""
    tokens = {word for word, _, _ in words}
    wanted = [word for word, _, _ in words_of(text.text) if not word.startswith("{")]
    missing = [word for word in dict.fromkeys(wanted) if word not in tokens]
    if len(missing) == len(set(wanted)):
        return "nothing of it"
    return (
        f"not said; missing: {', '.join(missing[:8])}" if missing else "its words in another order, or a word changed"
    )
