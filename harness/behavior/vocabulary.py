"""The kind `vocabulary`: product names spelt exactly, preferred terms instead of others, no forbidden words."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from pydantic import Field, model_validator

from harness.behavior.config import BehaviorConfig, PhraseList, Regex
from harness.behavior.exchange import Check, Exchange, RuleFinding, topic_errors
from harness.behavior.voice import QuotedSpan, plain, quotations, without_code
from harness.core.errors import nearest

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_JOINT = r"[\s\-–_.]*"
_OTHER_SPELLINGS = {"one": "(?:one|1)", "plus": r"(?:plus\b|\+)"}
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*\+?")


@dataclass(frozen=True)
class Spelling:
    """Where a product is meant in a text (start and end), and the name as it should be written."""

    start: int
    end: int
    name: str


def exact(text: str, name: str) -> list[Spelling]:
    """Where a name is written exactly; its words may be separated by any white space."""
    pattern = r"(?<![\w-])" + r"\s+".join(map(re.escape, name.split())) + r"(?![\w+]|-(?!based|like)\w)"
    return [Spelling(*match.span(), name) for match in re.finditer(pattern, text)]


def misspelt(text: str, names: Mapping[str, Sequence[str]]) -> Iterator[Spelling]:
    """Where a name is written in another case, spacing or order, shortened, or with a wrong letter.

    `names` holds each name with its short forms.
    """
    taken = [(s.start, s.end) for name in names for s in exact(text, name)]
    for name, short in names.items():
        for start, end in [*_loose(text, name), *_alike(text, name), *_shortened(text, short)]:
            if not any(start < stop and begin < end for begin, stop in taken):
                taken.append((start, end))
                yield Spelling(start, end, name)


def _words(name: str) -> list[str]:
    return [word.lower() for part in name.split() for word in _CAMEL.split(part)]


def _loose(text: str, name: str) -> Iterator[tuple[int, int]]:
    """The words of a name in any case, joined in any way; of three words, also with the last two swapped."""
    words = _words(name)
    orders = [words, [words[0], *reversed(words[1:])]] if len(words) > 2 else [words]
    for order in orders:
        spelt = [_OTHER_SPELLINGS.get(word, re.escape(word)) for word in order]
        pattern = rf"(?<!\w){_JOINT.join(spelt)}(?!\w)\+?"
        yield from (match.span() for match in re.finditer(pattern, text, re.IGNORECASE))


def _shortened(text: str, forms: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Short forms of a name, used as a name: with a capital letter, or written as one word."""
    for form in forms:
        for match in re.finditer(rf"(?<!\w){_JOINT.join(map(re.escape, _words(form)))}(?!\w)", text, re.IGNORECASE):
            if match[0] != match[0].lower() or match[0].isalpha():
                yield match.span()


def _alike(text: str, name: str) -> Iterator[tuple[int, int]]:
    """Capitalised words that differ from a name by about one letter."""
    words = list(_WORD.finditer(text))
    target = "".join(_words(name))
    for size in {len(name.split()), len(_words(name)), 1}:
        limit = 0.87 if size == 1 else 0.88
        for i in range(len(words) - size + 1):
            start, end = words[i].start(), words[i + size - 1].end()
            squashed = re.sub(r"[\W_]+", "", text[start:end]).lower()
            capital = all(word[0][0].isupper() for word in words[i : i + size])
            if capital and "\n" not in text[start:end] and _ratio(squashed, target) >= limit:
                yield start, end


def _ratio(left: str, right: str) -> float:
    return SequenceMatcher(None, left, right, autojunk=False).ratio()


RULES = ("product_names", "preferred_terms", "forbidden_terms")


class VocabularyConfig(BehaviorConfig):
    """Names and terms. All expressions match lower-case text."""

    topics: list[str]
    """Topics on which the vocabulary is demanded."""

    products: dict[str, list[str]]
    """Each product name with its short forms."""

    generic: list[Regex] = Field(default=[])
    """Contexts in which the words of a name do not mean the product."""

    preferred: dict[str, PhraseList]
    """For each preferred term, the wordings that it replaces."""

    forbidden: PhraseList
    """Words that must not be used."""

    @model_validator(mode="after")
    def _products_are_distinct(self) -> "VocabularyConfig":
        if len({name.lower() for name in self.products}) < len(self.products):
            raise ValueError("products: a name occurs twice (upper and lower case do not count)")
        return self


