"""The pattern report: openings, closings, phrases, lengths and formats that the rows or one of their sources overuse.

A model learns "Sure, here is" from 14% of the answers as surely as it learns the facts. A sample of each source bounds
the memory: the rows with the smallest hashes, which are the same for any order of the rows and any number of processes
(bottom-k sketch, Cohen and Kaplan 2007). A source of at most `rows_per_source` rows is read in full.
"""

import heapq
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from statistics import median, quantiles
from typing import Annotated

import numpy as np
from pydantic import Field

from harness.config.group import Count, Group, Share
from harness.data.fingerprints import ngram_hashes
from harness.data.row import DataRow, answer_of
from harness.data.words import Hashes
from harness.stats.proportion import wilson_interval

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_KEPT = 3000  # phrases are looked for in this many characters of an answer
FORMATS = {
    "a bulleted list": re.compile(r"^[ \t]*[-*•]\s+\S.*\n[ \t]*[-*•]\s+\S", re.M),
    "a numbered list": re.compile(r"^[ \t]*1[.)]\s+\S.*\n(?:.*\n){0,20}?[ \t]*2[.)]\s+\S", re.M),
    "a heading": re.compile(r"^#{1,6}\s+\S", re.M),
    "bold text": re.compile(r"\*\*[^*\n]+\*\*"),
    "a code block": re.compile(r"```"),
    "a table": re.compile(r"^\s*\|.*\|\s*\n\s*\|[\s:|-]+\|\s*$", re.M),
    "an exclamation mark": re.compile(r"!"),
    "an emoji": re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]"),
    "a question at the end": re.compile(r"\?\W*\Z"),
}


@dataclass(frozen=True, order=True)
class Features:
    """What the report uses of an answer: its first and last words (lower case), its length in words, its formats, and
    its beginning (`text`), in which phrases are looked for.
    """

    opening: str
    closing: str
    words: int
    formats: tuple[str, ...]
    text: str


def features_of(answer: str, opening_words: int, closing_words: int) -> Features:
    start = _WORD.findall(answer[: 40 * opening_words].lower())[:opening_words]
    end = _WORD.findall(answer[-40 * closing_words :].lower())[-closing_words:]
    formats = [name for name, pattern in FORMATS.items() if pattern.search(answer)]
    if _is_json(answer):
        formats.append("JSON and nothing else")
    return Features(" ".join(start), " ".join(end), len(answer.split()), tuple(formats), answer[:_KEPT])


