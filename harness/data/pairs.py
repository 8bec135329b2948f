"""Pairs of similar rows in arrays: candidates that share an LSH band, their true similarity, and clusters of them."""

import numpy as np
from numpy.typing import NDArray

from harness.data.minhash import Sets
from harness.data.words import Hashes

Indices = NDArray[np.int64]
Packed = NDArray[np.uint64]  # a pair in one number: earlier row in the upper half, later row in the lower

CROWDED = 30  # rows in a bucket from which on a row is compared with the first and the nearest earlier ones alone
FIRST = 10
NEAREST = 5


def first_equal(values: Hashes, rows: Indices) -> Indices:
    """For each of all values, the first of `rows` with an equal value; itself where it is not among `rows`."""
    found = np.arange(len(values))
    _, firsts, groups = np.unique(values[rows], return_index=True, return_inverse=True)
    found[rows] = rows[firsts][groups]
    return found


def pairs_in_buckets(keys: Hashes, rows: Indices) -> tuple[Packed, int]:
    """Pairs of rows (ascending) with equal keys, each once, sorted; and how many pairs were left out as too many."""
    order = np.argsort(keys, kind="stable")
    ordered, members = keys[order], rows[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=~ordered[:1]))
    sizes = np.diff(np.append(starts, len(ordered)))
    place = np.arange(len(ordered)) - np.repeat(starts, sizes)
    pairs = _earlier(members, place, crowded=np.repeat(sizes > CROWDED, sizes))
    return pairs, int((sizes * (sizes - 1) // 2).sum()) - len(pairs)


def _earlier(members: Indices, place: Indices, crowded: NDArray[np.bool_]) -> Packed:
    """Each member with earlier members of its bucket; `place` is its place in there."""
    found = [np.zeros(0, np.uint64)]
    for step in range(1, min(CROWDED, int(place.max(initial=0)) + 1)):
        later = np.flatnonzero((place >= step) & (~crowded | (step <= NEAREST)))
        found.append(packed(members[later - step], members[later]))
    for first in range(FIRST if crowded.any() else 0):
        later = np.flatnonzero(crowded & (place - first > NEAREST))
        found.append(packed(members[later - place[later] + first], members[later]))
    return np.sort(np.concatenate(found))


def packed(earlier: Indices, later: Indices) -> Packed:
    return earlier.astype(np.uint64) << np.uint64(32) | later.astype(np.uint64)


def unpacked(pairs: Packed) -> Indices:
    """Rows (earlier, later), one pair a line."""
    return np.stack([pairs >> np.uint64(32), pairs & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)


def jaccard(sets: Sets, pairs: Indices) -> NDArray[np.float64]:
    """|intersection| / |union| of each pair of sets; 1 for two empty ones."""
    left, right = (_members(sets, side) for side in pairs.T)
    both = np.sort(np.concatenate([left, right]))
    shared = both[1:][both[1:] == both[:-1]] >> np.uint64(32)
    common = np.bincount(shared.astype(np.int64), minlength=len(pairs))
    union = np.diff(sets.offsets)[pairs].sum(axis=1) - common
    similarity: NDArray[np.float64] = np.where(union > 0, common / np.maximum(union, 1), 1.0)
    return similarity


def _members(sets: Sets, chosen: Indices) -> Packed:
    """The members of some sets, each below the number of its set's place in `chosen`."""
    counts = np.diff(sets.offsets)[chosen]
    starts = np.repeat(sets.offsets[chosen] - np.cumsum(counts) + counts, counts)
    place = np.repeat(np.arange(len(chosen), dtype=np.uint64), counts)
    members: Packed = place << np.uint64(32) | sets.members[starts + np.arange(len(starts))]
    return members


def components(size: int, edges: Indices) -> Indices:
    """For each of `size` rows the first row of its cluster: rows joined by a chain of edges."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    _, firsts, groups = np.unique(labels, return_index=True, return_inverse=True)
    return firsts[groups].astype(np.int64)
