"""Whether a statement stands in a text: its names, and that it is not turned into its contrary."""

import re
from collections.abc import Sequence

from harness.behavior.quantities import in_digits
from harness.behavior.words import content_stems, stem, stems

_NAME = re.compile(r"[^\W\d_][\w'’&-]*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_DENIAL = re.compile(r"\b(?:not|no|never|cannot|none|neither|nor|without)\b|n't\b")
_HALF_DENIAL = re.compile(
    r"\b(?:only|until|unless|except|stop\w*|avoid\w*|refus\w*|fail\w*|clos\w+|unable|exempt\w*|unaffected|unchanged|still"
    r"|instead|free|ban\w*|prohibit\w*|cancel\w*|remain\w*|other than|longer|rather|less|before|after|remov\w*|end\w*"
    r"|skip\w*|missing|lack\w*|wrong\w*)\b"
)
_FROM_TO = re.compile(r"\bfrom\D{1,15}?(\d[\d.:]*)[^.;\d]{0,20}? to\D{1,15}?(\d[\d.:]*)")
_ALIKE = 0.5  # share of a statement's content words that a sentence must have to be about the same thing


def names_missing(statement: str, source: str) -> list[str]:
    """Capitalised words inside a statement that the source nowhere has."""
    known = {_plain(word) for word in _NAME.findall(source)}
    known |= {part for word in known for part in re.split(r"[-&']", word)}
    missing = []
    for words in (
        _NAME.findall(sentence) for sentence in re.split(r"(?<=[.!?:])\s+", re.sub(r"[*_`\"“”]", "", statement))
    ):
        for i, word in enumerate(words):
            opens_name = i == 0 and len(words) > 1 and words[1][0].isupper() and len(words[1]) > 1
            if word[0].isupper() and (i > 0 or opens_name) and not _known(word, known):
                missing.append(word)
    return missing


def _known(word: str, known: set[str]) -> bool:
    plain = _plain(word)
    return (
        plain in known or all(part in known for part in re.split(r"[-&']", plain) if part) or _abbreviates(plain, known)
    )


def _abbreviates(word: str, known: set[str]) -> bool:
    """Short forms of months and days: 'Mar' for 'March', and the other way round."""
    if _CALENDAR.fullmatch(word):
        return bool({word[:3], word[:4]} & known)
    return len(word) in (3, 4) and any(name.startswith(word) for name in known if _CALENDAR.fullmatch(name))


_CALENDAR = re.compile(
    "january|february|march|april|may|june|july|august|september|october|november|december"
    "|monday|tuesday|wednesday|thursday|friday|saturday|sunday"
)


def _plain(word: str) -> str:
    lowered = word.lower().replace("’", "'").strip("'-&")
    return lowered.removesuffix("'s")


def reversed_statement(
    statement: str, source: str, opposites: Sequence[tuple[Sequence[str], Sequence[str]]]
) -> str | None:
    """The sentence of the source that a statement turns round: denied or not, opposite words, from and to."""
    content = frozenset(content_stems(statement))
    if not content:
        return None
    sentences = [sentence for sentence in _SENTENCE.split(source) if sentence.strip()]
    scored = [(len(content & frozenset(content_stems(sentence))) / len(content), sentence) for sentence in sentences]
    share, closest = max(scored, key=lambda pair: pair[0], default=(0.0, ""))
    if _swapped(statement, source):
        return closest
    if share < _ALIKE:
        return None
    if _opposed(statement, closest, opposites) or (
        _denies(statement) != _denies(closest) and not _unsure(statement, closest)
    ):
        return closest
    return None


def _denies(sentence: str) -> bool:
    return _DENIAL.search(sentence.lower().replace("’", "'")) is not None


def _unsure(*sentences: str) -> bool:
    """Words that deny half, or several clauses with and without a denial: too little to speak of a reversal."""
    return any(_HALF_DENIAL.search(sentence.lower()) for sentence in sentences)


def _opposed(statement: str, sentence: str, opposites: Sequence[tuple[Sequence[str], Sequence[str]]]) -> bool:
    said, given = set(stems(statement)), set(stems(sentence))
    for pair in opposites:
        left, right = ({stem(word) for word in words} for words in pair)
        for mine, contrary in ((left, right), (right, left)):
            if said & mine and not said & contrary and given & contrary and not given & mine:
                return _denies(statement) == _denies(sentence)
    return False


def _swapped(statement: str, source: str) -> bool:
    """'from 3 to 4' where the source has 'from 4 to 3'."""
    said, given = ({(m[1], m[2]) for m in _FROM_TO.finditer(in_digits(t.lower()))} for t in (statement, source))
    return any((second, first) in given and (first, second) not in given for first, second in said)
