"""Overlap of texts: Jaccard similarity over word n-grams."""

import re
from collections import defaultdict
from collections.abc import Iterable

Gram = tuple[str, ...]
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def grams(text: str, n: int) -> frozenset[Gram]:
    """The word n-grams of a text, case and punctuation ignored; the whole text where it is shorter than n."""
    words = _WORD.findall(text.lower())
    if len(words) < n:
        return frozenset([tuple(words)] if words else [])
    return frozenset(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


class GramIndex:
    """Texts seen so far; finds the most similar one among those that share an n-gram."""

    def __init__(self, n: int):
        self._n = n
        self._sets: dict[str, frozenset[Gram]] = {}
        self._holders: dict[Gram, list[str]] = defaultdict(list)

    def add(self, key: str, text: str) -> None:
        self._sets[key] = grams(text, self._n)
        for gram in self._sets[key]:
            self._holders[gram].append(key)

    def most_similar(self, text: str) -> tuple[str, float] | None:
        """(key, Jaccard) of the most similar text, or None when no n-gram is shared."""
        wanted = grams(text, self._n)
        candidates = {key for gram in wanted for key in self._holders.get(gram, ())}
        scored = [(key, jaccard(wanted, self._sets[key])) for key in sorted(candidates)]
        return max(scored, key=lambda pair: pair[1], default=None)


def jaccard(left: frozenset[Gram], right: frozenset[Gram]) -> float:
    """|intersection| / |union|; 0 for two empty sets."""
    union = len(left | right)
    return len(left & right) / union if union else 0.0


def joined(texts: Iterable[str]) -> str:
    return " ".join(text for text in texts if text)
