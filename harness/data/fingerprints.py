"""Finds long verbatim runs of known texts by hashes of their word n-grams; the texts themselves are not stored.

One in `SAMPLE` n-grams is kept, chosen by its own hash. A run of known text therefore has a kept n-gram about every
SAMPLE words, wherever it begins (Manber 1994, "Finding similar files in a large file system").
"""

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.core.errors import DataError
from harness.data.words import Hashes, extended

NGRAM, SAMPLE, LEAST_HITS = 8, 4, 3
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Fingerprints:
    """The kept hashes of all texts, ascending, and for each the number of its text."""

    names: tuple[str, ...]
    hashes: Hashes
    owners: npt.NDArray[np.int32]

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> "Fingerprints":
        """Fingerprints of texts by name. An n-gram that several texts share belongs to the first of them."""
        found: dict[int, int] = {}
        for number, text in enumerate(texts.values()):
            for value in _sampled(text)[1].tolist():
                found.setdefault(value, number)
        ordered = sorted(found)
        return cls(tuple(texts), np.array(ordered, np.uint64), np.array([found[value] for value in ordered], np.int32))

    @classmethod
    def load(cls, path: Path) -> "Fingerprints":
        """Reads a file that `save` wrote. Raises DataError when it is missing, damaged or another kind of file."""
        try:
            values = json.loads(path.read_text())
            if values["ngram"] != NGRAM or values["sample"] != SAMPLE:
                raise DataError(
                    f"{path} was made with other settings. Make it again: "
                    f"python scripts/fingerprint_texts.py {path} NAME=FILE …"
                )
            blobs = {name: base64.b64decode(blob) for name, blob in values["texts"].items()}
            arrays = [np.frombuffer(blob, "<u8").astype(np.uint64) for blob in blobs.values()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is not a fingerprint file: {error}") from None
        owners = np.repeat(np.arange(len(arrays), dtype=np.int32), [len(array) for array in arrays])
        hashes = np.concatenate(arrays) if arrays else np.array([], np.uint64)
        order = np.argsort(hashes)
        return cls(tuple(blobs), hashes[order], owners[order])

    def save(self, path: Path) -> None:
        texts = {
            name: base64.b64encode(self.hashes[self.owners == number].astype("<u8").tobytes()).decode()
            for number, name in enumerate(self.names)
        }
        path.write_text(json.dumps({"ngram": NGRAM, "sample": SAMPLE, "texts": texts}, indent=1) + "\n")

    def runs(self, text: str, least_words: int) -> dict[str, int]:
        """Known texts by name, with the number of words of their longest verbatim run in `text`.

        A run is measured from the first to the last kept n-gram. Runs shorter than `least_words` and runs with fewer
        than LEAST_HITS kept n-grams are left out.
        """
        positions, values = _sampled(text)
        if not len(values) or not len(self.hashes):
            return {}
        places = np.minimum(np.searchsorted(self.hashes, values), len(self.hashes) - 1)
        known = self.hashes[places] == values
        found: dict[str, int] = {}
        for first, last in _stretches(known):
            words = int(positions[last] - positions[first]) + NGRAM
            if last - first + 1 >= LEAST_HITS and words >= least_words - 2 * SAMPLE:
                name = self.names[np.bincount(self.owners[places[first : last + 1]]).argmax()]
                found[name] = max(words, found.get(name, 0))
        return found


def _stretches(known: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index of each unbroken run of True."""
    edges = np.diff(np.concatenate(([0], known.view(np.int8), [0])))
    return [(int(a), int(b) - 1) for a, b in zip(np.nonzero(edges == 1)[0], np.nonzero(edges == -1)[0], strict=True)]


def _sampled(text: str) -> tuple[npt.NDArray[Any], Hashes]:
    """Word positions and hashes of the kept n-grams."""
    hashes = ngram_hashes(_WORD.findall(text.lower()), NGRAM)
    kept = np.nonzero(hashes % np.uint64(SAMPLE) == 0)[0]
    return kept, hashes[kept]


def ngram_hashes(words: Sequence[str], n: int) -> Hashes:
    """A 64-bit hash of each sequence of n words, the same on every machine; empty for fewer words."""
    count = len(words) - n + 1
    if count <= 0:
        return np.array([], np.uint64)
    ids = np.array([_word(word) for word in words], np.uint64)
    value = np.zeros(count, np.uint64)
    for offset in range(n):
        value = extended(value, ids[offset : offset + count])
    return value


@lru_cache(maxsize=100_000)
def _word(word: str) -> int:
    return zlib.crc32(word.encode())
