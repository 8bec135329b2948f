"""The kind `summary_bullets`: exactly as many short bullets as requested, nothing else, only what the text says."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from harness.behavior.config import BehaviorConfig, Regex
from harness.behavior.exchange import Check, Exchange, RuleFinding, topic_errors
from harness.behavior.quantities import claimed, in_digits, mentioned, missing
from harness.behavior.reversal import reversed_statement
from harness.behavior.words import content_stems, stem
from harness.core.console import plural

_NAME = re.compile(r"[^\W\d_][\w'’&-]*")


def names_missing(statement: str, source: str) -> list[str]:
    """Capitalised words of a statement that are nowhere in the source. The first word of a sentence does not count."""
    known = {part for word in _NAME.findall(source) for part in _parts(word)}
    plain = re.sub(r"[*_`\"“”]", "", statement)
    inside = [word for sentence in re.split(r"(?<=[.!?:])\s+", plain) for word in _NAME.findall(sentence)[1:]]
    return [word for word in inside if word[0].isupper() and not _known(word, known)]


def _known(word: str, known: set[str]) -> bool:
    whole, *_ = forms = _parts(word)
    return bool({whole, stem(whole)} & known) or set(forms[2:]) <= known or _abbreviates(whole, known)


def _parts(word: str) -> list[str]:
    """A word in lower case without 's, its stem, and the parts that it is joined from."""
    whole = word.lower().replace("’", "'").strip("'-&").removesuffix("'s")
    return [whole, stem(whole), *(part for part in re.split(r"[-&']", whole) if part)]


def _abbreviates(word: str, known: set[str]) -> bool:
    """Whether one is a short form of the other among months and days: 'Mar' and 'March'."""
    if _CALENDAR.fullmatch(word):
        return bool({word[:3], word[:4]} & known)
    return len(word) in (3, 4) and any(name.startswith(word) for name in known if _CALENDAR.fullmatch(name))


_CALENDAR = re.compile(
    "january|february|march|april|may|june|july|august|september|october|november|december"
    "|monday|tuesday|wednesday|thursday|friday|saturday|sunday"
)


_BULLET = re.compile(r"^(\s*)([-*•]|\d{1,2}[.)])[ \t]+(\S.*)$")
_WRAPPED = re.compile(r"^\s{2,}(?![+–—▪◦o]\s|\w{1,2}[.)]\s)\S")
_ASKED_AFTER = re.compile(r"\bbullet\w*\b\D{0,25}\b(\d{1,2})\b")
_ASKED = re.compile(r"\b(\d{1,2})\b(?:[\s-]+[\w-]+){0,3}?[\s-]+(?:bullets?|points?|takeaways|items|lines|dashes)\b")
FORMAT = ("count", "only_bullets", "one_style", "not_nested", "length", "no_repeats")


class SummaryBulletsConfig(BehaviorConfig):
    """The form of a summary, and words with contrary meanings."""

    topics: list[str]
    """Topics on which a summary is demanded."""

    max_words: int = Field(default=25, ge=1)
    """Most words of a bullet."""

    repeat_share: float = Field(default=0.8, gt=0, le=1)
    """Share of common words from which two bullets say the same."""

    remarks: list[Regex] = Field(default=[])
    """Lines that summarise nothing, such as an offer of help."""

    opposites: list[tuple[list[str], list[str]]] = Field(default=[])
    """Pairs of word lists with contrary meanings."""


@dataclass(frozen=True)
class Bullet:
    indent: int
    marker: str
    text: str

    @property
    def style(self) -> str:
        return re.sub(r"\d+", "1", self.marker)

    @property
    def words(self) -> int:
        return sum(any(letter.isalnum() for letter in word) for word in self.text.split())


