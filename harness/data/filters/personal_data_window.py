"""Context words in a window of characters around a match: what presidio does with lemmas, without a language model."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

BOOST, LEAST = 0.35, 0.4  # presidio's own defaults for a match with a supporting word


def before(text: str, start: int, characters: int) -> str:
    return text[max(0, start - characters) : start]


def supported(text: str, start: int, end: int, words: Sequence[str], characters: int = 60) -> bool:
    """One of `words` (regular expressions, any case) begins a word in front of the match, or just after it."""
    pattern = _any_of(tuple(words))
    return bool(pattern.search(before(text, start, characters)) or pattern.search(text[end : end + characters // 2]))


def enhance(text: str, results: Sequence[Any], words: Sequence[str], characters: int = 60) -> list[Any]:
    """The results, those beside a context word with a higher score."""
    for result in results:
        if supported(text, result.start, result.end, words, characters):
            result.score = min(1.0, max(LEAST, result.score + BOOST))
    return list(results)


@lru_cache(maxsize=64)
def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(r"(?<![A-Za-z])(?:" + "|".join(words) + ")", re.I)
