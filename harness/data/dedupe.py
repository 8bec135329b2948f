"""Finds duplicates among all rows: exact, near, and questions with several answers. It holds sketches, never texts.

A sketch is what the search keeps of a row instead of its text: digests, MinHash signatures in LSH bands (Broder, 1997),
and hashes of its word n-grams.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from typing import IO, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.config.group import Count, Group, Share
from harness.data.words import Hashes, Offsets, Tokens, grams, hashed, mixed, text_hash, words

Without = Callable[[str], str]


class DedupeConfig(Group):
    """When two rows are duplicates.

    Two questions about one long passage are not, because their answers differ.
    """

    action: Literal["drop", "flag"] = "drop"
    """What happens to all but one of the rows."""

    jaccard: Annotated[float, Field(ge=0.3, le=1)] = 0.7
    """Least Jaccard similarity of two rows' word n-grams."""

    answer_jaccard: Share = 0.5
    """Least Jaccard similarity of the words of their answers."""

    ngram: Count = 3
    """Words of an n-gram."""

    permutations: Annotated[int, Field(ge=16, le=1024)] = 128
    """Length of the MinHash signature: longer finds more of the pairs near the threshold."""

    seed: int = 42
    """Seed of the MinHash permutations."""

    @property
    def band_rows(self) -> int:
        """Signature values in a band: the most for which 99.9% of the pairs at the threshold share a band."""
        missed = {r: (1 - self.jaccard**r) ** (self.permutations // r) for r in range(1, self.permutations + 1)}
        return max([r for r, miss in missed.items() if miss <= 0.001], default=1)


@dataclass(frozen=True)
class Sets:
    """Sets of hashes, each ascending: set k is `members[offsets[k]:offsets[k + 1]]`."""

    members: NDArray[np.uint32]
    offsets: Offsets


@dataclass(frozen=True)
class Sketches:
    """What duplicates are found by, for some rows in order."""

    texts: Hashes
    """Digest of each row's own text: prompt and answer without the wordings that every answer must have."""

    prompts: Hashes
    """Digest of each row's instruction and input."""

    answers: Hashes
    """Digest of each row's answer."""

    bands: NDArray[np.uint64]
    """LSH band keys (rows x bands)."""

    text_grams: Sets
    """Word n-grams of each text."""

    answer_words: Sets
    """Words of each answer."""


def sketch(rows: Sequence[Mapping[str, Any]], config: DedupeConfig, without: Without | None = None) -> Sketches:
    """The sketches of rows. Pure, so that worker processes can make them.

    `without` removes the wordings that every answer must have (a behaviour's `without`).
    """
    prompts = [words(row["instruction"]) + words(row.get("input") or "") for row in rows]
    answers = [words(row["output"] if without is None else without(row["output"])) for row in rows]
    texts = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    found = grams(hashed(texts), config.ngram)
    return Sketches(
        texts=_digests(texts),
        prompts=_digests(prompts),
        answers=_digests(answers),
        bands=_bands(found, config),
        text_grams=_sets(found),
        answer_words=_sets(hashed(answers)),
    )


def _digests(texts: Sequence[Sequence[str]]) -> Hashes:
    return np.fromiter((text_hash(" ".join(text)) for text in texts), np.uint64, len(texts))


def _sets(found: Tokens) -> Sets:
    """The hashes of each text, cut to 32 bits."""
    keyed = np.sort(found.owners.astype(np.uint64) << np.uint64(32) | found.hashes >> np.uint64(32))
    keyed = keyed[np.diff(keyed, prepend=~keyed[:1]) != 0]
    counts = np.bincount((keyed >> np.uint64(32)).astype(np.int64), minlength=len(found.offsets) - 1)
    return Sets(keyed.astype(np.uint32), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _bands(found: Tokens, config: DedupeConfig) -> NDArray[np.uint64]:
    """One key for each band (rows x bands). Equal keys mean `band_rows` equal signature values in the same places."""
    signatures = signature(found, config)
    rows = config.band_rows
    bands = config.permutations // rows
    keys = np.zeros((len(signatures), bands), np.uint64)
    for row in range(rows):
        keys = mixed(keys * np.uint64(0x100000001B3) + signatures[:, row : bands * rows : rows])
    return keys


def signature(found: Tokens, config: DedupeConfig) -> NDArray[np.uint32]:
    """MinHash signatures (texts x permutations): the share of equal values estimates the Jaccard similarity."""
    import rensa

    flat = np.ascontiguousarray(found.hashes)
    offsets = found.offsets.astype(np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, config.permutations, config.seed)
    return np.array(matrix.to_rows(), np.uint32).reshape(len(offsets) - 1, config.permutations)


Indices = NDArray[np.int64]
PackedSignatures = NDArray[np.uint64]  # a pair in one number: earlier row in the upper half, later row in the lower

CROWDED = 30  # in a bucket of more rows, a row is only compared with the FIRST and the NEAREST earlier ones
FIRST = 10
NEAREST = 5


def first_equal(values: Hashes, rows: Indices) -> Indices:
    """For each value, the first of `rows` with an equal value; its own index where it is not among `rows`."""
    found = np.arange(len(values))
    _, firsts, groups = np.unique(values[rows], return_index=True, return_inverse=True)
    found[rows] = rows[firsts][groups]
    return found


def pairs_in_buckets(keys: Hashes, rows: Indices) -> tuple[PackedSignatures, int]:
    """Pairs of `rows` (ascending) with equal keys, each once, sorted; and how many pairs crowded buckets left out."""
    order = np.argsort(keys, kind="stable")
    ordered, members = keys[order], rows[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=~ordered[:1]))
    sizes = np.diff(np.append(starts, len(ordered)))
    place = np.arange(len(ordered)) - np.repeat(starts, sizes)
    pairs = _earlier(members, place, crowded=np.repeat(sizes > CROWDED, sizes))
    return pairs, int((sizes * (sizes - 1) // 2).sum()) - len(pairs)


def _earlier(members: Indices, place: Indices, crowded: NDArray[np.bool_]) -> PackedSignatures:
    """Each member with earlier members of its bucket. `place` is its index in the bucket."""
    found = [np.zeros(0, np.uint64)]
    for step in range(1, min(CROWDED, int(place.max(initial=0)) + 1)):
        later = np.flatnonzero((place >= step) & (~crowded | (step <= NEAREST)))
        found.append(packed(members[later - step], members[later]))
    for first in range(FIRST if crowded.any() else 0):
        later = np.flatnonzero(crowded & (place - first > NEAREST))
        found.append(packed(members[later - place[later] + first], members[later]))
    return np.sort(np.concatenate(found))


def packed(earlier: Indices, later: Indices) -> PackedSignatures:
    return earlier.astype(np.uint64) << np.uint64(32) | later.astype(np.uint64)


def unpacked(pairs: PackedSignatures) -> Indices:
    """The rows of each pair (pairs x 2: earlier, later)."""
    return np.stack([pairs >> np.uint64(32), pairs & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)


def jaccard(sets: Sets, pairs: Indices) -> NDArray[np.float64]:
    """|intersection| / |union| of each pair of sets; 1 for two empty sets."""
    left, right = (_members(sets, side) for side in pairs.T)
    both = np.sort(np.concatenate([left, right]))
    shared = both[1:][both[1:] == both[:-1]] >> np.uint64(32)
    common = np.bincount(shared.astype(np.int64), minlength=len(pairs))
    union = np.diff(sets.offsets)[pairs].sum(axis=1) - common
    similarity: NDArray[np.float64] = np.where(union > 0, common / np.maximum(union, 1), 1.0)
    return similarity


def _members(sets: Sets, chosen: Indices) -> PackedSignatures:
    """The members of the `chosen` sets: the index in `chosen` in the upper 32 bits, the member in the lower."""
    counts = np.diff(sets.offsets)[chosen]
    starts = np.repeat(sets.offsets[chosen] - np.cumsum(counts) + counts, counts)
    place = np.repeat(np.arange(len(chosen), dtype=np.uint64), counts)
    members: PackedSignatures = place << np.uint64(32) | sets.members[starts + np.arange(len(starts))]
    return members


def components(size: int, edges: Indices) -> Indices:
    """For each of `size` rows, the first row of its cluster. Rows joined by a chain of edges are a cluster."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    _, firsts, groups = np.unique(labels, return_index=True, return_inverse=True)
    return firsts[groups].astype(np.int64)


_PAIRS_AT_ONCE = 5_000


@dataclass(frozen=True)
class Duplicate:
    """A row that repeats an earlier one. Rows are numbered in the order in which they were added."""

    row: int
    of: int
    kind: Literal["exact", "near"]
    jaccard: float


@dataclass(frozen=True)
class DuplicatesFound:
    """What the comparison of all rows gave."""

    duplicates: list[Duplicate]
    """In the order of the rows."""

    conflicts: list[list[int]]
    """Groups of kept rows with the same prompt and different answers."""

    clusters: Indices
    """For each row, the first row of its cluster. Duplicates, near-duplicates and rows with the same prompt form a
    cluster; a split that keeps clusters whole does not leak."""

    skipped: int
    """Pairs in crowded LSH buckets that were not compared."""


class Duplicates:
    """Collects the sketches of rows batch by batch; `find` compares them all.

        duplicates = Duplicates(config)
        for batch in batches:
            duplicates.add(sketch(batch, config, without))
        found = duplicates.find()

    A row repeats the first kept row that it is similar to. The outcome depends only on the order of the rows, not on
    batches or processes. Memory is about 40 bytes for each row; band keys and n-grams are in temporary files.
    """

    def __init__(self, config: DedupeConfig):
        self._config = config
        self._digests: list[tuple[Hashes, Hashes, Hashes]] = []
        self._bands = TemporaryFile()  # noqa: SIM115 (closed with the object)
        self._texts = _StoredSets()
        self._answers = _StoredSets()

    def add(self, sketches: Sketches) -> None:
        """Adds the next rows."""
        self._digests.append((sketches.texts, sketches.prompts, sketches.answers))
        self._bands.write(np.ascontiguousarray(sketches.bands).data)
        self._texts.add(sketches.text_grams)
        self._answers.add(sketches.answer_words)

    def close(self) -> None:
        """Removes the temporary files."""
        for file in (self._bands, self._texts, self._answers):
            file.close()

    def find(self, live: NDArray[np.bool_] | Sequence[bool] | None = None) -> DuplicatesFound:
        """Compares all rows, or those that are `live`. Each of the others is a cluster of its own."""
        if not self._digests:
            return DuplicatesFound([], [], np.zeros(0, np.int64), 0)
        texts, prompts, answers = (np.concatenate(column) for column in zip(*self._digests, strict=True))
        rows = np.arange(len(texts)) if live is None else np.flatnonzero(np.asarray(live, bool))
        exact = first_equal(texts, rows)
        pairs, similarity, skipped = self._near(rows[exact[rows] == rows], len(texts))
        duplicates = _duplicates(rows, exact, pairs, similarity)
        kept = np.setdiff1d(rows, [duplicate.row for duplicate in duplicates])
        edges = [np.stack([first, np.arange(len(texts))], axis=1) for first in (exact, first_equal(prompts, rows))]
        clusters = components(len(texts), np.concatenate([*edges, pairs]))
        return DuplicatesFound(duplicates, _conflicts(prompts, answers, kept), clusters, skipped)

    def _near(self, rows: Indices, total: int) -> tuple[Indices, NDArray[np.float64], int]:
        """Near-duplicate pairs (earlier, later), their similarity, and how many candidates were left out."""
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
    """Jaccard similarity of each pair, computed for a few thousand at a time."""
    chunks = [pairs[start : start + _PAIRS_AT_ONCE] for start in range(0, len(pairs), _PAIRS_AT_ONCE)]
    return np.concatenate([np.zeros(0), *(jaccard(sets, chunk) for chunk in chunks)])


def _mapped(file: IO[bytes], dtype: type) -> NDArray[Any]:
    """The file as an array whose pages are read when they are needed."""
    file.flush()
    return np.memmap(file, dtype, "r") if file.tell() else np.zeros(0, dtype)


def _duplicates(rows: Indices, exact: Indices, pairs: Indices, similarity: NDArray[np.float64]) -> list[Duplicate]:
    """Each row that repeats an earlier kept one. Similarity does not chain: a row near removed rows only is kept."""
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
    """Groups of kept rows with the same prompt and different answers, in the order of their first rows."""
    first_asked = first_equal(prompts, kept)[kept]
    asked_again = kept[np.isin(first_asked, first_asked[first_asked != kept])]
    groups: dict[int, list[int]] = defaultdict(list)
    for row in asked_again.tolist():
        groups[int(prompts[row])].append(row)
    return [group for group in groups.values() if len(set(answers[group].tolist())) > 1]
