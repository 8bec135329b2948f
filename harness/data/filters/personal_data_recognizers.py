"""Presidio recognisers for structured identifiers, stricter or wider than presidio's own where those fall short.

Importing this module is slow (presidio loads spaCy), so `personal_data` does it on first use. There is no language
model: context words are looked for in a window of characters around a match, through presidio's own hook.
"""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import phonenumbers
import regex
import tldextract
from presidio_analyzer import EntityRecognizer, LocalRecognizer, Pattern, PatternRecognizer, RecognizerResult
from presidio_analyzer.predefined_recognizers import (
    CreditCardRecognizer,
    EmailRecognizer,
    IpRecognizer,
    UsSsnRecognizer,
)
from stdnum import iban, luhn
from stdnum.us import ssn

BOOST, LEAST = 0.35, 0.4  # presidio's own defaults for a match with a supporting word


def before(text: str, start: int, characters: int) -> str:
    return text[max(0, start - characters) : start]


def supported(text: str, start: int, end: int, words: Sequence[str], characters: int = 60) -> bool:
    """Whether one of `words` (regular expressions, any case) begins a word before the match, or just after it."""
    pattern = _any_of(tuple(words))
    return bool(pattern.search(before(text, start, characters)) or pattern.search(text[end : end + characters // 2]))


def enhance(text: str, results: Sequence[Any], words: Sequence[str], characters: int = 60) -> list[Any]:
    """The results, with a higher score for those beside a context word."""
    for result in results:
        if supported(text, result.start, result.end, words, characters):
            result.score = min(1.0, max(LEAST, result.score + BOOST))
    return list(results)


@lru_cache(maxsize=64)
def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(r"(?<![A-Za-z])(?:" + "|".join(words) + ")", re.I)


# Phone numbers: candidates by shape, checked by phonenumbers and by the words beside them. Presidio's own recogniser
# scans the text once for each region and accepts every run of digits that is a valid number somewhere, order numbers
# included. Here the shape decides how much support a candidate needs.
_CANDIDATE = regex.compile(
    r"(?<![\w@#/&%$€£-])(?<!\d\.)(?<!\d[ ]?[-+*/=][ ]?)"
    r"(?:\+|\()?\d(?:[ \t]?[().\-–/]{0,2}[ \t]?\d){5,16}"
    r"(?:[ ]?(?:x|ext\.?|extension|\#)[ ]?(?P<extension>\d{1,6}))?"
    r"(?![\w%]|[-./:]\d|,\d{3}(?!\d)|[ ]?[-+*/=][ ]?\d)",
    regex.I,
)
_DATE = regex.compile(
    r"(?:19|20)\d\d[-./ ]\d{1,2}[-./ ]\d{1,2}(?:[ T]\d{1,2})?|\d{1,2}[-./ ]\d{1,2}[-./ ](?:19|20)\d\d"
)
_SOCIAL_SECURITY = regex.compile(r"\d{3}([-. ])\d\d\1\d{4}")
_YEARS = regex.compile(r"(?:1[5-9]|20)\d\d(?:[ ]?[-–/ ][ ]?(?:1[5-9]|20)\d\d)+")
_NORTH_AMERICA = regex.compile(r"(?:\+?1[-. ]?)?(?:\([2-9]\d\d\)[ ]?|[2-9]\d\d[-. ])[2-9]\d\d[-. ]\d{4}")
_BRACKETED = regex.compile(r"\(\d{2,4}\)[-. ]?\d{3,4}[-. ]\d{3,4}")
_NATIONAL = regex.compile(r"\(0\d{1,4}\)[ .-]?\d{3,4}[ .-]?\d{3,4}|0\d{1,4}(?:[ .-]\d{2,6}){1,5}")
_OTHER_NUMBER = regex.compile(
    r"\b(?:order|invoice|ticket|part|serial|sku|isbn|issn|version|tracking|case|reference|ref|student|flight|voucher"
    r"|item|model|pages?|version|barcode|policy|account|acct|id|coordinates|compute|calculate|combination)\b"
    r"[^\n.]{0,12}$",
    regex.I,
)
_WORDS = (
    *("phones?\\b", "telephone", "tel\\b", "cell(?:phone)?\\b", "mobile", "portable", "mobil\\b", "handy\\b"),
    *("call(?:ed|ing)?\\b", "dial", "ring\\b", "fax", "text(?:ed)? (?:me|us|to)", "sms\\b", "whatsapp"),
    *(
        "contact",
        "(?:new|his|her|my|our|your|their) number\\b",
        "reach (?:me|us|him|her|them)",
        "appelez",
        "ligue\\b",
        "hotline",
        "helpline",
    ),
)
_LONGEST, _SHORTEST = 15, 7


class PhoneRecognizer(LocalRecognizer):
    def __init__(self, regions: Sequence[str]):
        self.regions = tuple(regions)
        super().__init__(supported_entities=["PHONE_NUMBER"], name="PhoneRecognizer")

    def load(self) -> None: ...

    def analyze(self, text: str, entities: Sequence[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        found = []
        for match in _CANDIDATE.finditer(text):
            score = self._score(match.group(0), match.group("extension") or "")
            if score and not self._is_another_number(text, match.start(), match.end()):
                found.append(RecognizerResult("PHONE_NUMBER", match.start(), match.end(), score))
        return found

    def enhance_using_context(self, text: str, raw_recognizer_results: Any, *_: Any, **__: Any) -> Any:
        return enhance(text, raw_recognizer_results, _WORDS)

    def _score(self, found: str, extension: str) -> float:
        """0 for what cannot be a phone number; below 0.4 where the shape needs a supporting word beside it."""
        digits = sum(character.isdigit() for character in found) - len(extension)
        if not _SHORTEST <= digits <= _LONGEST or _DATE.match(found) or _YEARS.fullmatch(found):
            return 0.0
        if _SOCIAL_SECURITY.fullmatch(found):
            return 0.0
        if found.startswith(("+", "00")):
            return 0.75 if _possible("+" + found.lstrip("+0"), None) else 0.0
        if _NORTH_AMERICA.match(found):
            return 0.6 if _possible(found, "US") else 0.0
        if _NATIONAL.match(found) and any(_valid(found, region) for region in self.regions):
            return 0.5
        return 0.45 if _BRACKETED.match(found) else 0.05

    @staticmethod
    def _is_another_number(text: str, start: int, end: int) -> bool:
        """Whether the words beside it say that it is another kind of number, and none says phone."""
        return bool(_OTHER_NUMBER.search(before(text, start, 40))) and not supported(text, start, end, _WORDS)


def _possible(found: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(found, region))
    except phonenumbers.NumberParseException:
        return False


def _valid(found: str, region: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(found, region))
    except phonenumbers.NumberParseException:
        return False


_CARD_BRANDS = regex.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12,15}"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12,15}|(?:2131|1800)\d{11}"  # JCB
    r"|3(?:0[0-59]|[689]\d)\d{11}(?:\d{2})?"  # Diners Club
    r"|62\d{14,17}"  # UnionPay
    r"|(?:50|5[6-9]|6[0-9])\d{10}(?:\d{4}(?:\d{3})?)?"  # Maestro
)


class CardRecognizer(CreditCardRecognizer):
    """Card numbers of a known brand and length with a valid Luhn digit, in one piece or in the printed groups."""

    PATTERNS = [
        Pattern(
            "card number",
            r"(?<![\w-])(?<!\d\.)(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -])\d{6}\2\d{4,5}|\d{12,19})"
            r"(?![\w-]|\.\d)",
            0.3,
        )
    ]

    def validate_result(self, pattern_text: str) -> bool:
        digits = pattern_text.replace(" ", "").replace("-", "")
        return _CARD_BRANDS.fullmatch(digits) is not None and luhn.is_valid(digits)

    def analyze(self, text: str, *args: Any, **kwargs: Any) -> list[RecognizerResult]:
        """Twelve digits count only beside a word for a card: they are too often something else, such as a bar code."""
        found = super().analyze(text, *args, **kwargs)
        words = ("cards?\\b", "maestro", "debit", "pay\\b", "charge")
        return [r for r in found if r.end - r.start > 12 or supported(text, r.start, r.end, words)]


class IbanRecognizer(LocalRecognizer):
    """IBANs in any case and grouping with a valid country structure and valid check digits.

    Presidio's own recogniser takes the words after an IBAN for its last groups and then rejects it.
    """

    _CANDIDATE = regex.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,32}")
    _SHORTEST = 15

    def __init__(self) -> None:
        super().__init__(supported_entities=["IBAN_CODE"], name="IbanRecognizer")

    def load(self) -> None: ...

    def analyze(self, text: str, entities: Sequence[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        ends = ((m.start(), self._end(text, m.start(), m.end())) for m in self._CANDIDATE.finditer(text))
        return [_result(self, "IBAN_CODE", start, end, 1.0) for start, end in ends if end]

    def _end(self, text: str, start: int, end: int) -> int | None:
        """The end of the valid IBAN that begins at `start`. Its country fixes the length, so there is at most one."""
        for stop in range(end, start + self._SHORTEST - 1, -1):
            inside_a_word = stop < len(text) and text[stop].isalnum()
            if text[stop - 1].isalnum() and not inside_a_word and iban.is_valid(text[start:stop], check_country=False):
                return stop
        return None


class SsnRecognizer(UsSsnRecognizer):
    """US social security numbers that can have been issued. Without dashes they count only beside a word for them."""

    PATTERNS = [
        Pattern("SSN with dashes", r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])", 0.5),
        Pattern("SSN with spaces or dots", r"(?<![\w.-])\d{3}([ .])\d{2}\1\d{4}(?![\w-]|\.\d)", 0.1),
        Pattern("nine digits", r"(?<![\w.,-])\d{9}(?![\w-]|[.,]\d)", 0.05),
    ]
    _OTHER_NUMBER = regex.compile(r"\b(?:part|serial|model|item|sku|isbn|order)\b[^.\n]{0,12}$", regex.I)

    def invalidate_result(self, pattern_text: str) -> bool:
        digits = "".join(character for character in pattern_text if character.isdigit())
        return bool(super().invalidate_result(pattern_text)) or not ssn.is_valid(digits)

    def analyze(self, text: str, *args: Any, **kwargs: Any) -> list[RecognizerResult]:
        found = super().analyze(text, *args, **kwargs)
        return [result for result in found if not self._OTHER_NUMBER.search(before(text, result.start, 30))]

    def enhance_using_context(self, text: str, raw_recognizer_results: Any, *_: Any, **__: Any) -> Any:
        return enhance(text, raw_recognizer_results, ("social security", "ssn"))


class OfflineEmailRecognizer(EmailRecognizer):
    """Presidio's e-mail pattern near each '@'. Domains are checked against the list that tldextract ships.

    Presidio's own recogniser fetches that list over the network, and its pattern takes quadratic time on long runs of
    word characters.
    """

    _DOMAINS = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    _LOCAL, _DOMAIN = 66, 256
    _CANDIDATE = regex.compile(r"@(?=\w[\w-]{0,255}+\.\w)")

    def validate_result(self, pattern_text: str) -> bool:
        return bool(self._DOMAINS(pattern_text.rsplit("@", 1)[1]).fqdn)

    def analyze(self, text: str, *args: Any, **kwargs: Any) -> list[RecognizerResult]:
        found: dict[int, RecognizerResult] = {}
        for candidate in self._CANDIDATE.finditer(text):
            at = candidate.start()
            offset = max(0, at - self._LOCAL)
            for result in super().analyze(text[offset : at + self._DOMAIN], *args, **kwargs):
                result.start, result.end = result.start + offset, result.end + offset
                if result.start <= at < result.end and not self._is_repository(text, result):
                    found[at] = result
        return list(found.values())

    @staticmethod
    def _is_repository(text: str, result: RecognizerResult) -> bool:
        return text[result.start : result.start + 4] == "git@" and text[result.end : result.end + 1] == ":"


class HostAddressRecognizer(IpRecognizer):
    """IP addresses of hosts: no loopback addresses, wildcards or netmasks, and no version or section numbers."""

    _NUMBERING = regex.compile(
        r"(?:\b(?:versions?|ver|release|build|section|sec|chapter|clause|rule|v)\b\.?\s*|==|[A-Za-z_]-)$", regex.I
    )

    def analyze(self, text: str, *args: Any, **kwargs: Any) -> list[RecognizerResult]:
        found = super().analyze(text, *args, **kwargs)
        return [result for result in found if self._is_host(text, result)]

    def _is_host(self, text: str, result: RecognizerResult) -> bool:
        try:
            address = ipaddress.ip_interface(text[result.start : result.end]).ip
        except ValueError:
            return False
        if address.is_loopback or address.is_unspecified or str(address).startswith(("0.", "255.")):
            return False
        if address.version == 6:  # by its form, `::add` in a program is one too
            return sum(map(bool, text[result.start : result.end].split(":"))) >= 3
        return not (self._NUMBERING.search(before(text, result.start, 16)) or text[result.end : result.end + 2] == ".0")


class LabelledNumberRecognizer(PatternRecognizer):
    """A number that is personal by its label: `MRN: 0012345`, `account no. 12-34567`, or a table column of them."""

    _NUMBER = r"(?:[A-Z]{1,3}-?)?\d(?:[ -]?\d){4,17}(?![\w-]|\.\d)"

    def __init__(self, entity: str, label: str, column: str):
        link = r"(?:[\s\"'`*]*+(?:[:=#|(]|is\b|was\b|are\b|\bno\b\.?|number\b|\bid\b)?){0,3}[\s\"'`*]*+"
        patterns = [
            Pattern("after its label", rf"(?<!\w)(?:{label}){link}(?<![\w-])\K{self._NUMBER}", 0.85),
            Pattern("in a table", rf"\|[ ]*\K{self._NUMBER}(?=[ ]*(?:\||$))", 0.1),
        ]
        super().__init__(supported_entity=entity, patterns=patterns, name=f"{entity} recognizer")
        self._column = column

    def enhance_using_context(self, text: str, raw_recognizer_results: Any, *_: Any, **__: Any) -> Any:
        return enhance(text, raw_recognizer_results, (self._column,), characters=400)


def recognizers(entities: Sequence[str], phone_regions: Sequence[str]) -> dict[str, EntityRecognizer]:
    """One recogniser for each structured entity among `entities`."""
    makers: dict[str, Any] = {
        "CREDIT_CARD": CardRecognizer,
        "IBAN_CODE": IbanRecognizer,
        "US_SSN": SsnRecognizer,
        "PHONE_NUMBER": lambda: PhoneRecognizer(phone_regions),
        "EMAIL_ADDRESS": OfflineEmailRecognizer,
        "IP_ADDRESS": HostAddressRecognizer,
        "MEDICAL_RECORD_NUMBER": lambda: LabelledNumberRecognizer("MEDICAL_RECORD_NUMBER", _MEDICAL, r"\|\s*mrn\b"),
        "ACCOUNT_NUMBER": lambda: LabelledNumberRecognizer("ACCOUNT_NUMBER", _ACCOUNT, r"\|\s*(?:account|acct)\b"),
    }
    return {entity: makers[entity]() for entity in entities if entity in makers}


_NUMBER_WORD = r"(?:[\s_]*(?:number|num\b|nr\b|no\b|id\b|\#)\.?)"
_MEDICAL = rf"MRN|(?:medical[\s_]record|patient|hospital|chart|NHS){_NUMBER_WORD}"
_ACCOUNT = (
    rf"(?:(?:bank|checking|savings|current)\s+)?(?:account|acct\.?|a/c){_NUMBER_WORD}?"
    rf"|(?:policy|member|customer|subscriber){_NUMBER_WORD}"
)


def _result(recognizer: EntityRecognizer, entity: str, start: int, end: int, score: float) -> RecognizerResult:
    return RecognizerResult(entity, start, end, score)
