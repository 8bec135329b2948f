"""Rows that hold an evaluation item of the run: word for word, in a long run of words, or nearly.

An item of eight words or more is found where most of its words stand in order in about as many words of the row, and
among them most of what tells it from other items: words weigh by inverse document frequency, and nothing where the
item's task says the same again and again. Shorter items have to be there word for word, from one punctuation mark to
another.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.config import Group
from harness.data.filters.judgement import CLEAN, Judgement
from harness.data.item_index import GRAM, RUN, Candidate, Entry, ItemIndex
from harness.data.words import Hashes, hashed, words
from harness.store import sha256_json

COLUMNS = ("instruction", "input", "output")
TOLD = 5  # a choice question with so many words of its own is known without its choices
VERSION = 1  # raised when the rules below change, so that a digest names what was checked and how
_CLAUSE_END = re.compile(r"[.!?:;,](?=[\s\"'”’)]|$)|[\n\"“”]|\((?=[^\W\d])|\)(?=\s|$)")
_EDGE = " zqedgeqz "


class DecontaminateConfig(Group):
    """The share of an item's words that a row has to hold in order: of all (`similarity`) and by weight (`telling`)."""

    similarity: Annotated[float, Field(ge=0.5, le=1)] = 0.82
    telling: Annotated[float, Field(ge=0.5, le=1)] = 0.8


@dataclass(frozen=True)
class Match:
    """The evaluation item a row holds, how it was recognised, and how much of the item was found (0 to 1)."""

    item_id: str
    task: str
    kind: Literal["exact", "ngram", "near"]
    score: float

    def __str__(self) -> str:
        of = f" of {self.task}" if self.task else ""
        return f"overlaps evaluation item {self.item_id}{of} ({self.kind}, {self.score:.2f} of its words)"


@dataclass(frozen=True)
class _RowWords:
    row: Mapping[str, Any]
    words: list[str]
    hashes: Hashes


class Decontamination:
    """An index over evaluation items: dictionaries with `id`, `text`, and where known `task` and `answers`.

    Pure and picklable: a row's match depends on the row and the set of items alone. Also a filter (`judge`).
    `digest` names the items and the rules that rows were checked with.
    """

    code = "contamination"

    def __init__(self, items: Sequence[Mapping[str, Any]], config: DecontaminateConfig):
        self._items = sorted(items, key=lambda item: (str(item.get("task", "")), str(item["id"]), item["text"]))
        self._config = config
        self._index = ItemIndex(self._items, config.similarity)
        self._prompts = {tuple(words(item["text"])): number for number, item in reversed([*enumerate(self._items)])}
        self._longest = max((len(prompt) for prompt in self._prompts if len(prompt) < GRAM), default=0)
        self.digest = sha256_json([VERSION, config.model_dump(), self._items])

    def __len__(self) -> int:
        return len(self._items)

    def match(self, row: Mapping[str, Any]) -> Match | None:
        return self.match_all([row])[0]

    def match_all(self, rows: Sequence[Mapping[str, Any]]) -> list[Match | None]:
        """The best match of each row, in order; instruction, input and output are searched as one text."""
        texts = [[word for column in COLUMNS for word in words(row.get(column) or "")] for row in rows]
        tokens = hashed(texts)
        found: list[tuple[float, int, Match] | None] = [self._whole_prompt(row) for row in rows]
        for candidate in self._index.candidates(tokens):
            number = candidate.row
            own = tokens.hashes[tokens.offsets[number] : tokens.offsets[number + 1]]
            match = self._checked(candidate, _RowWords(rows[number], texts[number], own))
            if match is not None:
                found[number] = min(found[number] or match, match, key=lambda known: known[:2])
        return [None if match is None else match[2] for match in found]

    def judge(self, rows: Sequence[Mapping[str, Any]]) -> list[Judgement]:
        return [
            CLEAN if match is None else Judgement(str(match), evidence=(match.kind,)) for match in self.match_all(rows)
        ]

    def _found(self, item: int, kind: Literal["exact", "ngram", "near"], score: float) -> tuple[float, int, Match]:
        """The match with what it is ranked by: its score, then the items' own order."""
        named = self._items[item]
        return -score, item, Match(str(named["id"]), str(named.get("task", "")), kind, score)

    def _whole_prompt(self, row: Mapping[str, Any]) -> tuple[float, int, Match] | None:
        """An item of one or two words is found where it is the whole prompt."""
        if not self._longest or len(row["instruction"]) > 100:
            return None
        prompt = tuple(words(f"{row['instruction']}\n{row.get('input') or ''}"))
        number = self._prompts.get(prompt) if 0 < len(prompt) <= self._longest else None
        return None if number is None else self._found(number, "exact", 1.0)

    def _checked(self, candidate: Candidate, row: _RowWords) -> tuple[float, int, Match] | None:
        entry = candidate.entry
        if entry.verbatim:
            there = self._stands_alone(candidate, row)
            return self._found(entry.item, "exact", 1.0) if there else None
        shift = _usual(candidate.shifts)
        if _is_there(entry, row.hashes, shift):
            return self._found(entry.item, "exact", 1.0)
        held = _held(entry, row.hashes, shift)
        score, telling = float(held.mean()), float(entry.weights[held].sum() / entry.weights.sum())
        if score >= self._config.similarity and telling >= self._config.telling:
            return self._found(entry.item, "near", score)
        return self._found(entry.item, "ngram", score) if _has_run(candidate) else None

    def _stands_alone(self, candidate: Candidate, row: _RowWords) -> bool:
        """A short item begins after a punctuation mark and ends at one, or one of its answers is in the row too."""
        entry = candidate.entry
        places = [p for p in np.unique(candidate.shifts).tolist() if _is_there(entry, row.hashes, p)]
        if not places:
            return False
        edges = _edges(row)
        if entry.beside:
            size = len(entry.beside)
            return any(tuple(row.words[p : p + size]) == entry.beside for p in edges)
        size = len(entry.words)
        places = [place for place in places if place in edges]
        answers = self._items[entry.item].get("answers") or ()
        if any(place + size in edges for place in places) and (not answers or entry.telling >= TOLD):
            return True
        return bool(places) and any(_contains(row.words, words(answer)) for answer in answers)