def words_of(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _is_json(answer: str) -> bool:
    text = answer.strip()
    if not (text.startswith(("{", "[")) and text.endswith(("}", "]"))):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


# Frequent word sequences are counted by 64-bit hashes in arrays, since all sequences of a sample would take gigabytes
# as text. Only the frequent ones are looked up again. An answer counts once for each sequence.
PatternCounts = dict[str, int]


def phrase_counts(texts: Mapping[str, Sequence[str]], n: int, least: dict[str, int]) -> dict[str, PatternCounts]:
    """For each source, the number of its texts that hold each phrase which is frequent in any source.

    `least` is the number of texts of a source that makes a phrase frequent. Sequences of n words that overlap and are
    in nearly the same number of texts are joined to one phrase, which counts as often as its rarest part.
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
    """Phrases, each with the sequences it joins: neighbours that overlap in all words but one, as frequent ±20%."""
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


ALL = "all sources"


class PatternConfig(Group):
    """Which wordings are reported that many answers of a source share."""

    rows_per_source: Count = 10_000
    """Answers of each source that are looked at, drawn at random."""

    opening_words: Count = 3
    """Words at the start of an answer that make an opening."""

    closing_words: Count = 3
    """Words at the end of an answer that make a closing."""

    phrase_words: Annotated[int, Field(ge=3)] = 5
    """Words of the sequences that phrases are built from."""

    min_share: Share = 0.02
    """Least share of answers, of a source or of all, that has a reported pattern."""

    min_rows: Count = 10
    """Fewest answers that have a reported pattern."""

    lift: Annotated[float, Field(ge=1)] = 3.0
    """How many times as frequent as elsewhere a pattern must be to set a source apart."""

    length_ratio: Annotated[float, Field(gt=1)] = 2.0
    """Ratio of median lengths, to the other sources, from which a source is set apart."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Level of the test that sets a source apart, corrected for the number of patterns."""

    top: Count = 15
    """Most patterns of each kind that are reported for a source."""

    examples: Count = 3
    """Row ids shown for each pattern."""


@dataclass(frozen=True)
class Pattern:
    """A pattern in the answers of a source, or of all sources. For lengths, medians in words replace the shares."""

    kind: str
    text: str
    source: str

    share: float
    """Share of the source's answers that have it: an estimate where the source is sampled."""

    rows: int
    """Rows of the source."""

    low: float
    """Lower end of the 95% interval of `share`; for lengths, the 5% quantile."""

    high: float
    """Upper end of the 95% interval of `share`; for lengths, the 95% quantile."""

    share_elsewhere: float | None
    """Share in the other sources; None for all sources."""

    apart: bool
    """Whether the source deviates significantly from the others."""

    examples: tuple[str, ...]
    """Ids of rows."""

    def sentence(self) -> str:
        """The finding for a person: `14% of answers start with 'sure, here is'`."""
        if self.kind == "length":
            return self._length()
        verb = {"opening": "start with", "closing": "end with", "phrase": "contain", "format": "have"}[self.kind]
        where = "" if self.source == ALL else f" of {self.source}"
        shown = self.text if self.kind == "format" else f"'{self.text}'"
        apart = f", elsewhere {self.share_elsewhere:.1%}" if self.apart and self.share_elsewhere is not None else ""
        return f"{self.share:.0%} of answers{where} {verb} {shown}{apart}"

    def _length(self) -> str:
        where = "answers" if self.source == ALL else f"answers of {self.source}"
        apart = f", elsewhere {self.share_elsewhere:.0f}" if self.share_elsewhere is not None else ""
        return f"{where} have {self.share:.0f} words (median; nine in ten {self.low:.0f} to {self.high:.0f}){apart}"


@dataclass
class _Sample:
    """The rows of a source with the smallest hashes, negated so that the largest is on top. `seen` counts all rows."""

    seen: int = 0
    heap: list[tuple[int, str, Features]] = field(default_factory=list)


class PatternCounter:
    """Collects the sample of each source from rows that come in any order and in any number of parts."""

    def __init__(self, config: PatternConfig):
        self.config = config
        self._sources: dict[str, _Sample] = {}

    def update(self, rows: Iterable[DataRow]) -> None:
        for row in rows:
            sample = self._sources.setdefault(str(row.get("source", "")), _Sample())
            sample.seen += 1
            answer, name = answer_of(row), str(row.get("id", ""))
            key = -_hash(f"{name}\0{answer}")
            if len(sample.heap) < self.config.rows_per_source or key > sample.heap[0][0]:
                features = features_of(answer, self.config.opening_words, self.config.closing_words)
                take = heapq.heappush if len(sample.heap) < self.config.rows_per_source else heapq.heappushpop
                take(sample.heap, (key, name, features))

    def report(self) -> list[Pattern]:
        """The patterns by kind; within a kind, those that set a source apart first, then by share."""
        return _Report(self.config, self._sources).patterns()


class _Report:
    """Shares for each source from its sample, and over all sources weighted by their numbers of rows."""

    def __init__(self, config: PatternConfig, sources: dict[str, _Sample]):
        self.config = config
        self.rows = {name: sorted(sample.heap, reverse=True) for name, sample in sorted(sources.items())}
        self.seen = {name: sources[name].seen for name in self.rows}

    def patterns(self) -> list[Pattern]:
        kinds = {
            "opening": self._counted(lambda f: [f.opening] if f.opening else []),
            "closing": self._counted(lambda f: [f.closing] if f.closing else []),
            "phrase": self._phrases(),
            "format": self._counted(lambda f: f.formats),
        }
        return [p for kind, counts in kinds.items() for p in self._kind(kind, counts)] + self._lengths()

    def _counted(self, keys: Callable[[Features], Iterable[str]]) -> dict[str, dict[str, int]]:
        return {name: Counter(key for _, _, f in rows for key in keys(f)) for name, rows in self.rows.items()}

    def _phrases(self) -> dict[str, dict[str, int]]:
        texts = {name: [f.text for _, _, f in rows] for name, rows in self.rows.items()}
        return phrase_counts(texts, self.config.phrase_words, {name: self._least(name) for name in self.rows})

    def _least(self, source: str) -> int:
        """The fewest answers of a source that must have a pattern for it to count as frequent."""
        return max(
            2, min(self.config.min_rows, len(self.rows[source])), round(self.config.min_share * len(self.rows[source]))
        )

    def _kind(self, kind: str, counts: dict[str, dict[str, int]]) -> list[Pattern]:
        frequent = {text for name in counts for text, n in counts[name].items() if n >= self._least(name)}
        tests = max(1, len(frequent) * len(self.rows))
        found = [p for text in sorted(frequent) for p in self._of_text(kind, text, counts, tests)]
        shown: list[Pattern] = []
        for source in (ALL, *self.rows):
            own = sorted((p for p in found if p.source == source), key=lambda p: (not p.apart, -p.share, p.text))
            shown += own[: self.config.top]
        return sorted(shown, key=lambda p: (not p.apart, -p.share, p.text))

    def _of_text(self, kind: str, text: str, counts: dict[str, dict[str, int]], tests: int) -> list[Pattern]:
        """The pattern over all sources where it is frequent, and in each source that it sets apart."""
        in_all = self._share(text, counts, self.rows)
        found = []
        if (
            in_all >= self.config.min_share
            and sum(counts[name].get(text, 0) for name in counts) >= self.config.min_rows
        ):
            found.append(self._pattern(kind, text, ALL, in_all, None, False))
        for name in self.rows if len(self.rows) > 1 else ():
            share = self._share(text, counts, [name])
            elsewhere = self._share(text, counts, [other for other in self.rows if other != name])
            apart = self._is_apart(text, name, counts, share, elsewhere, tests)
            if (
                counts[name].get(text, 0) >= self._least(name)
                and share >= self.config.min_share
                and (apart or not found)
            ):
                found.append(self._pattern(kind, text, name, share, elsewhere, apart))
        return found

    def _share(self, text: str, counts: dict[str, dict[str, int]], names: Iterable[str]) -> float:
        weighted = [(self.seen[name], counts[name].get(text, 0) / len(self.rows[name])) for name in names]
        return sum(seen * share for seen, share in weighted) / sum(seen for seen, _ in weighted)

    def _is_apart(
        self, text: str, name: str, counts: dict[str, dict[str, int]], share: float, elsewhere: float, tests: int
    ) -> bool:
        """Whether it is much more frequent here than elsewhere, and not by chance (Fisher's exact test, Bonferroni)."""
        from scipy.stats import fisher_exact

        if share < self.config.lift * elsewhere:
            return False
        here, n_here = counts[name].get(text, 0), len(self.rows[name])
        there = sum(counts[other].get(text, 0) for other in self.rows if other != name)
        n_there = sum(len(rows) for other, rows in self.rows.items() if other != name)
        table = [[here, n_here - here], [there, n_there - there]]
        return bool(fisher_exact(table, alternative="greater").pvalue < self.config.alpha / tests)

    def _pattern(
        self, kind: str, text: str, source: str, share: float, elsewhere: float | None, apart: bool
    ) -> Pattern:
        names = list(self.rows) if source == ALL else [source]
        sampled = sum(len(self.rows[name]) for name in names)
        seen = sum(self.seen[name] for name in names)
        low, high = (share, share) if sampled == seen else wilson_interval(round(share * sampled), sampled)
        examples = self._examples(kind, text, names)
        return Pattern(kind, text, source, share, seen, low, high, elsewhere, apart, examples)

    def _examples(self, kind: str, text: str, names: Iterable[str]) -> tuple[str, ...]:
        holds: dict[str, Callable[[Features], bool]] = {
            "opening": lambda f: f.opening == text,
            "closing": lambda f: f.closing == text,
            "format": lambda f: text in f.formats,
            "phrase": lambda f: text in " ".join(words_of(f.text)),
        }
        fits = holds[kind]
        found = (f"{name}/{row}" for name in names for _, row, features in self.rows[name] if fits(features))
        return tuple(row for row, _ in zip(found, range(self.config.examples), strict=False))

    def _lengths(self) -> list[Pattern]:
        """The median over all sources, and in each that is `length_ratio` times longer or shorter than the others."""
        words = {name: [f.words for _, _, f in rows] for name, rows in self.rows.items()}
        found = [self._length(ALL, [w for ws in words.values() for w in ws], None, False)] if words else []
        for name, own in words.items():
            others = [w for other, ws in words.items() if other != name for w in ws]
            if len(own) < self.config.min_rows or not others:
                continue
            here, there = max(1.0, median(own)), max(1.0, median(others))
            if max(here / there, there / here) >= self.config.length_ratio:
                found.append(self._length(name, own, there, True))
        return found

    def _length(self, source: str, words: list[int], elsewhere: float | None, apart: bool) -> Pattern:
        low, *_, high = quantiles(words, n=20) if len(words) > 1 else (words[0], words[0])
        seen = sum(self.seen.values()) if source == ALL else self.seen[source]
        return Pattern("length", "words", source, median(words), seen, low, high, elsewhere, apart, ())


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())
