"""What a note says and its dialogue does not: numbers, medications, sides of the body, reversed symptoms."""

import re
from collections.abc import Sequence
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field

from harness.behavior.config import Regex
from harness.behavior.negation import Mention, mentions
from harness.behavior.quantities import claimed, mentioned, missing
from harness.behavior.words import content_stems, stem

_NOT_A_SIDE = re.compile(
    r"\b(?:all|that's|thats|that is|just|quite|yes|yeah|is that|alright|oh|okay|ok|so)[, ]+right\b"
    r"(?! (?:hand|side|knee|ear|eye|arm|leg))"
    r"|(?:^|[.:!?]\s*)right[,.!?]"
    r"|(?<!\bthe )(?<!\bmy )(?<!\bhis )(?<!\bher )\bright"
    r"(?:,| away| now| then| after| before| from| when| as| through|-o\b|\?)"
    r"|\b(?:i|has|have|he|she|they|we|was|what's|whatever is|anything)(?:'ve)? left"
    r"(?! (?:\w+ )?(?:hand|side|arm|leg|ear|eye|knee))"
    r"|\bleft (?:it|the|work|my job|over|for|untreated|alone|home|off|out|here|there|him|her|me)\b"
)
_SIDE = r"(left|right|both|bilateral(?:ly)?)"
_PART_OF_SENTENCE = re.compile(r"[.,;:!?\n]|\band (?=(?:the |my |his |her )?(?:left|right)\b)")


