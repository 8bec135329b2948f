"""The kind `clinical_note`: the agreed sections in order and nothing else, and only what the dialogue says."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field

from harness.behavior.config import BehaviorConfig, Regex
from harness.behavior.exchange import Check, Exchange, RuleFinding, topic_errors
from harness.behavior.faithfulness import Lexicon, medications, numbers, reversals, sides

_MARKUP = re.compile(r"^\s{0,3}(?:#{1,6}\s+)?[*_]{0,3}\s*")
_FENCE = re.compile(r"^\s*```\w*\s*$")


@dataclass(frozen=True)
class Section:
    """A heading as configured, and the text under it."""

    heading: str
    text: str


@dataclass(frozen=True)
class Note:
    """The text before the first heading, and the sections in the order of the text."""

    preamble: str
    sections: list[Section]

    def first(self, heading: str) -> Section | None:
        return next((section for section in self.sections if section.heading == heading), None)


def read_note(text: str, headings: Sequence[str]) -> Note:
    """The sections of a note. A heading begins a line and ends with a colon, or is a Markdown or bold heading."""
    preamble: list[str] = []
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if _FENCE.match(line):
            continue
        heading = _heading(line, headings)
        if heading is not None:
            found.append((heading[0], [heading[1]]))
        else:
            (found[-1][1] if found else preamble).append(line)
    return Note("\n".join(preamble).strip(), [Section(name, "\n".join(lines).strip()) for name, lines in found])


def _heading(line: str, headings: Sequence[str]) -> tuple[str, str] | None:
    """The heading that begins a line, and the rest of the line."""
    names = "|".join(re.escape(name) for name in headings)
    marked = re.match(rf"\s{{0,3}}(?:#{{1,6}}\s+)[*_]{{0,3}}({names})[*_]{{0,3}}:?[*_]{{0,3}}\s*$", line, re.IGNORECASE)
    bold = re.match(rf"\s{{0,3}}[*_]{{1,3}}({names})[*_]{{1,3}}\s*$", line, re.IGNORECASE)
    plain = re.match(
        rf"\s{{0,3}}(?:#{{1,6}}\s+)?[*_]{{0,3}}({names})[*_]{{0,3}}\s?:[*_]{{0,3}}(.*)$", line, re.IGNORECASE
    )
    match = marked or bold or plain
    if match is None:
        return None
    name = next(name for name in headings if name.lower() == match[1].lower())
    return name, (match[2] if match is plain and not marked and not bold else "")


def foreign_heading(line: str, known_names: Sequence[str]) -> str | None:
    """The words of a line that is a heading, agreed or not: Markdown, bold, `Words:` alone, or a known name."""
    lone = re.match(r"\s*(?:#{1,6}\s+(.+?)|[*_]{2,3}([^*_]{2,40}?)[*_]{2,3}:?|([A-Z][A-Za-z /&'-]{2,40}):)\s*$", line)
    if lone:
        return next(group for group in lone.groups() if group)
    names = "|".join(re.escape(name) for name in known_names)
    opened = re.match(rf"{_MARKUP.pattern}({names})[*_]{{0,3}}\s?:", line, re.IGNORECASE) if names else None
    return opened[1] if opened else None


FORMAT = ("sections", "order", "not_empty", "no_other_sections", "nothing_around", "abbreviations")
FAITHFUL = ("numbers", "medications", "laterality", "not_reversed")
_LINE_MARKS = re.compile(r"^[\s>*•\-–]+|[\s*_.]+$")


class ClinicalNoteConfig(BehaviorConfig):
    """The agreed form of a note, and the words that its facts are compared by."""

    topics: list[str]
    """Topics on which a note is demanded."""

    sections: list[str] = Field(min_length=1)
    """Headings of the note, in order."""

    other_sections: list[str] = Field(default=[])
    """Headings of other note formats; they are wrong here."""

    placeholder: str = "Not discussed."
    """What to write under a heading that the dialogue says nothing about."""

    empty: list[str] = Field(default=[])
    """Texts that leave a section empty, such as "N/A"."""

    remarks: list[Regex] = Field(default=[])
    """Text around a note that is not part of it, such as an offer of help."""

    forbidden_abbreviations: dict[str, Regex] = Field(default={})
    """Dangerous abbreviations by name."""

    lexicon: Lexicon
    """Vocabulary of the check of faithfulness: medications, body parts, synonyms."""


class ClinicalNote:
    def __init__(self, config: ClinicalNoteConfig):
        self.config = config

    def check(self, exchange: Exchange) -> Check:
        """`format` and `faithful` are 1 when all their rules pass; `section_recall` is the share of filled sections."""
        if exchange.topic not in self.config.topics:
            return Check([])
        note = read_note(exchange.response, self.config.sections)
        findings = [*self._format(note, exchange.response), *self._faithful(exchange)]
        passed = {finding.rule: finding.passed for finding in findings}
        filled = sum(name in self._names(note) and name not in self._empty(note) for name in self.config.sections)
        metrics = {
            "format": float(all(passed[rule] for rule in FORMAT)),
            "faithful": float(all(passed[rule] for rule in FAITHFUL) and bool(exchange.response.strip())),
            "section_recall": filled / len(self.config.sections),
            **{rule: float(passed[rule]) for rule in (*FORMAT, *FAITHFUL)},
        }
        return Check(findings, metrics)

    def without(self, text: str) -> str:
        """The text without the headings."""
        note = read_note(text, self.config.sections)
        return "\n".join(part for part in (note.preamble, *(s.text for s in note.sections)) if part)

    def leaked(self, text: str) -> str | None:
        """The headings found, where they make a note: three anywhere, or two with sentences under them."""
        pattern = r"\b{}\b[*_]*\s?:"
        headed = [n for n in self.config.sections if re.search(pattern.format(re.escape(n)), text, re.IGNORECASE)]
        note = read_note(text, self.config.sections)
        filled = [name for name in set(self._names(note)) if _long(note, name)]
        found = headed if len(headed) > 2 else filled
        return ", ".join(sorted(found)) if len(found) > 1 else None

    def item_errors(self, item: Exchange) -> list[str]:
        errors = topic_errors(item, self.config.topics)
        errors += [] if item.input.strip() else ["input is empty; it must hold the dialogue"]
        for key in ("present", "absent"):
            if not isinstance(item.details.get(key), list):
                errors.append(f"details.{key} is missing or not a list")
        return errors

    def _names(self, note: Note) -> list[str]:
        return [section.heading for section in note.sections]

    def _empty(self, note: Note) -> list[str]:
        empty = {"", *(text.lower().rstrip(".") for text in self.config.empty)}
        return [s.heading for s in note.sections if _LINE_MARKS.sub("", s.text.strip()).lower() in empty]

    def _format(self, note: Note, response: str) -> Iterator[RuleFinding]:
        wanted, names = self.config.sections, self._names(note)
        absent = [name for name in wanted if name not in names]
        yield RuleFinding(
            "sections", not absent, ", ".join(wanted), f"missing: {', '.join(absent)}" if absent else "all"
        )
        in_order = names == [name for name in wanted if name in names]
        yield RuleFinding("order", in_order, "each section once, in the agreed order", ", ".join(names) or "no section")
        empty = self._empty(note)
        expected = f"text in each section, or '{self.config.placeholder}'"
        yield RuleFinding("not_empty", not empty, expected, f"empty: {', '.join(empty)}" if empty else "none empty")
        other = self._other(response)
        yield RuleFinding("no_other_sections", other is None, f"only {', '.join(wanted)}", other or "no other section")
        around = self._around(note)
        yield RuleFinding("nothing_around", around is None, "only the note", around or "only the note")
        wrong = self._abbreviation(response)
        yield RuleFinding("abbreviations", wrong is None, "no dangerous abbreviation", wrong or "none")

    def _other(self, response: str) -> str | None:
        found = (foreign_heading(line, self.config.other_sections) for line in response.splitlines())
        own = {name.lower() for name in self.config.sections}
        return next((name for name in found if name and name.strip(" :*_").lower() not in own), None)

    def _around(self, note: Note) -> str | None:
        """Text before the first heading, or a remark that is not part of a note."""
        if note.preamble or not note.sections:
            return _short(note.preamble) if note.preamble else None
        text = "\n".join(section.text for section in note.sections)
        found = (re.search(pattern, text, re.IGNORECASE | re.MULTILINE) for pattern in self.config.remarks)
        return next((_short(match[0]) for match in found if match), None)

    def _abbreviation(self, response: str) -> str | None:
        for name, pattern in self.config.forbidden_abbreviations.items():
            if match := re.search(pattern, response):
                return f"'{match[0].strip()}' ({name})"
        return None

    def _faithful(self, exchange: Exchange) -> Iterator[RuleFinding]:
        note, dialogue, details = exchange.response, exchange.input, exchange.details
        lexicon = self.config.lexicon
        checks = {
            "numbers": ("only numbers that the dialogue gives", numbers(note, dialogue)),
            "medications": (
                "only medications that the dialogue names",
                medications(note, dialogue, lexicon, details.get("medications") or []),
            ),
            "laterality": ("left and right as in the dialogue", sides(note, dialogue, lexicon)),
            "not_reversed": (
                "symptoms that the patient has as present, symptoms that they deny as absent",
                reversals(note, details.get("present") or [], details.get("absent") or [], lexicon),
            ),
        }
        for rule, (expected, wrong) in checks.items():
            yield RuleFinding(rule, not wrong, expected, "; ".join(wrong) or "nothing to the contrary")


def _long(note: Note, heading: str) -> bool:
    section = note.first(heading)
    return section is not None and len(section.text.split()) > 3


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"
