"""Whether the names of a statement stand in its text."""

import re

from harness.behavior.words import stem

_NAME = re.compile(r"[^\W\d_][\w'’&-]*")


def names_missing(statement: str, source: str) -> list[str]:
    """Capitalised words inside a statement that the source nowhere has; the first word of a sentence may be any."""
    known = {part for word in _NAME.findall(source) for part in _parts(word)}
    plain = re.sub(r"[*_`\"“”]", "", statement)
    inside = [word for sentence in re.split(r"(?<=[.!?:])\s+", plain) for word in _NAME.findall(sentence)[1:]]
    return [word for word in inside if word[0].isupper() and not _known(word, known)]


def _known(word: str, known: set[str]) -> bool:
    whole, *_ = forms = _parts(word)
    return bool({whole, stem(whole)} & known) or set(forms[2:]) <= known or _abbreviates(whole, known)


def _parts(word: str) -> list[str]:
    """A word in lower case without 's, its stem, and the parts it is joined of."""
    whole = word.lower().replace("’", "'").strip("'-&").removesuffix("'s")
    return [whole, stem(whole), *(part for part in re.split(r"[-&']", whole) if part)]


def _abbreviates(word: str, known: set[str]) -> bool:
    """Short forms of months and days: 'Mar' for 'March', and the other way round."""
    if _CALENDAR.fullmatch(word):
        return bool({word[:3], word[:4]} & known)
    return len(word) in (3, 4) and any(name.startswith(word) for name in known if _CALENDAR.fullmatch(name))


_CALENDAR = re.compile(
    "january|february|march|april|may|june|july|august|september|october|november|december"
    "|monday|tuesday|wednesday|thursday|friday|saturday|sunday"
)
