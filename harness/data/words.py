"""Texts as words and their hashes, which all comparisons of rows and evaluation items use."""

import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"  # no spaces: each character is a word
_NUMBER = r"[0-9]+(?:,[0-9]{3}(?![0-9]))*(?:\.[0-9]+)?"
_OPERATOR = r" ?[-+*/^=<>] ?(?=[0-9(])"
_NUMERIC = re.compile(rf"{_NUMBER}(?:{_OPERATOR})?")
_TOKEN = re.compile(rf"[^\W0-9_{_CJK}]+(?:'+[^\W0-9_{_CJK}]+)*|{_NUMBER}|[{_CJK}]|(?<=[0-9]){_OPERATOR}")
_DROPPED = str.maketrans("", "", "', ")

# ASCII text takes a faster way to the same words: signs that belong to numbers and operators are hidden while
# punctuation becomes spaces.
_OPERATOR_MARKS = "\x01\x02\x03\x04\x05\x06\x07\x08"
_POINT_MARK = "\x0e"
_HIDDEN_NUMBER = str.maketrans("-+*/^=<>.", _OPERATOR_MARKS + _POINT_MARK, ", ")
_ASCII = bytes.maketrans(
    (string.punctuation + string.ascii_uppercase + _OPERATOR_MARKS + _POINT_MARK).encode(),
    (" " * len(string.punctuation) + string.ascii_lowercase + "-+*/^=<>.").encode(),
)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f]")
_INVISIBLE = re.compile("[\u00ad\u200b\u200c\u200d\u2060\ufeff]")
_TYPOGRAPHY = {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "−": "-", "×": "*", "÷": "/", "…": "."}


def words(text: str) -> list[str]:
    """Words, numbers and the operators between numbers, in order. Case, punctuation and Unicode form are ignored.

    A text without any of these is split at its spaces, so that texts of different symbols stay different.
    """
    plain = _plain(text)
    found = _ascii_words(plain) if plain.isascii() else _unicode_words(plain)
    return found or plain.split()


def _plain(text: str) -> str:
    """The text in NFKC, with ASCII for typographic punctuation and spaces for control characters."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
        for sign, plain in _TYPOGRAPHY.items():
            text = text.replace(sign, plain)
    return _CONTROL.sub(" ", text)


def _ascii_words(text: str) -> list[str]:
    return _NUMERIC.sub(_hidden, text).encode().translate(_ASCII, b"'").decode().split()


def _hidden(match: re.Match[str]) -> str:
    """A number and its operator with their signs replaced by marks, so that they do not become spaces."""
    found = match.group().translate(_HIDDEN_NUMBER)
    return f" {found[:-1]} {found[-1]} " if found[-1] in _OPERATOR_MARKS else f" {found} "


def _unicode_words(text: str) -> list[str]:
    return [token.translate(_DROPPED) for token in _TOKEN.findall(text.casefold())]


def text_hash(text: str) -> int:
    """64 bits of BLAKE2: the same in every process and on every machine."""
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


class _WordHashes(dict[str, int]):
    """Hashes of the words seen so far. It is emptied when it has a million of them."""

    def __missing__(self, word: str) -> int:
        if len(self) >= 1_000_000:
            self.clear()
        self[word] = hashed = text_hash(word)
        return hashed


_HASHES = _WordHashes()


@dataclass(frozen=True)
class Tokens:
    """Texts as word hashes: text k is `hashes[offsets[k]:offsets[k + 1]]`."""

    hashes: Hashes
    offsets: Offsets

    @property
    def owners(self) -> Offsets:
        """For each word, the number of its text."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


def hashed(texts: Sequence[Sequence[str]]) -> Tokens:
    """The word hashes of texts, each given as its words."""
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    flat = map(_HASHES.__getitem__, chain.from_iterable(texts))
    return Tokens(np.fromiter(flat, np.uint64, int(offsets[-1])), offsets)


def grams(tokens: Tokens, n: int) -> Tokens:
    """Hashes of all runs of n words in each text, in order. A shorter text is one run."""
    lengths = np.diff(tokens.offsets)
    counts = np.where(lengths > n, lengths - n + 1, np.minimum(lengths, 1))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    starts = np.arange(offsets[-1]) + np.repeat(tokens.offsets[:-1] - offsets[:-1], counts)
    ends = np.repeat(tokens.offsets[1:], counts)
    padded = np.concatenate([tokens.hashes, np.zeros(n, np.uint64)])
    found = np.zeros(len(starts), np.uint64)
    for step in range(n):
        word = np.where(starts + step < ends, padded[starts + step], np.uint64(0))
        found = extended(found, word)
    return Tokens(found, offsets)


_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: 2^64 over the golden ratio


def extended(runs: Hashes, words: Hashes) -> Hashes:
    """The hash of each run of words (0 for none) extended by one word: multiply, then fold the high bits down.

    Fingerprint files hold these hashes; another formula would make them useless.
    """
    runs = (runs ^ words) * _MULTIPLIER
    return runs ^ (runs >> np.uint64(29))


def mixed(values: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every bit of a value affects every bit of its hash."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
