"""A note as sections: which headings stand in it, in which order, with what under them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_MARKUP = re.compile(r"^\s{0,3}(?:#{1,6}\s+)?[*_]{0,3}\s*")
_FENCE = re.compile(r"^\s*```\w*\s*$")


@dataclass(frozen=True)
class Section:
    """A heading as configured, and the text under it."""

    heading: str
    text: str


@dataclass(frozen=True)
class Note:
    """What stands before the first heading, and the sections in the order of the text."""

    preamble: str
    sections: list[Section]

    def first(self, heading: str) -> Section | None:
        return next((section for section in self.sections if section.heading == heading), None)


def read_note(text: str, headings: Sequence[str]) -> Note:
    """The sections of a note. A heading stands at a line's start with a colon, or is a Markdown heading."""
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
    """The heading that opens a line, and the rest of the line."""
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
    """The words of a line that looks like a heading of its own: Markdown, bold or a lone `Words:`, or a known name."""
    lone = re.match(r"\s*(?:#{1,6}\s+(.+?)|[*_]{2,3}([^*_]{2,40}?)[*_]{2,3}:?|([A-Z][A-Za-z /&'-]{2,40}):)\s*$", line)
    if lone:
        return next(group for group in lone.groups() if group)
    names = "|".join(re.escape(name) for name in known_names)
    opened = re.match(rf"{_MARKUP.pattern}({names})[*_]{{0,3}}\s?:", line, re.IGNORECASE) if names else None
    return opened[1] if opened else None
