"""Finds rows that hold an evaluation item of the run: word for word, in a long run of words, or nearly.

An item of eight words or more is found where most of its words are in order within about as many words of the row,
including most of what distinguishes it from other items: words weigh by inverse document frequency, and wording that
the item's task repeats has no weight. Shorter items must be there word for word, from one punctuation mark to another.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.config.group import Group
from harness.core.store import sha256_json
from harness.data.filters.protocol import CLEAN, Judgement
from harness.data.words import Hashes, Tokens, grams, hashed, words

ItemPositions = NDArray[np.int64]

GRAM = 3
SHORT = 8  # items of fewer words must be there word for word
RUN = 13  # consecutive words that two texts only share by copying (Brown et al., 2020)
_HOLDERS = 50  # a trigram of more items than this points to none of them
_RARE = 3  # a trigram of at most this many items counts towards a run


@dataclass(frozen=True)
class IndexedItem:
    """One wording of an item."""

    item: int
    """Number of the item."""

    words: Hashes

    weights: NDArray[np.float64]
    """Of each word; 0 where the item's task repeats itself."""

    edits: int
    """Words that may be missing or changed."""

    verbatim: bool
    """Whether it must be in the row word for word."""

    telling: int
    """How many of the item's words are its own."""

    beside: tuple[str, ...] = ()
    """Words that must be in the row as well."""


@dataclass(frozen=True)
class Candidate:
    """A row that shares trigrams with an item. The arrays have one value for each trigram, by shift and place."""

    row: int
    entry: IndexedItem

    shifts: ItemPositions
    """Place in the row minus place in the item."""

    places: ItemPositions
    """Place in the item."""

    rare: NDArray[np.bool_]
    """Whether few items have the trigram."""


class ItemIndex:
    """An index of evaluation items by word trigrams: finds which rows share enough with which item to be compared.

    `share` is how much of an item must be found.
    """

    def __init__(self, items: Sequence[Mapping[str, Any]], share: float):
        self.entries = _entries(items, share)
        tokens = hashed([]) if not self.entries else _joined([entry.words for entry in self.entries])
        found = grams(tokens, GRAM)
        entry = found.owners
        place = np.arange(len(entry)) - found.offsets[entry]
        _, groups, sizes = np.unique(found.hashes, return_inverse=True, return_counts=True)
        holders = sizes[groups]
        used = _used(entry, holders, self._telling(tokens.offsets[entry] + place))
        order = np.flatnonzero(used)[np.argsort(found.hashes[used], kind="stable")]
        self._hashes, self._entry, self._place = found.hashes[order], entry[order], place[order]
        self._rare = holders[order] <= _RARE
        counts = np.bincount(self._entry, minlength=len(self.entries))
        spared = np.array([0 if e.verbatim else GRAM * e.edits for e in self.entries], np.int64)
        self._least = np.maximum(counts - spared, 1)
        self._bits = max(16, len(order).bit_length() + 5)
        self._known = np.zeros(1 << self._bits, bool)
        self._known[self._hashes >> np.uint64(64 - self._bits)] = True

    def _telling(self, starts: ItemPositions) -> NDArray[np.bool_]:
        """Whether any word of the trigrams at `starts` has a weight."""
        weighs = np.concatenate([np.zeros(0, bool), *(entry.weights > 0 for entry in self.entries)])
        return np.asarray(weighs[starts] | weighs[starts + 1] | weighs[starts + 2], bool)

    def candidates(self, tokens: Tokens) -> Iterator[Candidate]:
        """The candidates by row. A changed word destroys at most three trigrams (Ukkonen, 1992); the rest must match"""
        found = grams(tokens, GRAM)
        maybe = np.flatnonzero(self._known[found.hashes >> np.uint64(64 - self._bits)])
        first = np.searchsorted(self._hashes, found.hashes[maybe], "left")
        counts = np.searchsorted(self._hashes, found.hashes[maybe], "right") - first
        gram = np.repeat(maybe, counts)
        hit = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(len(gram))
        row = np.searchsorted(found.offsets, gram, "right") - 1
        yield from self._grouped(row, hit, gram - found.offsets[row] - self._place[hit])

    def _grouped(self, row: ItemPositions, hit: ItemPositions, shift: ItemPositions) -> Iterator[Candidate]:
        key = row * len(self.entries) + self._entry[hit]
        order = np.lexsort((self._place[hit], shift, key))
        key, row, hit, shift = key[order], row[order], hit[order], shift[order]
        starts = np.flatnonzero(np.diff(key, prepend=-1))
        ends = np.append(starts[1:], len(key))
        enough = ends - starts >= np.minimum(self._least[self._entry[hit[starts]]], RUN - GRAM + 1)
        for start, end in zip(starts[enough].tolist(), ends[enough].tolist(), strict=True):
            own = hit[start:end]
            entry = self.entries[self._entry[own[0]]]
            yield Candidate(int(row[start]), entry, shift[start:end], self._place[own], self._rare[own])


