"""Words of English text: their stems, and which of them carry meaning."""

import re
from functools import lru_cache
from typing import Any

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_EMPTY = re.compile(
    r"""a|an|the|of|in|on|to|at|by|for|from|with|and|or|but|as|is|are|was|were|be|been|being|will|would|can|could|may|might|must
    |shall|should|do|does|did|has|have|had|having|it|its|this|that|these|those|there|their|they|them|he|she|his|her|you|your
    |we|our|us|i|my|me|not|no|never|cannot|none|nor|neither|without|if|then|than|so|such|also|any|all|some|each|every|both
    |more|most|other|into|about|over|under|up|down|out|off|per|until|before|after|during|between|who|which|what|when|where
    |why|how|new|please|\w+n't""",
    re.VERBOSE,
)


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The English stem of a lower-case word (Porter 2); nouns in -sion share their verb's (decision, decide)."""
    return re.sub(r"(?<=\w\w)(i|u|an)s$", r"\1d", str(_stemmer().stemWord(word)))


@lru_cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")


def stems(text: str) -> list[str]:
    """Stems of all words, in order. Numbers are not words."""
    return [stem(word) for word in _WORD.findall(text.lower())]


def content_stems(text: str) -> list[str]:
    """Stems of the words that carry meaning, in order."""
    return [stem(word) for word in _WORD.findall(text.lower().replace("’", "'")) if not _EMPTY.fullmatch(word)]
