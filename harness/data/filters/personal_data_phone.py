"""Phone numbers: candidates by shape, judged by phonenumbers and by the words beside them.

Presidio's own scans the text once a region and takes every run of digits that is a valid number somewhere,
order numbers included. Here the shape says how much support a candidate needs.
"""

from collections.abc import Sequence
from typing import Any

import phonenumbers
import regex
from presidio_analyzer import LocalRecognizer, RecognizerResult

from harness.data.filters.personal_data_window import before, enhance, supported

_CANDIDATE = regex.compile(
    r"(?<![\w@#/&%$€£.,-])(?<!\d[ ]?[-+*/=][ ]?)"
    r"(?:\+|\()?\d(?:[ \t]?[().\-–/]{0,2}[ \t]?\d){5,16}"
    r"(?:[ ]?(?:x|ext\.?|extension|\#)[ ]?(?P<extension>\d{1,6}))?"
    r"(?![\w%]|[-.,/:]\d|[ ]?[-+*/=][ ]?\d)",
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
        """0 for what cannot be a phone number; under 0.4 where a word beside it must support the shape."""
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
        """The words say that it counts or names something else, and none says phone."""
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
