"""MinHash sketches of rows (Broder, 1997): what near-duplicate search keeps of a row instead of its text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.config import Count, Group, Share
from harness.data.words import Hashes, Offsets, Tokens, grams, hashed, mixed, text_hash, words

Without = Callable[[str], str]


class DedupeConfig(Group):
    """Near-duplicates: rows whose word n-grams have a Jaccard similarity of at least `jaccard`, and whose answers share
    at least `answer_jaccard` of their words: two questions on one long passage are no duplicates.

    `permutations` is the length of the MinHash signature: more find more of the pairs near the threshold.
    """

    action: Literal["drop", "flag"] = "drop"
    jaccard: Annotated[float, Field(ge=0.3, le=1)] = 0.7
    answer_jaccard: Share = 0.5
    ngram: Count = 3
    permutations: Annotated[int, Field(ge=16, le=1024)] = 128
    seed: int = 42

    @property
    def band_rows(self) -> int:
        """Signature rows a band: the most with which a pair at the threshold shares a band in 999 of 1,000 cases."""
        missed = {r: (1 - self.jaccard**r) ** (self.permutations // r) for r in range(1, self.permutations + 1)}
        return max([r for r, miss in missed.items() if miss <= 0.001], default=1)


@dataclass(frozen=True)
class Sets:
    """Hashes without repetition, ascending: set k is `members[offsets[k]:offsets[k + 1]]`."""

    members: NDArray[np.uint32]
    offsets: Offsets


@dataclass(frozen=True)
class Sketches:
    """What duplicates are found by, for some rows in order: digests of each row's own text, its prompt and its answer,
    LSH band keys (rows x bands), the word n-grams of its text and the words of its answer."""

    texts: Hashes
    prompts: Hashes
    answers: Hashes
    bands: NDArray[np.uint64]
    text_grams: Sets
    answer_words: Sets


def sketch(rows: Sequence[Mapping[str, Any]], config: DedupeConfig, without: Without | None = None) -> Sketches:
    """The sketches of rows; pure, so that worker processes can make them.

    `without` removes from an answer what every answer must share (a behaviour's `.without`).
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
    """Each text's hashes, cut to 32 bits."""
    keyed = np.sort(found.owners.astype(np.uint64) << np.uint64(32) | found.hashes >> np.uint64(32))
    keyed = keyed[np.diff(keyed, prepend=~keyed[:1]) != 0]
    counts = np.bincount((keyed >> np.uint64(32)).astype(np.int64), minlength=len(found.offsets) - 1)
    return Sets(keyed.astype(np.uint32), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _bands(found: Tokens, config: DedupeConfig) -> NDArray[np.uint64]:
    """One key a band: rows with equal keys have `band_rows` equal signature values in the same place."""
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
