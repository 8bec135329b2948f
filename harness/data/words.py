"""Texts as words: what every comparison of rows and evaluation items reads, whatever their case and punctuation."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_OPERATOR = r"(?<=[\d)\w] )[-+*/^=<>%](?= [\d(\w])|(?<=[\d)])[-+*/^=<>](?=[\d(])|%"
_WORD = rf"\d+(?:[.,]\d+)*|[{_CJK}]|[^\W_{_CJK}\d](?:[^\W_{_CJK}]|['’](?=[^\W_]))*"
_TOKEN = re.compile(rf"{_WORD}|{_OPERATOR}")
_TOKEN_OR_EDGE = re.compile(rf"{_WORD}|{_OPERATOR}|[.!?:;\n\"“”«»()\[\]|*#>]")
_KEPT = 1_000_000


def words(text: str) -> list[str]:
    """Words, numbers and the operators between numbers, in order; case, punctuation and Unicode form ignored."""
    raise NotImplementedError


def normalised(text: str) -> str:
    """The words joined by single spaces: two texts with the same one differ in case, spacing and punctuation only."""
    return " ".join(words(text))


def digest(text: str) -> bytes:
    """16 bytes that equal texts share after normalisation; the spaces between letters do not count."""
    raise NotImplementedError


@dataclass(frozen=True)
class Tokens:
    """Many texts as word hashes: text k is `hashes[offsets[k]:offsets[k + 1]]`."""

    hashes: Hashes
    offsets: Offsets
