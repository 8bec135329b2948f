"""What a note says that its dialogue does not: numbers, medications, sides of the body, reversed symptoms."""

import re
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from harness.behavior.config import Regex
from harness.behavior.negation import Mention, mentions
from harness.behavior.quantities import claimed, mentioned, missing

_NOT_A_SIDE = re.compile(
    r"\b(?:all|that's|thats|that is|just|quite|yes|yeah|is that|alright|oh|okay|ok|so)[, ]+right\b"
    r"(?! (?:hand|side|knee|ear|eye|arm|leg))"
    r"|(?:^|[.:!?]\s*)right[,.!?]|\bright(?:,| away| now| then| after| before| from| when| as| through|-o\b|\?)"
    r"|\b(?:i|has|have|he|she|they|we|was|what's|whatever is|anything)(?:'ve)? left"
    r"(?! (?:\w+ )?(?:hand|side|arm|leg|ear|eye|knee))"
    r"|\bleft (?:it|the|work|my job|over|for|untreated|alone|home|off|here|there|him|her|me)\b"
)
_SIDE = r"(left|right|both|bilateral(?:ly)?)"


class Lexicon(BaseModel):
    """Words of the trade. Each list in `medications`, `body_parts` and `synonyms` holds names of one thing.

    `no_symptoms`: phrases that name no symptom although a word of theirs does ('blood pressure').
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    medications: list[list[str]]
    medication_patterns: list[Regex] = Field(default=[])
    body_parts: list[list[str]]
    synonyms: list[list[str]] = Field(default=[])
    no_symptoms: list[str] = Field(default=[])


def numbers(note: str, dialogue: str) -> list[str]:
    """Quantities of the note that the dialogue does not give."""
    return [quantity.text for quantity in missing(claimed(note), mentioned(dialogue))]


def medications(note: str, dialogue: str, lexicon: Lexicon, known: Sequence[str] = ()) -> list[str]:
    """Medications of the note that the dialogue names neither so nor by another name."""
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
    return re.search(rf"(?<!\w){re.escape(name)}s?(?!\w)", text, re.IGNORECASE) is not None


def sides(note: str, dialogue: str, lexicon: Lexicon) -> list[str]:
    """Sides of body parts in the note that the dialogue does not give."""
    said, written = _pairs(dialogue, lexicon), _pairs(note, lexicon)
    loose = {_side(match[1]) for match in re.finditer(rf"\b{_SIDE}\b", _sides_only(dialogue))}
    wrong = []
    for side, part in sorted(written):
        of_part = {s for s, p in said if p == part}
        known = side in of_part or (side == "both" and {"left", "right"} <= of_part | loose)
        if not known and (of_part or side not in loose):
            wrong.append(f"{side} {part}")
    return wrong


def _pairs(text: str, lexicon: Lexicon) -> set[tuple[str, str]]:
    """(side, body part) as said: 'left knee', 'the knee on the left', 'both knees'."""
    plain = _sides_only(text)
    found = set()
    for names in lexicon.body_parts:
        part = "(?:" + "|".join(re.escape(name) for name in names) + ")"
        between = r"(?: (?!left\b|right\b|and\b|or\b)[\w']+){0,3}?"
        before = rf"\b{_SIDE}(?:[ -](?:hand|sided?|hand side))?[ ,]+(?:(?!left\b|right\b)[\w'-]+ ){{0,2}}?{part}\b"
        after = rf"\b{part}\b{between} (?:on|in|to|at) (?:the |my |his |her |their )?{_SIDE}\b"
        apposed = rf"\b{part}[,(:–-]+ ?(?:the |on the |my )?{_SIDE}\b"
        for pattern in (before, after, apposed):
            found |= {(_side(match[1]), names[0]) for match in re.finditer(pattern, plain)}
    return found


def _sides_only(text: str) -> str:
    """Lower-case text without the uses of 'right' and 'left' that name no side."""
    lowered = re.sub(r"[*_]", "", text.lower().replace("’", "'"))
    return _NOT_A_SIDE.sub(" ", re.sub(r"^(?:doctor|patient|nurse):", ".", lowered, flags=re.MULTILINE))


def _side(word: str) -> str:
    return word if word in ("left", "right") else "both"


def reversals(note: str, present: Sequence[str], absent: Sequence[str], lexicon: Lexicon) -> list[str]:
    """Symptoms that the note denies although they are there, or gives although they are denied."""
    wrong = []
    for phrase in lexicon.no_symptoms:
        note = re.sub(rf"\b{re.escape(phrase)}\b", "…", note, flags=re.IGNORECASE)
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
    """Whether a mention of something else covers it: 'pain' in 'knee pain'."""
    return any(o.start <= mention.start and mention.end <= o.end for found in others.values() for o in found)
