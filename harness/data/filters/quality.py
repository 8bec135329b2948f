"""The filter `quality`: answers that teach nothing, or the wrong thing. The reason names each broken rule."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from harness.config.group import Count, Group, Share
from harness.core.console import plural
from harness.core.errors import MissingDependency, nearest
from harness.data.filters.protocol import CLEAN, Judgement
from harness.data.row import DataRow, answer_of, question_of

LANGUAGES = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "ur": "Urdu",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
_ENOUGH = 400  # characters that settle the language; the time grows with the text


def foreign_language(text: str, expected: str, confidence: float) -> str | None:
    """The likeliest language, when that is not the expected one with a probability of at least `confidence`; else None.

    By py3langid, a naive Bayes model over byte n-grams that ships with its weights.
    """
    identifier = _identifier()
    language: str = identifier.classify(text[:_ENOUGH])[0]
    if language == expected:
        return None
    return language if dict(identifier.rank(text[:_ENOUGH]))[expected] <= 1 - confidence else None


@lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError as error:
        raise MissingDependency(str(error.name), "the language rule of the quality filter", "data") from None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(LANGUAGES))
    return identifier


def repeated_share(text: str, least_words: int, n: int = 4) -> float:
    """The share of word n-grams that occurred before in the text (as in Rae et al. 2021, Gopher, table A1).

    0 for texts of fewer than `least_words` words.
    """
    words = text.lower().split()
    if len(words) < max(least_words, n + 1):
        return 0.0
    grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams)


QualityRule = Literal["empty", "truncated", "repeated", "refusal", "wrong_language", "copies_question", "length"]
_EMPTY = re.compile(
    r"[\W_]*|[\s\[<(]*(?:n/?a|none|null|nan|nil|todo|tbd|blank|empty|no ?output|no ?input|no answer)[\s\])>]*", re.I
)
_SYMBOLS = re.compile(r"[^\w\s.\-–—…_*#~=,;:'\"`<>()\[\]{}|/\\!?]")
_DANGLING = re.compile(
    r"(?:\b(?:the|an?|and|or|but|nor|of|to|with|from|for|in|into|onto|at|by|because|although|which|whose|such as|than"
    r"|that the|their|its|your|my|our|has an?|is an?|when the|if the|through|between|especially)|,)$",
    re.I,
)
_LIST_LINE = re.compile(r"\s*(?:[-*•–>|#+]|\d{1,3}[.)]|[A-Za-z][.)]\s)")
_SENTENCE_BREAK = re.compile(r"[.!?](?=\s)")
_CODE = re.compile(r"```|^[ \t]*(?:def |class |import |from \w+ import|SELECT |<\w+[^>]*>|[{}\[\]]|#include)", re.M)
_REFUSAL = re.compile(
    r"^\W*(?:i['’]?\s?a?m (?:very |really )?sorry|sorry|i apologi[sz]e|unfortunately|my apologies)\b[^.!?\n]{0,40}\b"
    r"(?:i|we) (?:can ?not|can['’]t|won['’]t|(?:am|['’]m|are) (?:not able|unable))"
    r"|^\W*i (?:can ?not|can['’]t|won['’]t) (?:help|assist|provide|fulfil|comply|answer|comment|engage|share)"
    r"|^\W*i(?: a|['’])m (?:not able|unable) to (?:help|assist|provide|fulfil|answer|comply|access|browse)"
    r"|\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b(?: (?:language )?model| assistant)?"
    r"(?:,| developed| created| trained| i\b)"
    r"|^\W*i(?: a|['’])m (?:just|only) an? (?:ai|language model|computer program)\b"
    r"|^\W*i (?:do not|don['’]t) have (?:access to|personal|the ability|real[- ]time)"
    r"|\bmy (?:knowledge|training) (?:cut-?off|data)\b"
    r"|^\W*it (?:is|would be) (?:not|in)\s?appropriate for me to",
    re.I,
)
_ASKS_FOR_LANGUAGE = re.compile(
    r"translat|\blanguages?\b|\b(?:in|into|to|from|say)\s+(?:"
    + "|".join(LANGUAGES.values())
    + r")\b|\b(?:french|german|spanish|italian|portuguese|latin)\b",
    re.I,
)
_WORD = re.compile(r"\w+")


class QualityConfig(Group):
    """Rules that an answer must meet, with their limits."""

    action: Literal["drop", "flag"] = "drop"
    """What happens to a row that breaks a rule."""

    rules: list[QualityRule] = list(get_args(QualityRule))
    """Rules that are applied."""

    min_words: Annotated[int, Field(ge=0)] = 0
    """Fewest words of an answer."""

    max_words: Count = 3000
    """Most words of an answer."""

    repeated_share: Share = 0.5
    """Share of 4-word sequences that occurred before in the answer, from which it repeats itself."""

    repeated_words: Count = 12
    """Fewest words of an answer that is checked for repetition."""

    copied_share: Share = 0.9
    """Share of words common to question and answer from which the answer is a copy."""

    copied_words: Count = 5
    """Fewest words of question and answer that are checked for copying."""

    language: str = "en"
    """Language code (ISO 639-1) that answers must be in."""

    language_confidence: Share = 0.98
    """Least probability of another language that makes an answer foreign."""

    min_bytes_language: Count = 60
    """Shortest answer whose language is checked, in bytes of UTF-8."""

    @field_validator("language")
    @classmethod
    def _known(cls, language: str) -> str:
        if language not in LANGUAGES:
            raise ValueError(f"unknown language code. {nearest(language, LANGUAGES)}")
        return language


class Quality:
    code = "quality"

    def __init__(self, config: QualityConfig):
        self.config = config

    def judge(self, rows: Sequence[DataRow]) -> list[Judgement]:
        return [self._judge(row) for row in rows]

    def findings(self, row: DataRow) -> list[tuple[QualityRule, str]]:
        """(rule, what was found) for each broken rule. An empty answer breaks that rule alone."""
        question, answer = question_of(row), answer_of(row)
        found: list[tuple[QualityRule, str]] = []
        for rule in self.config.rules:
            if detail := CHECKS[rule](self.config, question, answer):
                found.append((rule, detail))
                if rule == "empty":
                    break
        return found

    def _judge(self, row: DataRow) -> Judgement:
        found = self.findings(row)
        if not found:
            return CLEAN
        return Judgement("; ".join(f"{rule} ({detail})" for rule, detail in found), evidence=tuple(r for r, _ in found))


def _repeated(config: QualityConfig, question: str, answer: str) -> str | None:
    share = repeated_share(answer, config.repeated_words)
    return f"{share:.0%} of the answer repeats itself" if share >= config.repeated_share else None


def _foreign(config: QualityConfig, question: str, answer: str) -> str | None:
    if len(answer.encode(errors="replace")) < config.min_bytes_language or _CODE.search(answer):
        return None
    if _ASKS_FOR_LANGUAGE.search(question) or _mostly_names(answer):
        return None
    other = foreign_language(answer, config.language, config.language_confidence)
    setting = "to keep it: audit.filters.quality.language"
    return f"{LANGUAGES[other]} instead of {LANGUAGES[config.language]} ({setting}={other} or null)" if other else None


def _copied(config: QualityConfig, question: str, answer: str) -> str | None:
    asked, said = _WORD.findall(question.lower()), _WORD.findall(answer.lower())
    if min(len(asked), len(said)) < config.copied_words:
        return None
    common = len(set(asked) & set(said)) / max(len(set(asked)), len(set(said)))
    in_order = " ".join(asked) in " ".join(said) or " ".join(said) in " ".join(asked)
    return f"{common:.0%} of the words are the question's" if common >= config.copied_share and in_order else None


def _length(config: QualityConfig, question: str, answer: str) -> str | None:
    words = len(answer.split())
    if words < config.min_words:
        return f"{plural(words, 'word')}, fewer than {config.min_words}"
    return f"{plural(words, 'word')}, more than {config.max_words}" if words > config.max_words else None


def _mostly_names(answer: str) -> bool:
    """Whether most words are capitalised, as in a list of names, which says nothing about the language."""
    words: list[str] = _WORD.findall(answer[:400])
    return sum(word[0].isupper() for word in words) >= 0.7 * len(words)


def is_empty(answer: str) -> bool:
    """Whether there is no word and no symbol that could be an answer, or only a placeholder such as "N/A"."""
    return _EMPTY.fullmatch(answer) is not None and _SYMBOLS.search(answer) is None


def truncation(answer: str) -> str | None:
    """Why the answer seems cut off; None when it ends as texts do.

    A missing full stop says little after a line or a list, but much after long prose.
    """
    text = answer.rstrip()
    if text.count("```") % 2:
        return "a code block is not closed"
    last = text.rsplit("\n", 1)[-1]
    if len(text.split()) < 7 or "```" in text:
        return None
    if match := _DANGLING.search(last):
        return f"ends with '{match.group(0)}'" if len(last.split()) > 5 else None
    return "long prose without an end" if _prose_without_end(text, last) else None


def _prose_without_end(text: str, last: str) -> bool:
    sentences = _SENTENCE_BREAK.split(text)
    unfinished = sentences[-1].split()
    return (
        len(text.split()) >= 60
        and len(sentences) > 2
        and len(unfinished) >= 6
        and unfinished[-1].isalpha()
        and len(last.split()) >= 20
        and not _LIST_LINE.match(last)
    )


def refusal(answer: str) -> str | None:
    match = _REFUSAL.search(answer[:400])
    return f"'{' '.join(match.group(0).split())[:60]}'" if match else None


CHECKS: dict[QualityRule, Callable[[QualityConfig, str, str], str | None]] = {
    "empty": lambda config, question, answer: "no text" if is_empty(answer) else None,
    "truncated": lambda config, question, answer: truncation(answer),
    "repeated": _repeated,
    "refusal": lambda config, question, answer: refusal(answer),
    "wrong_language": _foreign,
    "copies_question": _copied,
    "length": _length,
}
