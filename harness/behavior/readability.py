"""Reading level of English text."""

import re

from harness.behavior.voice import sentences, without_code

_WORD = re.compile(r"[^\W_]+(?:['.,-][^\W_]+)*")
_ABBREVIATION = re.compile(r"\b(?:mr|mrs|ms|dr|st|no|e\.g|i\.e|etc|vs|approx)\.(?=\s)", re.IGNORECASE)


def words(text: str) -> list[str]:
    """Words and numbers; hyphenated ones are one."""
    return _WORD.findall(text)


def reading_grade(text: str) -> float:
    """US school grade of a plain text; 0 without words.

    Flesch-Kincaid grade level (Kincaid, Fishburne, Rogers, Chissom 1975):
    0.39 words/sentences + 11.8 syllables/words - 15.59. Numbers count as one syllable.
    """
    readable = _ABBREVIATION.sub(lambda match: match[0][:-1], without_code(text))
    counts = [len(words(sentence)) for sentence in sentences(readable)]
    total = sum(counts)
    if not total:
        return 0.0
    syllables = sum(_syllables(word) for word in words(readable))
    return 0.39 * total / sum(count > 0 for count in counts) + 11.8 * syllables / total - 15.59


def _syllables(word: str) -> int:
    import syllapy

    return max(1, int(syllapy.count(word)))
