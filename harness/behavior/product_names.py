"""Product names in a text: where each is spelt exactly, and where something else was written for it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_JOINT = r"[\s\-–_.]*"
_OTHER_SPELLINGS = {"one": "(?:one|1)", "plus": r"(?:plus\b|\+)"}
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*\+?")


@dataclass(frozen=True)
class Spelling:
    """A place where a product is meant, and the name as it should be."""

    start: int
    end: int
    name: str


def exact(text: str, name: str) -> list[Spelling]:
    """Where a name stands exactly; white space between its words may be any."""
    pattern = r"(?<![\w-])" + r"\s+".join(map(re.escape, name.split())) + r"(?![\w+]|-(?!based|like)\w)"
    return [Spelling(*match.span(), name) for match in re.finditer(pattern, text)]


def misspelt(text: str, names: Mapping[str, Sequence[str]]) -> Iterator[Spelling]:
    """Where a name (with its short forms) stands in another case, spacing or order, shortened, or a letter amiss."""
    taken = [(s.start, s.end) for name in names for s in exact(text, name)]
    for name, short in names.items():
        for start, end in [*_loose(text, name), *_alike(text, name), *_shortened(text, short)]:
            if not any(start < stop and begin < end for begin, stop in taken):
                taken.append((start, end))
                yield Spelling(start, end, name)


def _words(name: str) -> list[str]:
    return [word.lower() for part in name.split() for word in _CAMEL.split(part)]


def _loose(text: str, name: str) -> Iterator[tuple[int, int]]:
    """The words of a name in any case, joined in any way; or its last two of three swapped."""
    words = _words(name)
    orders = [words, [words[0], *reversed(words[1:])]] if len(words) > 2 else [words]
    for order in orders:
        spelt = [_OTHER_SPELLINGS.get(word, re.escape(word)) for word in order]
        pattern = rf"(?<!\w){_JOINT.join(spelt)}(?!\w)\+?"
        yield from (match.span() for match in re.finditer(pattern, text, re.IGNORECASE))


def _shortened(text: str, forms: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Short forms of a name, as a name: with a capital letter, or written as one word."""
    for form in forms:
        for match in re.finditer(rf"(?<!\w){_JOINT.join(map(re.escape, _words(form)))}(?!\w)", text, re.IGNORECASE):
            if match[0] != match[0].lower() or match[0].isalpha():
                yield match.span()


def _alike(text: str, name: str) -> Iterator[tuple[int, int]]:
    """Capitalised words that differ from a name in a letter or so."""
    words = list(_WORD.finditer(text))
    target = "".join(_words(name))
    for size in {len(name.split()), len(_words(name)), 1}:
        limit = 0.87 if size == 1 else 0.88
        for i in range(len(words) - size + 1):
            start, end = words[i].start(), words[i + size - 1].end()
            squashed = re.sub(r"[\W_]+", "", text[start:end]).lower()
            capital = all(word[0][0].isupper() for word in words[i : i + size])
            if capital and "\n" not in text[start:end] and _ratio(squashed, target) >= limit:
                yield start, end


def _ratio(left: str, right: str) -> float:
    return SequenceMatcher(None, left, right, autojunk=False).ratio()
