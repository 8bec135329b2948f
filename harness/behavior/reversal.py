"""Whether a statement says the contrary of its source: clause against clause, by shared words and cues of denial.

It uses cues and word lists and no language model, so it misses reversals that take knowledge of the world to see.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.behavior.quantities import Quantity, claimed, in_digits
from harness.behavior.words import content_stems, stem, stems

Opposites = Sequence[tuple[Sequence[str], Sequence[str]]]
ALIKE = 0.5  # least share of a clause's words that another must have to be about the same thing
SAME_NUMBER = 0.6  # the same, for clauses that are compared by their numbers

_CLAUSE = re.compile(
    r"[.;:!?](?=\s|$)|[,–—](?=\s)|\b(?:and|but|while|whereas|because|since|so|which|yet|although|though)\b|\n"
)
_NO_DENIAL = re.compile(
    r"\bno (?:more|less|fewer|later|earlier) than\b|\bnot only\b|\bnothing but\b|\bwhether or not\b|\bcosts? nothing\b"
)
_DENIAL = re.compile(r"\b(?:not|no|never|cannot|nobody|none|nothing|neither|nor|without)\b|n't\b")
_HIDDEN_DENIAL = re.compile(
    r"\b(?:(?<!goes )(?<!go )(?<!went )(?<!gone )away|avoid\w*|ban|bans|banned|forbid\w*|prohibit\w*|off limits|dropped"
    r"|abolish\w*|scrapped|called off|cancel\w*|refus\w*|reject\w*|fail\w*|unable|unaffected|closed|shut|exempt|lack\w*"
    r"|missing|gave up|(?:stays?|left) at home)\b"
)
_UNSURE = re.compile(
    r"\b(?:only|until|unless|except|still|instead|remain\w*|stay\w*|just|other than|rather|hardly|almost|most|longer"
    r"|less|fewer)\b"
)
_LIMITED = re.compile(r"\b(?:only|except|hardly|just|instead|replac\w*)\b")
_DENIED_WORD = re.compile(
    r"\b(?:not|never)\s+(?:(?:be|been|yet|very|really)\s+)?(?P<after>[a-z]{3,})|n't\s+(?P<short>[a-z]{3,})"
    r"|\b(?P<before>[a-z]{3,})\s+(?:(?:has|have|had|will|was|were|is|are|been|be)\s+){1,2}"
    r"(?:dropped|cancelled|canceled|abolished|scrapped|called off)\b"
)
_FROM_TO = re.compile(r"\bfrom\D{1,15}?(\d[\d.:]*)[^.;\d]{0,20}? to\D{1,15}?(\d[\d.:]*)")


@dataclass(frozen=True)
class Clause:
    """A clause: the stems of its words with meaning, its numbers, whether it denies, and whether that is uncertain."""

    text: str
    stems: frozenset[str]
    numbers: tuple[Quantity, ...]
    denies: bool
    unsure: bool

    @property
    def tokens(self) -> frozenset[str]:
        return self.stems | {number.value for number in self.numbers}

    def shared(self, other: "Clause") -> int:
        return len(self.tokens & other.tokens)


def reversed_statement(statement: str, source: str, opposites: Opposites) -> str | None:
    """The words of the source that a statement reverses, or None."""
    known = _clauses(source)
    if swapped := _swapped(statement, source):
        return swapped
    for clause in _clauses(statement):
        if found := _denied(clause, known) or _opposed(clause, known, opposites) or _other_number(clause, known):
            return found
    return _denied_word(statement, source)


def _clauses(text: str) -> list[Clause]:
    plain = re.sub(r"[*_`]", "", text).lower().replace("’", "'").replace("nothing but", "only")
    return [_clause(part) for part in _CLAUSE.split(plain) if part.strip()]


def _clause(text: str) -> Clause:
    without = _NO_DENIAL.sub(" ", text)
    denies = bool(_DENIAL.search(without)) != bool(_HIDDEN_DENIAL.search(without))
    rest = _HIDDEN_DENIAL.sub(" ", without)
    return Clause(
        text.strip(), frozenset(content_stems(text)), tuple(claimed(text)), denies, bool(_UNSURE.search(rest))
    )


def _closest(clause: Clause, known: Sequence[Clause], share: float = ALIKE) -> list[Clause]:
    """The known clauses that share most words with `clause`; none where they share too few."""
    best = max((clause.shared(other) for other in known), default=0)
    if best < 2 or best < share * len(clause.tokens):
        return []
    return [other for other in known if clause.shared(other) == best]


def _denied(clause: Clause, known: Sequence[Clause]) -> str | None:
    """The closest clause, where one of the two denies what the other affirms. What is denied must be in both."""
    closest = _closest(clause, known)
    if not closest or any(other.denies == clause.denies for other in closest):
        return None
    denying, affirming = (clause, closest[0]) if clause.denies else (closest[0], clause)
    in_both = _what_is_denied(denying) & affirming.stems
    unsure = clause.unsure or any(other.unsure for other in closest)
    return closest[0].text if in_both and (not unsure or any(map(_UNSURE.fullmatch, in_both))) else None


def _what_is_denied(clause: Clause) -> set[str]:
    """The first word with meaning after an explicit denial; all words of a clause that denies by its verb."""
    denial = _DENIAL.search(_NO_DENIAL.sub(" ", clause.text))
    if denial is None:
        return set(clause.stems)
    after = content_stems(_NO_DENIAL.sub(" ", clause.text)[denial.end() :])
    return set(after[:1]) or set(clause.stems)


def _opposed(clause: Clause, known: Sequence[Clause], opposites: Opposites) -> str | None:
    """The closest clause, where it has the opposite of a word of `clause`."""
    said = set(stems(clause.text))
    for other in _closest(clause, known):
        given = set(stems(other.text))
        for pair in opposites:
            left, right = ({stem(word) for word in words} for words in pair)
            for mine, contrary in ((left, right), (right, left)):
                if said & mine and not said & contrary and given & contrary and not given & mine:
                    return None if _explicit(clause) != _explicit(other) else other.text
    return None


def _explicit(clause: Clause) -> bool:
    return bool(_DENIAL.search(_NO_DENIAL.sub(" ", clause.text)))


def _other_number(clause: Clause, known: Sequence[Clause]) -> str | None:
    """The closest clause, where the only number of `clause` belongs to other words in the source. Dates are ignored."""
    if len(clause.numbers) != 1 or _YEAR.search(clause.text):
        return None
    number, words = clause.numbers[0], _unmeasured(clause)
    alike = [(len(words & _unmeasured(other)), other) for other in known]
    best = max((shared for shared, _ in alike), default=0)
    if best < 2 or best < SAME_NUMBER * len(words):
        return None
    closest = [other for shared, other in alike if shared == best]
    own = max((shared for shared, other in alike if any(number.agrees(n) for n in other.numbers)), default=0)
    return closest[0].text if own < best and all(other.numbers for other in closest) else None


_YEAR = re.compile(
    r"\b(?:19|20)\d\d\b|\b(?:january|february|march|april|may|june|july|august|september|october|november|december)\b"
)


def _unmeasured(clause: Clause) -> frozenset[str]:
    """The words of a clause without those of its quantities (units, currencies)."""
    return clause.stems - {word for number in clause.numbers for word in stems(number.text)}


def _denied_word(statement: str, source: str) -> str | None:
    """Where the source only denies a word ('not open', 'the show was cancelled') that the statement affirms."""
    lowered = source.lower().replace("’", "'")
    denied = {stem(next(filter(None, match.groups()))): match[0] for match in _DENIED_WORD.finditer(lowered)}
    always = {word: text for word, text in denied.items() if stems(lowered).count(word) == 1}
    for clause in _clauses(statement):
        if not (_DENIAL.search(clause.text) or _HIDDEN_DENIAL.search(clause.text) or _LIMITED.search(clause.text)):
            for word in clause.stems & set(always):
                return always[word]
    return None


def _swapped(statement: str, source: str) -> str | None:
    """'from 3 to 4' where the source has 'from 4 to 3'."""
    given = {(m[1], m[2]): m[0] for m in _FROM_TO.finditer(in_digits(source.lower()))}
    for match in _FROM_TO.finditer(in_digits(statement.lower())):
        pair = match[1], match[2]
        if pair not in given and pair[::-1] in given:
            return given[pair[::-1]]
    return None