class Vocabulary:
    def __init__(self, config: VocabularyConfig):
        self.config = config
        self._generic = PhraseList(any_of=config.generic)

    def check(self, exchange: Exchange) -> Check:
        """`violations` is the number of wrong words. `clean` is 1 when there are none and the answer names all of
        `details.products`.
        """
        if exchange.topic not in self.config.topics:
            return Check([])
        text = without_code(plain(exchange.response))
        asked = " ".join(plain(f"{exchange.instruction} {exchange.input}").lower().split())
        wrong = {
            rule: [text[slice(*span)] for span, _ in found] for rule, found in self._violations(text, asked).items()
        }
        right = {rule: [term for _, term in found] for rule, found in self._violations(text, asked).items()}
        findings = [
            RuleFinding(
                rule, not wrong[rule], ", ".join(dict.fromkeys(right[rule])) or "no violation", _listed(wrong[rule])
            )
            for rule in RULES
        ]
        findings.append(_answered(exchange.response))
        if products := exchange.details.get("products"):
            absent = [name for name in products if not exact(text, name)]
            shown = f"not named: {', '.join(absent)}" if absent else "all named"
            findings.append(RuleFinding("mentions_product", not absent, ", ".join(products), shown))
        metrics = {finding.rule: float(finding.passed) for finding in findings}
        count = float(sum(map(len, wrong.values())))
        return Check(findings, {"clean": float(all(metrics.values())), "violations": count, **metrics})

    def without(self, text: str) -> str:
        return text

    def leaked(self, text: str) -> str | None:
        """The first product named, however it is spelt, also in code. Generic uses of its words do not count."""
        said = plain(text)
        found = [s for name in self.config.products for s in exact(said, name)] + list(self._misspelt(said))
        first = min(found, key=lambda spelling: spelling.start, default=None)
        return said[first.start : first.end] if first else None

    def item_errors(self, item: Exchange) -> list[str]:
        known = self.config.products
        unknown = sorted(set(item.details.get("products") or []) - set(known))
        return [
            *topic_errors(item, self.config.topics),
            *(f"details.products: there is no product {name!r}. {nearest(name, known)}" for name in unknown),
        ]

    def _violations(self, text: str, asked: str) -> dict[str, list[tuple[QuotedSpan, str]]]:
        """The places of wrong words by rule, each with what should be there."""
        found = {
            "product_names": [((s.start, s.end), s.name) for s in self._misspelt(text)],
            "preferred_terms": list(self._avoided(text)),
            "forbidden_terms": [
                (match.span(), "none of the forbidden words") for match in self.config.forbidden.matches(text)
            ],
        }
        quoted = quotations(text)
        return {
            rule: [(span, term) for span, term in spans if not _customers(span, text, quoted, asked)]
            for rule, spans in found.items()
        }

    def _avoided(self, text: str) -> Iterator[tuple[QuotedSpan, str]]:
        for term, phrases in self.config.preferred.items():
            yield from ((match.span(), term) for match in phrases.matches(text))

    def _misspelt(self, text: str) -> Iterator[Spelling]:
        generic = [match.span() for match in self._generic.matches(text)]
        for spelling in misspelt(text, self.config.products):
            if not any(start <= spelling.start and spelling.end <= end for start, end in generic):
                yield spelling


def _customers(span: QuotedSpan, text: str, quoted: list[QuotedSpan], asked: str) -> bool:
    """Whether a place is inside quotation marks and repeats the customer's own words."""
    inside = any(start <= span[0] and span[1] <= end for start, end in quoted)
    return inside and " ".join(text[slice(*span)].lower().split()) in asked


def _answered(text: str) -> RuleFinding:
    return RuleFinding("answered", bool(text.strip()), "an answer", "text" if text.strip() else "nothing")


def _listed(words: list[str]) -> str:
    return ", ".join(" ".join(word.split()) for word in words) or "none"