def _joined(parts: Sequence[Hashes]) -> Tokens:
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return Tokens(np.concatenate(parts), offsets)


def _used(entry: ItemPositions, holders: ItemPositions, telling: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which trigrams are used: those with a weight that few items have; for an item without any, its rarest."""
    used = telling & (holders <= _HOLDERS)
    entries = int(entry.max(initial=-1)) + 1
    rarest = np.full(entries, np.iinfo(np.int64).max)
    np.minimum.at(rarest, entry, holders)
    bare = np.bincount(entry[used], minlength=entries) == 0
    return np.asarray(used | (bare[entry] & (holders == rarest[entry])), bool)


def _entries(items: Sequence[Mapping[str, Any]], share: float) -> list[IndexedItem]:
    texts = [words(item["text"]) for item in items]
    weights = _weights(texts, [str(item.get("task", "")) for item in items])
    found: list[IndexedItem] = []
    for number, (item, text, weight) in enumerate(zip(items, texts, weights, strict=True)):
        if len(text) >= SHORT and weight.any():
            edits = int((1 - share) * len(text) + 1e-9)
            found.append(IndexedItem(number, hashed([text]).hashes, weight, edits, verbatim=False, telling=len(text)))
        else:
            found += _verbatim(number, item, text, telling=int(np.count_nonzero(weight)))
    return found


def _verbatim(number: int, item: Mapping[str, Any], text: list[str], telling: int) -> list[IndexedItem]:
    """A short item in every spelling; an item of one or two words by its longer answers, with the item beside them."""
    wordings = {tuple(words(_rewritten(item["text"], by))) for by in ("", " ")} | {tuple(text)}
    beside: tuple[str, ...] = ()
    if len(text) < GRAM:
        wordings, beside = {tuple(words(answer)) for answer in item.get("answers") or ()}, tuple(text)
    return [
        IndexedItem(
            number, hashed([wording]).hashes, np.ones(len(wording)), 0, verbatim=True, telling=telling, beside=beside
        )
        for wording in sorted(wordings)
        if len(wording) >= GRAM
    ]


def _rewritten(text: str, by: str) -> str:
    """The text with hyphens and apostrophes replaced, as careless cleaning does."""
    for sign in "-'’":
        text = text.replace(sign, by)
    return text


def _weights(texts: Sequence[Sequence[str]], tasks: Sequence[str]) -> list[NDArray[np.float64]]:
    """The weight of each word (inverse document frequency); 0 for wording that the task repeats."""
    holders: dict[str, int] = defaultdict(int)
    for text in texts:
        for word in set(text):
            holders[word] += 1
    repeated = _repeated(texts, tasks)
    found = [np.array([np.log1p(len(texts) / holders[word]) for word in text]) for text in texts]
    for weights, places in zip(found, repeated, strict=True):
        weights[places] = 0
    return found


def _repeated(texts: Sequence[Sequence[str]], tasks: Sequence[str]) -> list[list[int]]:
    """The places in each text that belong to a trigram which many different texts of its task share."""
    distinct: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for text, task in zip(texts, tasks, strict=True):
        distinct[task].add(tuple(text))
    common = {task: _common(members) for task, members in distinct.items()}
    return [
        sorted({i + step for i in range(len(text) - 2) if tuple(text[i : i + 3]) in common[task] for step in range(3)})
        for text, task in zip(texts, tasks, strict=True)
    ]


def _common(texts: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    holders: dict[tuple[str, ...], int] = defaultdict(int)
    for text in texts:
        for gram in {text[i : i + GRAM] for i in range(len(text) - GRAM + 1)}:
            holders[gram] += 1
    many = min(max(10.0, 0.02 * len(texts)), max(3.0, 0.5 * len(texts)))
    return {gram for gram, count in holders.items() if count > many}


COLUMNS = ("instruction", "input", "output")
OWN_WORDS = 5  # a choice question with this many words of its own is recognised without its choices
VERSION = 1  # raised when the rules below change, so that a digest names what was checked and how
_CLAUSE_END = re.compile(r"[.!?:;,](?=[\s\"'”’)]|$)|[\n\"“”]|\((?=[^\W\d])|\)(?=\s|$)")
_EDGE = " zqedgeqz "


class DecontaminateConfig(Group):
    """When a row counts as holding an evaluation item."""

    similarity: Annotated[float, Field(ge=0.5, le=1)] = 0.82
    """Least share of the item's words that the row holds in order."""

    telling: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    """The same share with every word counted by its rarity."""


@dataclass(frozen=True)
class Match:
    """The evaluation item that a row holds, how it was recognised, and how much of it was found (0 to 1)."""

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
    """Finds evaluation items in rows. Items are dictionaries with `id`, `text` and, if known, `task` and `answers`.

    Pure and picklable: a row's match depends only on the row and the set of items. It is also a filter (`judge`).
    `digest` identifies the items and the rules that rows were checked with.
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
        """The best match of each row, in order. Instruction, input and output are searched as one text."""
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
        """The match with its rank: the negative score, then the order of the items."""
        named = self._items[item]
        return -score, item, Match(str(named["id"]), str(named.get("task", "")), kind, score)

    def _whole_prompt(self, row: Mapping[str, Any]) -> tuple[float, int, Match] | None:
        """The match with an item of one or two words that is the whole prompt."""
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
        """Whether a short item is set off by punctuation marks, or one of its answers is in the row as well."""
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
        if any(place + size in edges for place in places) and (not answers or entry.telling >= OWN_WORDS):
            return True
        return bool(places) and any(_contains(row.words, words(answer)) for answer in answers)


def _usual(shifts: NDArray[np.int64]) -> int:
    """The most frequent shift: where in the row the item would start."""
    values, counts = np.unique(shifts, return_counts=True)
    return int(values[counts.argmax()])


def _is_there(entry: IndexedItem, row: Hashes, place: int) -> bool:
    return place >= 0 and np.array_equal(row[place : place + len(entry.words)], entry.words)


def _held(entry: IndexedItem, row: Hashes, shift: int) -> NDArray[np.bool_]:
    """Which words of the item the row holds in order (longest common subsequence) around the shift."""
    from rapidfuzz.distance import LCSseq

    window = row[max(0, shift - entry.edits) : max(0, shift + len(entry.words) + entry.edits)]
    held = np.zeros(len(entry.words), bool)
    for block in LCSseq.opcodes(entry.words.tolist(), window.tolist()):
        if block.tag == "equal":
            held[block.src_start : block.src_end] = True
    return held


def _has_run(candidate: Candidate) -> bool:
    """Whether RUN consecutive words are shared, all in trigrams that hardly any other item has."""
    shifts, places = candidate.shifts[candidate.rare], candidate.places[candidate.rare]
    broken = (np.diff(shifts) != 0) | (np.diff(places) != 1)
    ends = np.append(np.flatnonzero(broken) + 1, len(places))
    return bool(np.diff(ends, prepend=0).max() >= RUN - GRAM + 1)


def _edges(row: _RowWords) -> set[int]:
    """The number of words before each punctuation mark that ends a clause, and before each end of a column."""
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
