"""An index over evaluation items by word trigrams: which rows share enough with which item to be compared with it."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.words import Hashes, Tokens, grams, hashed, words

Places = NDArray[np.int64]

GRAM = 3
SHORT = 8  # items of fewer words have to be there word for word
RUN = 13  # words in a row that two texts share by copying only (Brown et al., 2020)
_HOLDERS = 50  # a trigram of more items leads to none of them
_RARE = 3  # a trigram of at most so many items counts towards a run


@dataclass(frozen=True)
class Entry:
    """One wording of an item as word hashes. `weights` are 0 where the item's task repeats itself; `edits` are the
    words that may be missing or changed. `verbatim`: it has to be there word for word; `telling`: so many of the item's
    words are its own; `beside`: words that have to be in the row as well."""

    item: int
    words: Hashes
    weights: NDArray[np.float64]
    edits: int
    verbatim: bool
    telling: int
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A row that shares trigrams with an entry, ordered by shift and place. `shifts` are their places in the row minus
    those in the entry (`places`); `rare` marks those that few items have."""

    row: int
    entry: Entry
    shifts: Places
    places: Places
    rare: NDArray[np.bool_]


class ItemIndex:
    """Finds candidates for many rows at once. `share` is how much of an item has to be found."""

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

    def _telling(self, starts: Places) -> NDArray[np.bool_]:
        """Whether any word of the trigrams that start there has a weight."""
        weighs = np.concatenate([np.zeros(0, bool), *(entry.weights > 0 for entry in self.entries)])
        return np.asarray(weighs[starts] | weighs[starts + 1] | weighs[starts + 2], bool)

    def candidates(self, tokens: Tokens) -> Iterator[Candidate]:
        """By row. A changed word destroys at most three trigrams (Ukkonen, 1992), so many have to be left."""
        found = grams(tokens, GRAM)
        maybe = np.flatnonzero(self._known[found.hashes >> np.uint64(64 - self._bits)])
        first = np.searchsorted(self._hashes, found.hashes[maybe], "left")
        counts = np.searchsorted(self._hashes, found.hashes[maybe], "right") - first
        gram = np.repeat(maybe, counts)
        hit = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(len(gram))
        row = np.searchsorted(found.offsets, gram, "right") - 1
        yield from self._grouped(row, hit, gram - found.offsets[row] - self._place[hit])

    def _grouped(self, row: Places, hit: Places, shift: Places) -> Iterator[Candidate]:
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


def _used(entry: Places, holders: Places, telling: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Telling trigrams that few items have; of an item that has none of those, its rarest."""
    used = telling & (holders <= _HOLDERS)
    entries = int(entry.max(initial=-1)) + 1
    rarest = np.full(entries, np.iinfo(np.int64).max)
    np.minimum.at(rarest, entry, holders)
    bare = np.bincount(entry[used], minlength=entries) == 0
    return np.asarray(used | (bare[entry] & (holders == rarest[entry])), bool)


def _entries(items: Sequence[Mapping[str, Any]], share: float) -> list[Entry]:
    texts = [words(item["text"]) for item in items]
    weights = _weights(texts, [str(item.get("task", "")) for item in items])
    found: list[Entry] = []
    for number, (item, text, weight) in enumerate(zip(items, texts, weights, strict=True)):
        if len(text) >= SHORT and weight.any():
            edits = int((1 - share) * len(text) + 1e-9)
            found.append(Entry(number, hashed([text]).hashes, weight, edits, verbatim=False, telling=len(text)))
        else:
            found += _verbatim(number, item, text, telling=int(np.count_nonzero(weight)))
    return found


def _verbatim(number: int, item: Mapping[str, Any], text: list[str], telling: int) -> list[Entry]:
    """A short item in every way to write it; one of one or two words by its longer answers, where it stands beside."""
    wordings = {tuple(words(_rewritten(item["text"], by))) for by in ("", " ")} | {tuple(text)}
    beside: tuple[str, ...] = ()
    if len(text) < GRAM:
        wordings, beside = {tuple(words(answer)) for answer in item.get("answers") or ()}, tuple(text)
    return [
        Entry(number, hashed([wording]).hashes, np.ones(len(wording)), 0, verbatim=True, telling=telling, beside=beside)
        for wording in sorted(wordings)
        if len(wording) >= GRAM
    ]


def _rewritten(text: str, by: str) -> str:
    """Hyphens and apostrophes inside words replaced, as careless cleaning does."""
    for sign in "-'’":
        text = text.replace(sign, by)
    return text


def _weights(texts: Sequence[Sequence[str]], tasks: Sequence[str]) -> list[NDArray[np.float64]]:
    """How much each word tells (inverse document frequency); 0 for what the task says again and again."""
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
    """The places in each text that belong to a trigram which many different texts of its task have."""
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
