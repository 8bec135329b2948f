"""The filter `personal_data`: identifiers by pattern and checksum, and names where a spaCy model is configured."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar, get_args

from pydantic import field_validator

from harness.config.group import Group, Share
from harness.core.errors import MissingDependency, UsageError
from harness.data.filters.protocol import CLEAN, Judgement
from harness.data.row import DataRow, map_texts, row_texts

# Cheap necessary conditions: a text that does not match the pattern in _NEEDS cannot hold that entity. A recogniser
# takes up to milliseconds for a text, a condition microseconds, and most rows hold no identifier. A condition must
# match whenever its recogniser does; a property test compares the two.
AnyEntity = TypeVar("AnyEntity", bound=str)

_ANY = re.compile(r"@|:[0-9A-Fa-f]{0,4}:|[0-9](?:[^0-9\n]{0,4}[0-9]){3}")
_NUMBER_NEAR = r"[^0-9]{0,40}[0-9]"
_NEEDS = {
    "CREDIT_CARD": re.compile(r"[0-9](?:[ -]?[0-9]){11}"),
    "IBAN_CODE": re.compile(r"[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11}"),
    "US_SSN": re.compile(r"[0-9]{3}[- .]?[0-9]{2}[- .]?[0-9]{4}"),
    "PHONE_NUMBER": re.compile(r"[0-9](?:[ \t().\-–/]{0,4}[0-9]){5}"),
    "EMAIL_ADDRESS": re.compile(r"@\w"),
    "IP_ADDRESS": re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]|:[0-9A-Fa-f]{0,4}:"),
    "MEDICAL_RECORD_NUMBER": re.compile(rf"(?:mrn|medical|patient|hospital|chart|nhs){_NUMBER_NEAR}|\|\s*mrn", re.I),
    "ACCOUNT_NUMBER": re.compile(
        rf"(?:account|acct|a/c|policy|member|customer|subscriber){_NUMBER_NEAR}|\|\s*(?:account|acct)", re.I
    ),
}


def worth_analysing(text: str, entities: Iterable[AnyEntity]) -> list[AnyEntity]:
    """Those of `entities` that the text may hold."""
    if _ANY.search(text) is None:
        return [entity for entity in entities if entity not in _NEEDS]
    return [entity for entity in entities if entity not in _NEEDS or _NEEDS[entity].search(text)]


Entity = Literal[
    "CREDIT_CARD",
    "IBAN_CODE",
    "US_SSN",
    "PHONE_NUMBER",
    "EMAIL_ADDRESS",
    "IP_ADDRESS",
    "MEDICAL_RECORD_NUMBER",
    "ACCOUNT_NUMBER",
    "PERSON",
]
ENTITIES: tuple[Entity, ...] = get_args(Entity)
REGIONS = ["US", "CA", "GB", "IE", "AU", "NZ", "FR", "DE", "AT", "CH", "BE", "NL", "ES", "IT", "IN", "BR"]


class PersonalDataConfig(Group):
    """Which identifiers of persons are looked for."""

    action: Literal["drop", "redact", "flag"] = "redact"
    """What happens to the row: dropped, kept with placeholders, or kept and counted."""

    entities: list[Entity] = list(ENTITIES)
    """Kinds of identifiers that are looked for."""

    threshold: Share = 0.4
    """Least score of a finding that counts."""

    thresholds: dict[Entity, Share] = {}
    """Least scores of single kinds; PERSON has no score."""

    phone_regions: list[str] = REGIONS
    """Countries (two capital letters) whose national telephone formats count."""

    ner_model: str | None = None
    """Installed spaCy package that finds names, such as en_core_web_sm; null: names are not looked for."""

    @field_validator("thresholds")
    @classmethod
    def _scored(cls, thresholds: dict[Entity, float]) -> dict[Entity, float]:
        if "PERSON" in thresholds:
            raise ValueError("PERSON cannot have a threshold, because the language model gives names no score")
        return thresholds

    @field_validator("phone_regions")
    @classmethod
    def _known(cls, regions: list[str]) -> list[str]:
        wrong = [region for region in regions if not (len(region) == 2 and region.isalpha() and region.isupper())]
        if wrong:
            raise ValueError(f"a region is two capital letters, such as US; these are not: {', '.join(wrong)}")
        return regions


@dataclass(frozen=True)
class Span:
    """An identifier in a text, from `start` to before `end`."""

    entity: str
    start: int
    end: int
    score: float


class PersonalData:
    """Finds identifiers, and masks each by its kind so that the row stays readable: `Mail <EMAIL_ADDRESS>`."""

    code = "personal_data"

    def __init__(self, config: PersonalDataConfig):
        self.config = config

    def judge(self, rows: Sequence[DataRow]) -> list[Judgement]:
        return [self._judge(row) for row in rows]

    def spans(self, text: str) -> list[Span]:
        """The identifiers in a text, in order and without overlaps."""
        found: list[Span] = []
        for entity in worth_analysing(text, self.config.entities):
            found += self._recognised(entity, text)
        return _without_overlaps(found)

    def notes(self) -> list[str]:
        """For the data card: what was not looked for."""
        if "PERSON" not in self.config.entities or self.config.ner_model:
            return []
        installed = installed_ner_models()
        hint = f"installed: {', '.join(installed)}" if installed else "no spaCy model is installed"
        return [f"names were not looked for, because audit.filters.personal_data.ner_model is not set ({hint})"]

    def _judge(self, row: DataRow) -> Judgement:
        found = {where: spans for where, text in row_texts(row) if (spans := self.spans(text))}
        if not found:
            return CLEAN
        reason = "; ".join(f"{_counted(spans)} in {where}" for where, spans in found.items())
        evidence = tuple(sorted({span.entity for spans in found.values() for span in spans}))
        redacted = map_texts(row, self.redact) if self.config.action == "redact" else None
        return Judgement(reason, redacted, evidence)

    def redact(self, text: str) -> str:
        """The text with `<ENTITY>` in place of each identifier."""
        for span in reversed(self.spans(text)):
            text = f"{text[: span.start]}<{span.entity}>{text[span.end :]}"
        return text

    def _recognised(self, entity: Entity, text: str) -> list[Span]:
        if entity == "PERSON":
            return self._people(text)
        least = self.config.thresholds.get(entity, self.config.threshold)
        recognizer = _recognizers(tuple(self.config.phone_regions))[entity]
        results = recognizer.analyze(text, [entity])
        results = recognizer.enhance_using_context(text, results, [], None)
        return [Span(entity, r.start, r.end, r.score) for r in results if r.score >= least]

    def _people(self, text: str) -> list[Span]:
        if self.config.ner_model is None:
            return []
        document = _ner_model(self.config.ner_model)(text)
        return [Span("PERSON", e.start_char, e.end_char, 0.3) for e in document.ents if e.label_ in ("PERSON", "PER")]


@lru_cache(maxsize=8)
def _recognizers(phone_regions: tuple[str, ...]) -> dict[str, Any]:
    try:
        from harness.data.filters.personal_data_recognizers import recognizers
    except ModuleNotFoundError as error:
        raise MissingDependency(str(error.name), "the personal data filter", "data") from None
    return dict(recognizers(ENTITIES, phone_regions))


@lru_cache(maxsize=2)
def _ner_model(name: str) -> Any:
    import spacy

    try:
        return spacy.load(name, disable=["lemmatizer", "parser", "tagger", "attribute_ruler"])
    except OSError:
        installed = ", ".join(installed_ner_models()) or "none"
        raise UsageError(
            f"audit.filters.personal_data.ner_model: spaCy model '{name}' is not installed (installed: {installed}). "
            f"Install it with: python -m spacy download {name}. Without ner_model, names are not looked for."
        ) from None


def installed_ner_models() -> list[str]:
    """Names of the installed spaCy model packages."""
    from importlib.metadata import entry_points

    return sorted({entry.name for entry in entry_points(group="spacy_models")})


def _without_overlaps(spans: Sequence[Span]) -> list[Span]:
    """Of spans that overlap, the one with the highest score, then the longest."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (-s.score, s.start - s.end, s.start)):
        if all(span.end <= other.start or span.start >= other.end for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda s: s.start)


def _counted(spans: Sequence[Span]) -> str:
    counts = Counter(span.entity for span in spans)
    return ", ".join(entity if n == 1 else f"{n} {entity}" for entity, n in counts.items())