class Lexicon(BaseModel):
    """The vocabulary of the field. Each list in `medications`, `body_parts` and `synonyms` holds names of one thing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    medications: list[list[str]]

    medication_patterns: list[Regex] = Field(default=[])
    """Words that are medications by their form, such as those ending in -cillin."""

    body_parts: list[list[str]]
    synonyms: list[list[str]] = Field(default=[])

    no_symptoms: list[str] = Field(default=[])
    """Phrases that do not mean a symptom although one of their words does ('blood pressure')."""


def numbers(note: str, dialogue: str) -> list[str]:
    """Quantities of the note that the dialogue does not give."""
    return [quantity.text for quantity in missing(claimed(note), mentioned(dialogue))]


def medications(note: str, dialogue: str, lexicon: Lexicon, known: Sequence[str] = ()) -> list[str]:
    """Medications of the note that the dialogue does not name, not by another name either."""
    source = " ".join([dialogue, *known]).lower()
    wrong = []
    for names in lexicon.medications:
        named = next((name for name in names if _word(name, note)), None)
        if named and not any(_word(name, source) for name in names):
            wrong.append(named)
    listed = {name.lower() for names in lexicon.medications for name in names}
    for pattern in lexicon.medication_patterns:
        for word in re.findall(rf"\b(?:{pattern})\b", note.lower()):
            if word not in listed and word.removesuffix("s") not in source and word not in wrong:
                wrong.append(word)
    return wrong


def _word(name: str, text: str) -> bool:
    return _any_of((name,)).search(text) is not None


@lru_cache(maxsize=4096)
def _any_of(names: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the names as whole words, in any case, with a plural s."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})s?(?!\w)", re.IGNORECASE)


def sides(note: str, dialogue: str, lexicon: Lexicon) -> list[str]:
    """Sides of body parts in the note that the dialogue does not give."""
    said, written = _pairs(dialogue, lexicon), _pairs(note, lexicon)
    loose, named = _loose(dialogue), {side for side, _ in written}
    wrong = [f"the {side}" for side in sorted(_loose(note) - loose - named - {"both"})]
    for side, part in sorted(written):
        of_part = {s for s, p in said if p == part}
        known = side in of_part or (side == "both" and {"left", "right"} <= of_part | loose)
        if not known and (of_part or side not in loose):
            wrong.append(f"{side} {part}")
    return wrong + _exchanged(note, dialogue, lexicon, said)


def _loose(text: str) -> set[str]:
    """The sides that a text names, of anything."""
    return {_side(match[1]) for match in re.finditer(rf"\b{_SIDE}\b", _sides_only(text))}


def _exchanged(note: str, dialogue: str, lexicon: Lexicon, said: set[tuple[str, str]]) -> list[str]:
    """What the note says of one side of a part, and the dialogue, which mentions both sides, says of the other."""
    parts = {part for side, part in said if side == "left" and ("right", part) in said}
    if not parts:
        return []
    given = _contexts(dialogue, lexicon, parts)
    wrong = []
    for (side, part), words in (
        (pair, words) for pair, found in _contexts(note, lexicon, parts).items() for words in found
    ):
        own, other = (
            max((len(words & known) for known in given.get((which, part), [])), default=0)
            for which in (side, _OTHER[side])
        )
        if other > own:
            wrong.append(f"{side} {part}: the dialogue says it of the {_OTHER[side]}")
    return wrong


_OTHER = {"left": "right", "right": "left"}


def _contexts(text: str, lexicon: Lexicon, parts: set[str]) -> dict[tuple[str, str], list[set[str]]]:
    """The words used with one side of a part, clause by clause. Clauses that name both sides are left out."""
    found: dict[tuple[str, str], list[set[str]]] = {}
    for clause in _PART_OF_SENTENCE.split(_sides_only(text)):
        pairs = {(side, part) for side, part in _pairs(clause, lexicon) if part in parts and side in _OTHER}
        if len(pairs) == 1:
            pair = pairs.pop()
            named = {*pair, *(stem(word) for word in pair[1].split())}
            found.setdefault(pair, []).append(set(content_stems(clause)) - named)
    return found


def _pairs(text: str, lexicon: Lexicon) -> set[tuple[str, str]]:
    """(side, body part) for 'left knee', 'the knee on the left', 'both knees'."""
    plain = _sides_only(text)
    found = set()
    for names in lexicon.body_parts:
        for pattern in _side_patterns(tuple(names)) if any(name in plain for name in names) else ():
            found |= {(_side(match[1]), names[0]) for match in pattern.finditer(plain)}
    return found


@lru_cache(maxsize=1024)
def _side_patterns(names: tuple[str, ...]) -> list[re.Pattern[str]]:
    part = "(?:" + "|".join(map(re.escape, names)) + ")"
    between = r"(?: (?!left\b|right\b|and\b|or\b)[\w']+){0,3}?"
    patterns = (
        rf"\b{_SIDE}(?:[ -](?:hand|sided?|hand side))?[ ,]+(?:(?!left\b|right\b)[\w'-]+ ){{0,2}}?{part}\b",
        rf"\b{part}\b{between} (?:on|in|to|at) (?:the |my |his |her |their )?{_SIDE}\b",
        rf"\b{part}[,(:–-]+ ?(?:the |on the |my )?{_SIDE}\b",
    )
    return [re.compile(pattern) for pattern in patterns]


def _sides_only(text: str) -> str:
    """Lower-case text without the uses of 'right' and 'left' that name no side."""
    lowered = re.sub(r"[*_]", "", text.lower().replace("’", "'"))
    return _NOT_A_SIDE.sub(" ", re.sub(r"^(?:doctor|patient|nurse):", ".", lowered, flags=re.MULTILINE))


def _side(word: str) -> str:
    return word if word in ("left", "right") else "both"


def reversals(note: str, present: Sequence[str], absent: Sequence[str], lexicon: Lexicon) -> list[str]:
    """Symptoms that the note denies although they are present, or gives although the patient denies them."""
    wrong = []
    if lexicon.no_symptoms:
        note = _any_of(tuple(lexicon.no_symptoms)).sub("…", note)
    here = {symptom: mentions(note, _names(symptom, lexicon)) for symptom in present}
    gone = {symptom: mentions(note, _names(symptom, lexicon)) for symptom in absent}
    for symptom, found in here.items():
        denials = [m for m in found if m.status == "denied" and not _inside(m, gone)]
        affirmed = any(m.status == "affirmed" for m in found)
        if denials and not (affirmed and all(m.qualified for m in denials)):
            wrong.append(f"{symptom} denied: '{denials[0].clause}'")
    for symptom, found in gone.items():
        given = [m for m in found if m.status == "affirmed" and not _inside(m, here)]
        if given:
            wrong.append(f"{symptom} given: '{given[0].clause}'")
    return wrong


def _names(symptom: str, lexicon: Lexicon) -> list[str]:
    groups = [names for names in lexicon.synonyms if symptom.lower() in names]
    return [symptom, *(name for names in groups for name in names)]


def _inside(mention: Mention, others: dict[str, list[Mention]]) -> bool:
    """Whether a mention is part of a mention of something else: 'pain' in 'knee pain'."""
    return any(o.start <= mention.start and mention.end <= o.end for found in others.values() for o in found)
