"""Whether a text affirms, denies or only supposes what it mentions.

Cue words with a scope, after NegEx and ConText (Chapman et al. 2001; Harkema et al. 2009): a cue before a mention
applies to the end of its clause, a cue after it applies backwards.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from harness.behavior.words import stem

Status = Literal["affirmed", "denied", "supposed"]

_CLAUSE = re.compile(
    r"(?<!\d)\.(?!\d)|\.(?=\s)|[!?;\n]"
    r"|\b(?:but|however|although|though|yet|except|besides|apart from|aside from|instead)\b"
    r"|(?:,|\band\b)\s*(?=(?:\w+\s)?(?:reports?|reported|complains?|describes?|endorses?|admits?|presents?|states?"
    r"|den(?:ies|ied)\s(?=\w)|(?:has|had|is|was|does|did)(?!\s+(?:denied|absent|negative|not|ruled))"
    r"|positive for|negative for|now|there is|there are)\b)"
)
_NOT_A_DENIAL = re.compile(
    r"\b(?:no|not|never|nothing)(?:\s\w+)?\swithout\b|"
    r"\b(?:not|n't|never|cannot|no longer|without)\s+(?:\w+\s)?(?:den(?:y|ies|ied|ying)|rul(?:e|ed) out|exclude)\b"
    r"|\bno\s+(?:change|improvement|relief|reduction|better|worsening|increase|further|cure|medicine|medication|treatment"
    r"|tablets?)\b"
    r"|\bnot\s+(?:only|just|sure|improv\w+|reliev\w+|resolv\w+|sett\w+|respond\w*|help\w*|better|going|gone|worse\w*"
    r"|taken|tried|sleep\w*|able)\b"
    r"|\b(?:has|have|had|did|does|do)(?:n't| not)\s+(?:improv\w+|help\w*|reliev\w+|resolv\w+|sett\w+|gone|eas\w+|taken?"
    r"|tried|sle\w+|work\w*|respond\w*|known?|notic\w+ any change)\b"
)
_DENIED_BEFORE = re.compile(
    r"\b(?:no|not|n't|never|nor|neither|without|nil|none|cannot|denie[sd]|denying|deny|absence of|absent|free of"
    r"|negative for|free from|lack of|lacks|afebrile|unlikely|rules? out|ruled out|excludes?|excluded)\b|n't\b"
)
_SUPPOSED_BEFORE = re.compile(
    r"\b(?:if|should|unless|in case|(?:watch|look) (?:out )?for|monitor(?:ing)? for|observe for|risk of|seek|urgent\w*"
    r"|red flags?|(?:return|come back)\w* (?:for|with|urgently)|report any|asked about|prevent\w*|avoid\w*"
    r"|to exclude|to rule out|possible|possibly|might|may|could|warned|advised about|side effects?|family history"
    r"|(?:mother|father|brother|sister) (?:has|had)|(?<!day )(?<!days )(?<!week )(?<!weeks )(?<!month )"
    r"(?<!months )(?<!hour )(?<!hours )(?<!year )history of|previous(?:ly)?|in the past|as needed for|for any"
    r"|any new)\b"
)
_SUPPOSED_AFTER = re.compile(
    r"^[^,;]{0,30}\b(?:worsen\w*|develops?|occurs?|returns?|recurs?|persists?)\b"
    r"|^\W*(?:\w+\s){0,2}(?:in the past|last year|years ago)\b"
)
_DENIED_AFTER = re.compile(
    r"^\W*(?:[:=–-]|\()\s*(?:no|none|nil|absent|denied|negative|not present|nope)\b"
    r"|^[^,;]{0,40}\b(?:absent|denied|denies|negative|ruled out|excluded|not (?:present|reported|noted|described|seen"
    r"|mentioned"
    r"|found|observed|experienced)|(?:isn|wasn)'t (?:present|reported|noted))\b"
)
_LIST_DENIED = re.compile(
    r"^\W*(?:\w+:)?\s*(?P<list>[^.;:]*?)(?:[,:–-]|\s(?:all|both|were|was|are|is))*\s*"
    r"(?:denied|absent|negative|none|nil|ruled out|excluded)\W*$"
)
_NO_LIST = re.compile(
    r"\d|\b(?:for|since|with|in|on|after|worse|during|has|have|had|reports?|but|at|from|when|who|which|no|not)\b"
)
_DENIED_INSIDE = re.compile(r"\b(?:not|no)\b|n't\b|\b(?:afebrile|apyrexial|painless\w*|nontender|non-tender)\b")
_QUALIFIED = re.compile(
    r"\b(?:at rest|at night|at present|today|currently|now|since|when lying|on examination|after|before|during"
    r"|any ?more|this morning|in clinic|for the (?:last|past))\b"
)
_FILLERS = re.compile(r"a|an|the|of|in|on|to|my|his|her|their|your|with|and|any|some")


@dataclass(frozen=True)
class Mention:
    """A term found in a text: where it is, its status, its clause, and whether the clause limits it ('at rest')."""

    start: int
    end: int
    status: Status
    clause: str
    qualified: bool


def mentions(text: str, terms: Iterable[str]) -> list[Mention]:
    """Every mention of one of `terms`, in the order of the text: inflected, its words in any order, close together."""
    lowered = text.lower().replace("’", "'")
    wanted = [tuple(stem(word) for word in _words(term)) for term in terms]
    found = [
        _mention(lowered, start, end, span)
        for start, end in clauses(lowered)
        for span in _matches(lowered, start, end, wanted)
    ]
    return sorted(set(found), key=lambda m: m.start)


def clauses(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each clause. A denial does not reach beyond its clause."""
    start = 0
    for match in _CLAUSE.finditer(text):
        if match.start() > start:
            yield start, match.start()
        start = match.start() if match[0] and match[0][0].isalpha() else match.end()
    yield start, len(text)


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower()) if not _FILLERS.fullmatch(word)]


def _matches(text: str, start: int, end: int, wanted: Iterable[tuple[str, ...]]) -> Iterator[tuple[int, int]]:
    words = [
        (stem(m[0]), m.start(), m.end())
        for m in re.finditer(r"[^\W_]+(?:'[^\W_]+)?", text[:end])
        if m.start() >= start and not _FILLERS.fullmatch(m[0])
    ]
    for term in wanted:
        for i, (first, *_) in enumerate(words):
            window = words[i : i + len(term) + 1]
            if term and first in term and set(term) <= {word for word, *_ in window}:
                last = max(j for j, (word, *_) in enumerate(window) if word in term)
                yield window[0][1], window[last][2]


def _mention(text: str, start: int, end: int, span: tuple[int, int]) -> Mention:
    words = text[start:end]
    before = _NOT_A_DENIAL.sub(lambda m: " " * len(m[0]), words)[: span[0] - start]
    after = text[span[1] : end]
    status = _status(before, text[slice(*span)], after, words)
    return Mention(*span, status, " ".join(words.split()), bool(_QUALIFIED.search(after)))


def _status(before: str, term: str, after: str, clause: str) -> Status:
    if _SUPPOSED_BEFORE.search(before) or _SUPPOSED_AFTER.search(after):
        return "supposed"
    if _DENIED_BEFORE.search(before) or _DENIED_AFTER.search(after) or _DENIED_INSIDE.search(term):
        return "denied"
    return "denied" if _list_denied(clause) else "affirmed"


def _list_denied(clause: str) -> bool:
    """Whether a clause is a bare list and then the denial of all of it: 'Fever, cough and rash denied'."""
    match = _LIST_DENIED.match(clause)
    return match is not None and not _NO_LIST.search(match["list"])
