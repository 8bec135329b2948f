"""Cheap necessary conditions: a text without a condition's shape cannot hold that entity.

A recogniser costs up to milliseconds a text, a condition microseconds, and most rows hold no identifier.
Each condition must be implied by every match of its recogniser; a property test compares the two.
"""

import re
from collections.abc import Iterable
from typing import TypeVar

Entity = TypeVar("Entity", bound=str)

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


def worth_analysing(text: str, entities: Iterable[Entity]) -> list[Entity]:
    """The entities among `entities` that the text may hold."""
    if _ANY.search(text) is None:
        return [entity for entity in entities if entity not in _NEEDS]
    return [entity for entity in entities if entity not in _NEEDS or _NEEDS[entity].search(text)]