def _usual(shifts: NDArray[np.int64]) -> int:
    """The shift of most shared trigrams: where in the row the item would start."""
    values, counts = np.unique(shifts, return_counts=True)
    return int(values[counts.argmax()])


def _is_there(entry: Entry, row: Hashes, place: int) -> bool:
    return place >= 0 and np.array_equal(row[place : place + len(entry.words)], entry.words)


def _held(entry: Entry, row: Hashes, shift: int) -> NDArray[np.bool_]:
    """Which of the entry's words the row holds in order (longest common subsequence) around the shift."""
    from rapidfuzz.distance import LCSseq

    window = row[max(0, shift - entry.edits) : max(0, shift + len(entry.words) + entry.edits)]
    held = np.zeros(len(entry.words), bool)
    for block in LCSseq.opcodes(entry.words.tolist(), window.tolist()):
        if block.tag == "equal":
            held[block.src_start : block.src_end] = True
    return held


def _has_run(candidate: Candidate) -> bool:
    """13 words in a row are shared, all in trigrams that hardly another item has."""
    shifts, places = candidate.shifts[candidate.rare], candidate.places[candidate.rare]
    broken = (np.diff(shifts) != 0) | (np.diff(places) != 1)
    ends = np.append(np.flatnonzero(broken) + 1, len(places))
    return bool(np.diff(ends, prepend=0).max() >= RUN - GRAM + 1)


def _edges(row: _RowWords) -> set[int]:
    """How many words precede each punctuation mark that ends a clause, and each end of a column."""
    columns = [row.row.get(column) or "" for column in COLUMNS]
    edges = {0, *accumulate(len(words(column)) for column in columns)}
    place = 0
    for word in words("\n".join(_CLAUSE_END.sub(_EDGE, column) + _EDGE for column in columns)):
        if word == _EDGE.strip():
            edges.add(place)
        else:
            place += 1
    return edges


def _contains(text: Sequence[str], part: Sequence[str]) -> bool:
    size = len(part)
    return size > 0 and any(text[i : i + size] == part for i in range(len(text) - size + 1))
