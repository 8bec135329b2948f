"""Duplicates among all rows: exact, near, and questions with several answers. Holds sketches, never texts."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.data.minhash import DedupeConfig, Sets, Sketches
from harness.data.pairs import Indices, components, first_equal, jaccard, pairs_in_buckets, unpacked
from harness.data.words import Hashes

_PAIRS_AT_ONCE = 5_000


@dataclass(frozen=True)
class Duplicate:
    """A row that repeats an earlier one. Rows are numbered in the order in which they were added."""

    row: int
    of: int
    kind: Literal["exact", "near"]
    jaccard: float


@dataclass(frozen=True)
class Found:
    """All duplicates in row order; `conflicts` are groups of kept rows with one prompt and different answers.

    `clusters` numbers the rows so that duplicates, near-duplicates and rows with one prompt share a number (the first
    row's): a split that keeps clusters whole does not leak. `skipped` counts pairs in crowded LSH buckets that were
    not compared.
    """

    duplicates: list[Duplicate]
    conflicts: list[list[int]]
    clusters: Indices
    skipped: int


class Duplicates:
    """Collects the sketches of rows batch by batch; `find` compares them all.

        duplicates = Duplicates(config)
        for batch in batches:
            duplicates.add(sketch(batch, config, without))
        found = duplicates.find()

    A row repeats the first kept row that it is similar to, so the outcome depends on the order of rows alone, not on
    batches or processes. Memory is about 40 bytes a row; band keys and n-grams are in temporary files.
    """

    def __init__(self, config: DedupeConfig):
        self._config = config
        self._digests: list[tuple[Hashes, Hashes, Hashes]] = []
        self._bands = TemporaryFile()  # noqa: SIM115 (closed with the object)
        self._texts = _StoredSets()
        self._answers = _StoredSets()

    def add(self, sketches: Sketches) -> None:
        """The next rows."""
        self._digests.append((sketches.texts, sketches.prompts, sketches.answers))
        self._bands.write(np.ascontiguousarray(sketches.bands).data)
        self._texts.add(sketches.text_grams)
        self._answers.add(sketches.answer_words)

    def close(self) -> None:
        """Removes the temporary files."""
        for file in (self._bands, self._texts, self._answers):
            file.close()

    def find(self, live: NDArray[np.bool_] | Sequence[bool] | None = None) -> Found:
        """Compares all rows, or those that are `live`: the others are nobody's duplicate and clusters of their own."""
        if not self._digests:
            return Found([], [], np.zeros(0, np.int64), 0)
        texts, prompts, answers = (np.concatenate(column) for column in zip(*self._digests, strict=True))
        rows = np.arange(len(texts)) if live is None else np.flatnonzero(np.asarray(live, bool))
        exact = first_equal(texts, rows)
        pairs, similarity, skipped = self._near(rows[exact[rows] == rows], len(texts))
        duplicates = _duplicates(rows, exact, pairs, similarity)
        kept = np.setdiff1d(rows, [duplicate.row for duplicate in duplicates])
        edges = [np.stack([first, np.arange(len(texts))], axis=1) for first in (exact, first_equal(prompts, rows))]
        clusters = components(len(texts), np.concatenate([*edges, pairs]))
        return Found(duplicates, _conflicts(prompts, answers, kept), clusters, skipped)

    def _near(self, rows: Indices, total: int) -> tuple[Indices, NDArray[np.float64], int]:
        """Near-duplicate pairs (earlier, later) with their similarity, and how many candidates were left out."""
        bands = _mapped(self._bands, np.uint64).reshape(total, -1)
        texts, answers = self._texts.read(), self._answers.read()
        found, scores, skipped = np.zeros(0, np.uint64), np.zeros(0), 0
        for band in range(bands.shape[1]):
            candidates, left_out = pairs_in_buckets(bands[rows, band], rows)
            candidates = np.setdiff1d(candidates, found, assume_unique=True)
            similarity = _similarity(texts, unpacked(candidates))
            near = np.flatnonzero(similarity >= self._config.jaccard)
            near = near[_similarity(answers, unpacked(candidates[near])) >= self._config.answer_jaccard]
            found, scores = np.append(found, candidates[near]), np.append(scores, similarity[near])
            skipped += left_out
        return unpacked(found), scores, skipped


class _StoredSets:
    """Sets in a temporary file."""

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115 (closed with the object)
        self._counts: list[Indices] = []

    def close(self) -> None:
        self._file.close()

    def add(self, sets: Sets) -> None:
        self._counts.append(np.diff(sets.offsets))
        self._file.write(np.ascontiguousarray(sets.members).data)

    def read(self) -> Sets:
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(self._counts))]).astype(np.int64)
        return Sets(_mapped(self._file, np.uint32), offsets)


def _similarity(sets: Sets, pairs: Indices) -> NDArray[np.float64]:
    """Jaccard similarity of each pair, some thousands at a time."""
    chunks = [pairs[start : start + _PAIRS_AT_ONCE] for start in range(0, len(pairs), _PAIRS_AT_ONCE)]
    return np.concatenate([np.zeros(0), *(jaccard(sets, chunk) for chunk in chunks)])


def _mapped(file: IO[bytes], dtype: type) -> NDArray[Any]:
    """The file as an array, its pages read when they are needed."""
    file.flush()
    return np.memmap(file, dtype, "r") if file.tell() else np.zeros(0, dtype)


def _duplicates(rows: Indices, exact: Indices, pairs: Indices, similarity: NDArray[np.float64]) -> list[Duplicate]:
    """Each row that repeats an earlier kept one. Similarity does not chain: rows near a removed one alone are kept."""
    near: dict[int, Duplicate] = {}
    order = np.lexsort((pairs[:, 0], pairs[:, 1]))
    for (of, row), score in zip(pairs[order].tolist(), similarity[order].tolist(), strict=True):
        if row not in near and of not in near:
            near[row] = Duplicate(row, of, "near", score)
    repeats = rows[exact[rows] != rows]
    equal = [
        replace(near[of], row=row) if of in near else Duplicate(row, of, "exact", 1.0)
        for row, of in zip(repeats.tolist(), exact[repeats].tolist(), strict=True)
    ]
    return sorted([*near.values(), *equal], key=lambda duplicate: duplicate.row)


def _conflicts(prompts: Hashes, answers: Hashes, kept: Indices) -> list[list[int]]:
    """Groups of kept rows that ask the same and answer differently, in order of their first rows."""
    first_asked = first_equal(prompts, kept)[kept]
    asked_again = kept[np.isin(first_asked, first_asked[first_asked != kept])]
    groups: dict[int, list[int]] = defaultdict(list)
    for row in asked_again.tolist():
        groups[int(prompts[row])].append(row)
    return [group for group in groups.values() if len(set(answers[group].tolist())) > 1]