class SummaryBullets:
    def __init__(self, config: SummaryBulletsConfig):
        self.config = config

    def check(self, exchange: Exchange) -> Check:
        """`format` is 1 when all rules on form pass, `grounded` when nothing is invented or reversed."""
        wanted = asked_bullets(exchange)
        if exchange.topic not in self.config.topics or wanted is None:
            return Check([])
        bullets, others = _read(exchange.response)
        findings = [*self._form(bullets, others, wanted), self._grounded(bullets, others, exchange.input)]
        passed = {finding.rule: finding.passed for finding in findings}
        metrics = {
            "format": float(all(passed[rule] for rule in FORMAT)),
            **{rule: float(passed[rule]) for rule in (*FORMAT, "grounded")},
        }
        return Check(findings, metrics)

    def without(self, text: str) -> str:
        return text

    def leaked(self, text: str) -> str | None:
        """None: bullets are too common to be a sign of this behaviour."""
        return None

    def item_errors(self, item: Exchange) -> list[str]:
        errors = topic_errors(item, self.config.topics)
        errors += [] if item.input.strip() else ["input is empty; it must hold the text to summarise"]
        number = item.details.get("bullets")
        if not isinstance(number, int) or number < 1:
            errors.append("details.bullets is missing or not a positive number")
        return errors

    def _form(self, bullets: Sequence[Bullet], others: Sequence[str], wanted: int) -> Iterator[RuleFinding]:
        yield RuleFinding(
            "count", len(bullets) == wanted, f"exactly {plural(wanted, 'bullet')}", plural(len(bullets), "bullet")
        )
        remark = next((b.text for b in bullets if self._is_remark(b.text)), None)
        extra = next(iter(others), remark)
        yield RuleFinding("only_bullets", extra is None, "nothing but bullets", extra[:80] if extra else "only bullets")
        styles = sorted({bullet.style for bullet in bullets})
        yield RuleFinding("one_style", len(styles) <= 1, "the same marker throughout", " ".join(styles) or "no bullet")
        nested = next((b.text for b in bullets if b.indent > bullets[0].indent + 1), None)
        yield RuleFinding("not_nested", nested is None, "no nested bullet", nested or "none")
        longest = max((bullet.words for bullet in bullets), default=0)
        limit = self.config.max_words
        yield RuleFinding(
            "length", longest <= limit, f"at most {limit} words per bullet", f"{longest} words in the longest"
        )
        twice = self._repeated(bullets)
        yield RuleFinding("no_repeats", twice is None, "no bullet that repeats another", twice or "none")

    def _is_remark(self, text: str) -> bool:
        return any(re.search(pattern, text, re.IGNORECASE) for pattern in self.config.remarks)

    def _repeated(self, bullets: Sequence[Bullet]) -> str | None:
        sets = [(b.text, frozenset(content_stems(b.text)) | {q.value for q in claimed(b.text)}) for b in bullets]
        for i, (_, left) in enumerate(sets):
            for text, right in sets[i + 1 :]:
                if left == right or len(left & right) / max(1, len(left | right)) >= self.config.repeat_share:
                    return text
        return None

    def _grounded(self, bullets: Sequence[Bullet], others: Sequence[str], source: str) -> RuleFinding:
        statements = [bullet.text for bullet in bullets] or list(others)
        wrong: list[str] = [] if statements else ["an empty answer"]
        known = mentioned(source)
        for statement in statements:
            wrong += [f"'{quantity.text}' is not in the text" for quantity in missing(claimed(statement), known)]
            wrong += [f"'{name}' is not in the text" for name in names_missing(statement, source)]
            contrary = reversed_statement(statement, source, self.config.opposites)
            wrong += [f"'{statement}' reverses '{contrary}'"] if contrary else []
        return RuleFinding(
            "grounded", not wrong, "only what the text says", "; ".join(wrong) or "nothing to the contrary"
        )


def asked_bullets(exchange: Exchange) -> int | None:
    """How many bullets are requested: `details.bullets` of the item, or the number in its instruction."""
    number = exchange.details.get("bullets")
    if isinstance(number, int):
        return number
    instruction = in_digits(exchange.instruction.lower())
    match = _ASKED.search(instruction) or _ASKED_AFTER.search(instruction)
    if match:
        return int(match[1])
    return 1 if re.search(r"\b(?:a|one|single) (?:\w+ )?bullet\b", exchange.instruction.lower()) else None


def _read(response: str) -> tuple[list[Bullet], list[str]]:
    """The bullets of an answer, each joined with its wrapped lines, and all other lines."""
    bullets: list[Bullet] = []
    others: list[str] = []
    for line in response.splitlines():
        match = _BULLET.match(line)
        if match:
            bullets.append(Bullet(len(match[1].expandtabs(4)), match[2], match[3].strip()))
        elif line.strip() and bullets and not others and _WRAPPED.match(line):
            bullets[-1] = replace(bullets[-1], text=f"{bullets[-1].text} {line.strip()}")
        elif line.strip():
            others.append(line.strip())
    return bullets, others
