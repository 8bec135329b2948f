"""The kind `tone`: plain, formal and calm answers without promises, blame or slang, neither curt nor long."""

import re
from collections.abc import Iterator

from pydantic import Field

from harness.behavior.config import BehaviorConfig, PhraseList
from harness.behavior.exchange import Check, Exchange, RuleFinding, topic_errors
from harness.behavior.voice import plain, quotations, sentences, without_code
from harness.core.console import plural

_WORD = re.compile(r"[^\W_]+(?:['.,-][^\W_]+)*")
_ABBREVIATION = re.compile(r"\b(?:mr|mrs|ms|dr|st|no|e\.g|i\.e|etc|vs|approx)\.(?=\s)", re.IGNORECASE)


def words(text: str) -> list[str]:
    """Words and numbers. A hyphenated word counts as one."""
    return _WORD.findall(text)


def reading_grade(text: str) -> float:
    """US school grade of a plain text; 0 without words.

    Flesch-Kincaid grade level (Kincaid, Fishburne, Rogers, Chissom 1975):
    0.39 words/sentences + 11.8 syllables/words - 15.59. Numbers count as one syllable.
    """
    readable = _ABBREVIATION.sub(lambda match: match[0][:-1], without_code(text))
    counts = [len(words(sentence)) for sentence in sentences(readable)]
    total = sum(counts)
    if not total:
        return 0.0
    syllables = sum(_syllables(word) for word in words(readable))
    return 0.39 * total / sum(count > 0 for count in counts) + 11.8 * syllables / total - 15.59


def _syllables(word: str) -> int:
    import syllapy

    return max(1, int(syllapy.count(word)))


_CAPITALS = re.compile(r"(?<![\w-])[A-Z]{2,}(?:'[A-Z]+)?(?![\w-])")
_EMOTICON = re.compile(r"(?<![\w:/])(?:[:;=8xX]-?[)(DPpOo/|\\]|<3|\^_?\^)(?!\w)")
_SIGNS = "©®™"  # have an emoji form, but belong in formal text


class ToneConfig(BehaviorConfig):
    """Limits and wordings of the tone. Wordings are regular expressions on lower-case text."""

    topics: list[str]
    """Topics on which the tone is demanded."""

    max_grade: float = 10
    """Highest reading level: Flesch-Kincaid grade (years of school in the US)."""

    min_words: int = Field(default=20, ge=0)
    """Fewest words of an answer."""

    max_words: int = Field(default=120, ge=1)
    """Most words of an answer."""

    acronyms: list[str] = Field(default=[])
    """Words that may be in capitals."""

    promises: PhraseList
    """Wordings that promise an outcome; none may occur."""

    blame: PhraseList
    """Wordings that blame the customer; none may occur."""

    slang: PhraseList
    """Words that are too casual; none may occur."""


class Tone:
    def __init__(self, config: ToneConfig):
        self.config = config

    def check(self, exchange: Exchange) -> Check:
        """`clean` is 1 when all rules pass. `violations` is the number of broken rules."""
        if exchange.topic not in self.config.topics:
            return Check([])
        asked = plain(f"{exchange.instruction} {exchange.input}").lower()
        findings = list(self._findings(_own_words(exchange.response, asked)))
        metrics = {finding.rule: float(finding.passed) for finding in findings}
        broken = float(sum(not finding.passed for finding in findings))
        return Check(findings, {"clean": float(not broken), "violations": broken, **metrics})

    def without(self, text: str) -> str:
        return text

    def leaked(self, text: str) -> str | None:
        """None: a tone has no sign of its own."""
        return None

    def item_errors(self, item: Exchange) -> list[str]:
        return topic_errors(item, self.config.topics)

    def _findings(self, text: str) -> Iterator[RuleFinding]:
        grade, limit = reading_grade(text), self.config.max_grade
        yield RuleFinding("reading_level", grade <= limit, f"at most grade {limit:g}", f"grade {grade:.1f}")
        informal = ", ".join(dict.fromkeys(self._informal(text)))
        yield RuleFinding(
            "formality", not informal, "no emoji, exclamation mark or word in capitals", informal or "none"
        )
        for rule, phrases, expected in (
            ("no_promises", self.config.promises, "no promise of an outcome"),
            ("no_blame", self.config.blame, "no blame for the customer"),
            ("no_slang", self.config.slang, "no slang"),
        ):
            found = ", ".join(dict.fromkeys(match[0].strip() for match in phrases.matches(text)))
            yield RuleFinding(rule, not found, expected, found or "none")
        count, least, most = len(words(text)), self.config.min_words, self.config.max_words
        yield RuleFinding("length", least <= count <= most, f"{least} to {most} words", plural(count, "word"))

    def _informal(self, text: str) -> Iterator[str]:
        from emoji import emoji_list

        yield from (found["emoji"] for found in emoji_list(text) if found["emoji"] not in _SIGNS)
        yield from (match[0] for match in _EMOTICON.finditer(text))
        yield from (sign for sign in "!‼⁉¡" if sign in text)
        yield from (match[0] for match in _CAPITALS.finditer(text) if match[0] not in self.config.acronyms)


def _own_words(response: str, asked: str) -> str:
    """The plain answer without code and addresses, and without quotations of what the customer wrote."""
    text = without_code(plain(response))
    for start, end in reversed(quotations(text)):
        if text[start:end].strip("\"'> .,!?").lower() in asked:
            text = f"{text[:start]}{text[end:]}"
    return text
