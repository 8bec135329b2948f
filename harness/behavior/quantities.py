"""Numbers with their units in a text, written in digits or in words."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

UNITS = {
    "mg": r"mg|milligrams?|milligrammes?",
    "mcg": r"mcg|micrograms?",
    "kg": r"kg|kgs|kilos?|kilograms?",
    "g": r"g|grams?|grammes?",
    "ml": r"ml|millilit(?:re|er)s?",
    "litre": r"l|lit(?:re|er)s?",
    "cm": r"cm|centimet(?:re|er)s?",
    "tablet": r"tablets?|pills?|tabs?",
    "capsule": r"capsules?",
    "puff": r"puffs?",
    "drop": r"drops?",
    "spray": r"sprays?",
    "unit": r"units?",
    "second": r"seconds|secs?",
    "minute": r"minutes?|mins?",
    "hour": r"hours?|hrs?|hourly",
    "day": r"days?",
    "week": r"weeks?|wks?|weekly",
    "month": r"months?|monthly",
    "year": r"years?|yrs?|yearly",
    "times": r"times?",
    "bpm": r"bpm|beats",
    "%": r"%|percent|per cent",
    "°": r"°\s?[cf]?|degrees?",
    "pound": r"pounds?|gbp",
    "euro": r"euros?|eur",
    "dollar": r"dollars?|usd",
    "pence": r"pence|p|cents?",
}
SYMBOLS = {"£": "pound", "€": "euro", "$": "dollar"}
_SPAN = "(?:minute|hour|day|week|fortnight|month|year)"
_UNIT = "|".join(f"(?P<u{i}>{pattern})" for i, pattern in enumerate(UNITS.values()))
_QUANTITY = re.compile(
    rf"(?:(?P<symbol>[£€$])\s?)?(?<![\w.])(?P<number>\d+(?:\.\d+)?|\.\d+)(?:st|nd|rd|th)?(?:[\s-]*(?:{_UNIT})(?![a-z]))?"
)
_CLOCK = re.compile(r"(?<![\d/.])(\d{1,2})(?:[:.](\d\d))?\s?([ap])\.?m\b\.?|(?<![\d/.])(\d{1,2}):(\d\d)(?!\d)")
_CODE = re.compile(r"\b(?=\w*[a-z])(?=\w*\d)(?!\d+(?:\.\d+)?(?:[a-z%°]+)\b)[a-z]+[\d-]+\w*|\b[a-z]{2,}-\d+\b")
_NUMBERED_LINE = re.compile(r"^\s*\d{1,2}[.)]\s+", re.MULTILINE)
_ORDINALS = "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth"
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_ORDINAL_WORD = re.compile(rf"\b({_ORDINALS})\b(?! (?:of )?(?:{_MONTHS})\b)")
_SCALES = {"thousand": 1e3, "k": 1e3, "million": 1e6, "m": 1e6, "billion": 1e9, "bn": 1e9}
_SCALED = re.compile(
    r"(?:([£€$])\s?)?(\d+(?:\.\d+)?)\s?(thousand|million|billion)\b|([£€$])\s?(\d+(?:\.\d+)?)(k|m|bn)\b"
)
_IDIOMS = (
    (r"½", " 0.5 "),
    (r"\bfortnight\b", "2 weeks"),
    (r"\ba couple of\b", "2"),
    (r"\b(?:a|one) dozen\b", "12"),
    (r"\bhalf an? (?=hour)", "0.5 "),
    (r"\bhalf an?\b", "0.5"),
    (r"(?<!\bat )\bonce\b(?! (?:you|the|it|he|she|they|we|a diagnosis|results))", "1 times"),
    (r"\btwice\b", "2 times"),
    (r"\bthrice\b", "3 times"),
    (r"\b(?:midday|noon)\b", "12:00"),
    (r"\ban? (?=(?:hundred|thousand|million)\b)", "one "),
    (
        r"\b(for|in|within|after|about|over|than|nearly|almost|least|every|lasting|since|half|and)"
        rf"( about| almost| at least| over)? an? (?={_SPAN}\b)",
        r"\1\2 1 ",
    ),
    (rf"\ban? (?={_SPAN}(?:'s)? (?:of|ago|history|long|later|earlier)\b)", "1 "),
)
_AFTER_WORDS = (
    (r"(\d+) and 0\.5\b", r"\1.5"),
    (r"(\d+) and 1 half\b", r"\1.5"),
    (r"(\d+) ([a-z]+) and a half\b", r"\1.5 \2"),
    (r"(\d+) and a half\b", r"\1.5"),
    (r"(\d+) point ((?:\d ?)+)\b", lambda m: f"{m[1]}.{m[2].replace(' ', '')}"),
    (r"\bpoint (\d+)\b", r"0.\1"),
    (r"\b(\d+) (pounds?|euros?|dollars?) (?:and )?(\d\d)(?: pence| cents)?\b", r"\1.\3 \2"),
    (r"\b(\d) (\d\d) over (\d+)\b", r"\1\2/\3"),
    (r"\b(\d+) over (\d+)\b", r"\1/\2"),
    (r"\b(19|20) (\d\d)\b", r"\1\2"),
    (r"\bhalf past (\d{1,2})\b", r"\1:30"),
    (r"\bquarter past (\d{1,2})\b", r"\1:15"),
    (r"\bquarter to (\d{1,2})\b", lambda m: f"{int(m[1]) - 1 or 12}:45"),
    (r"\b(\d{1,2}) o'clock\b", r"\1:00"),
)


@dataclass(frozen=True)
class Quantity:
    """A number in canonical decimal form, its unit ('' for none), and the words that it was read from."""

    value: str
    unit: str
    text: str

    def agrees(self, other: "Quantity") -> bool:
        """Whether both may mean the same: equal values, and equal units where both have one."""
        if "clock" in (self.unit, other.unit) and self.unit == other.unit:
            return self.value == other.value or _twelve_hours(self.value) == other.value
        return self.value == other.value and (self.unit == other.unit or not self.unit or not other.unit)


def missing(claims: Iterable[Quantity], source: Iterable[Quantity]) -> list[Quantity]:
    """The quantities of an answer that are nowhere in its source."""
    known = list(source)
    return [claim for claim in claims if not any(claim.agrees(q) or q.agrees(claim) for q in known)]


def claimed(text: str) -> list[Quantity]:
    """The quantities that an answer states. List numbers, ordinal words and 'one' without a unit do not count."""
    plain = _ORDINAL_WORD.sub(" ", _NUMBERED_LINE.sub("", _CODE.sub(" ", _clean(text))))
    return [q for q in _quantities(plain) if q.unit or q.value != "1"]


def mentioned(text: str) -> list[Quantity]:
    """The quantities that a source gives, with those that its wording implies ('daily' is once a day)."""
    return _quantities(_clean(text)) + [quantity for pattern, quantity in _IMPLIED if pattern.search(text.lower())]


def _implied(pattern: str, value: str, unit: str) -> tuple[re.Pattern[str], Quantity]:
    return re.compile(pattern), Quantity(value, unit, pattern)


_DAYTIME = r"(?:morning|evening|night|breakfast|lunch|dinner|supper|bedtime|bed)"
_IMPLIED = [
    _implied(
        rf"\bdaily\b|\b(?:every|each|a|per|at|in the|before|after|with) (?:day|{_DAYTIME})\b|nightly", "1", "times"
    ),
    _implied(
        rf"\bmorning and (?:at )?{_DAYTIME}\b|\bbreakfast and (?:at )?{_DAYTIME}\b|every (?:12|twelve) hours",
        "2",
        "times",
    ),
    *(
        _implied(rf"\b(?:last|past|next|each|every|per|a) {unit}\b", "1", unit)
        for unit in ("day", "week", "month", "year", "hour")
    ),
    _implied(r"\byesterday\b|\btomorrow\b|\bsince last night\b", "1", "day"),
    _implied(r"\bfortnight\b", "2", "week"),
]


def _clean(text: str) -> str:
    lowered = unicodedata.normalize("NFKC", text.replace("½", " 0.5 ")).lower().replace("’", "'").replace("µ", "μ")
    return re.sub(r"[*_`]", "", lowered)


@lru_cache(maxsize=4096)
def in_digits(text: str) -> str:
    """Lower-case text with number words, spoken decimals, ratios and clock times as digits."""
    from number_parser import parse

    for pattern, replacement in _IDIOMS:
        text = re.sub(pattern, replacement, text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = _SCALED.sub(_scaled, text)
    text = "\n".join(parse(line, language="en") for line in text.split("\n"))
    for pattern, change in _AFTER_WORDS:
        text = re.sub(pattern, change, text)
    return text


def _scaled(match: re.Match[str]) -> str:
    symbol, number, scale = (match[1], match[2], match[3]) if match[2] else (match[4], match[5], match[6])
    return f"{symbol or ''}{float(number) * _SCALES[scale]:.0f}"


def _quantities(text: str) -> list[Quantity]:
    digits = in_digits(text)
    clocks = [_clock(match) for match in _CLOCK.finditer(digits)]
    rest = _CLOCK.sub(" ", digits)
    return clocks + [_quantity(match) for match in _QUANTITY.finditer(rest)]


def _clock(match: re.Match[str]) -> Quantity:
    hour, minute = int(match[1] or match[4]), match[2] or match[5] or "00"
    if match[3]:
        hour = hour % 12 + (12 if match[3] == "p" else 0)
    return Quantity(f"{hour}:{minute}", "clock", match[0].strip())


def _twelve_hours(clock: str) -> str:
    """The same time said without am or pm: 17:30 → 5:30."""
    hour, minute = clock.split(":")
    return f"{int(hour) % 12 or 12}:{minute}"


def _quantity(match: re.Match[str]) -> Quantity:
    unit = next((name for i, name in enumerate(UNITS) if match[f"u{i}"]), SYMBOLS.get(match["symbol"] or "", ""))
    return Quantity(_canonical(match["number"]), unit, " ".join(match[0].split()))


def _canonical(number: str) -> str:
    """'05.50' → '5.5'."""
    whole, _, fraction = number.partition(".")
    fraction = fraction.rstrip("0")
    return str(int(whole or 0)) + (f".{fraction}" if fraction else "")
