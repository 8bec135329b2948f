"""Frequent word sequences: how many answers hold each, every answer counted once.

Counting is by 64-bit hashes in arrays, since the sequences of a sample as text would take gigabytes;
only the frequent ones are looked up again.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from harness.data.fingerprints import Hashes, ngram_hashes
from harness.data.pattern_features import words_of

Counts = dict[str, int]


def phrase_counts(texts: Mapping[str, Sequence[str]], n: int, least: dict[str, int]) -> dict[str, Counts]:
    """For each source, in how many of its texts the phrases stand that are frequent in one of the sources.

    `least` is the number of texts of a source that makes a phrase frequent. Sequences that stand together in nearly
    the same texts are joined to one phrase, counted by its rarest part.
    """
    hashed = {source: _document_frequencies(rows, n) for source, rows in texts.items()}
    frequent = [values[counts >= least[source]] for source, (values, counts) in hashed.items()]
    wanted = np.unique(np.concatenate(frequent)) if frequent else np.array([], np.uint64)
    grams = _wordings(texts, n, wanted)
    table = {source: _lookup(wanted, *hashed[source]) for source in texts}
    totals = {gram: sum(table[source][value] for source in texts) for value, gram in grams.items()}
    phrases = joined(totals)
    by_gram = {gram: value for value, gram in grams.items()}
    return {
        source: {text: min(table[source][by_gram[gram]] for gram in parts) for text, parts in phrases.items()}
        for source in texts
    }


def joined(totals: dict[str, int]) -> dict[str, list[str]]:
    """Phrases with the sequences they are made of: neighbours that overlap in all words but one, as frequent ±20%."""
    begins, ends = defaultdict(list), defaultdict(list)
    for gram in totals:
        begins[gram.rsplit(" ", 1)[0]].append(gram)
        ends[gram.split(" ", 1)[1]].append(gram)
    left = dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))
    found: dict[str, list[str]] = {}
    while left:
        seed = next(iter(left))
        near = totals[seed]
        del left[seed]
        parts = [seed]
        while step := _next(begins[parts[-1].split(" ", 1)[1]], left, near):
            parts.append(step)
        while step := _next(ends[parts[0].rsplit(" ", 1)[0]], left, near):
            parts.insert(0, step)
        found[" ".join([parts[0], *(part.rsplit(" ", 1)[1] for part in parts[1:])])] = parts
    return found


def _next(candidates: Sequence[str], left: dict[str, int], near: int) -> str | None:
    """The most frequent unused neighbour about as frequent as the phrase so far; it counts as used."""
    fitting = [gram for gram in candidates if gram in left and left[gram] >= 0.8 * near]
    best = max(fitting, key=lambda gram: left[gram], default=None)
    if best is not None:
        del left[best]
    return best


def _document_frequencies(texts: Sequence[str], n: int) -> tuple[Hashes, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    each = [np.unique(ngram_hashes(words_of(text), n)) for text in texts]
    values, counts = np.unique(np.concatenate([np.array([], np.uint64), *each]), return_counts=True)
    return values, counts


def _lookup(wanted: Hashes, values: Hashes, counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> dict[int, int]:
    if not len(values):
        return dict.fromkeys(wanted.tolist(), 0)
    places = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    found = np.where(values[places] == wanted, counts[places], 0)
    return dict(zip(wanted.tolist(), found.tolist(), strict=True))


def _wordings(texts: Mapping[str, Sequence[str]], n: int, wanted: Hashes) -> dict[int, str]:
    """The words of each wanted hash."""
    found: dict[int, str] = {}
    for rows in texts.values():
        for text in rows:
            words = words_of(text)
            hashes = ngram_hashes(words, n)
            for place in np.nonzero(np.isin(hashes, wanted))[0].tolist():
                found.setdefault(int(hashes[place]), " ".join(words[place : place + n]))
            if len(found) == len(wanted):
                return found
    return found
