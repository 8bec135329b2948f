"""The rows between reading and writing: on disk with what the filters found, and what decides where each row goes."""

import json
import random
import sqlite3
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness.config.data import AuditConfig, DataConfig
from harness.config.group import Count, Group, Positive
from harness.core.console import plural
from harness.core.errors import DataError
from harness.data.dedupe import Duplicate, Duplicates, DuplicatesFound, Indices
from harness.data.engine import filter_rows
from harness.data.filtering import FilterChain, FilteredBatch, FilterOutcome
from harness.data.mix import sample, split, wanted
from harness.data.row import DataRow, answer_of
from harness.data.settings import section
from harness.data.sources import Malformed, Origin, read_rows_of
from harness.data.tally import Tally, masked
from harness.records.stages import FilterFinding

OUTLIER = "outlier"


class OutlierConfig(Group):
    """When the length of an answer is an outlier among those of its source."""

    action: Literal["drop", "flag"] = "flag"
    """What happens to the row."""

    spread: Positive = 3.0
    """Distance from the quartiles of the log length, in interquartile ranges; 3 is Tukey's “far out” (1977)."""

    min_rows: Count = 100
    """Fewest rows of a source whose answers are checked."""


@dataclass(frozen=True)
class Outlier:
    """An answer of `words` words in a source whose usual lengths end at `limit`."""

    words: int
    limit: float

    @property
    def kind(self) -> str:
        return "long" if self.words > self.limit else "short"

    @property
    def reason(self) -> str:
        beyond = "more than" if self.kind == "long" else "fewer than"
        return f"{plural(self.words, 'word')}, {beyond} the usual limit of its source ({self.limit:.0f})"


class Lengths:
    """The length of each answer in words, in the order of the rows: four bytes for each row."""

    def __init__(self, config: OutlierConfig):
        self._config = config
        self._words = array("I")

    def add(self, answer: str) -> None:
        self._words.append(len(answer.split()))

    def outliers(self, sources: Sequence[Indices]) -> dict[int, Outlier]:
        """Outliers by row number. `sources` holds the row numbers of each source."""
        words = np.frombuffer(self._words, np.uint32) if self._words else np.zeros(0, np.uint32)
        found: dict[int, Outlier] = {}
        for rows in sources:
            if len(rows) >= self._config.min_rows:
                low, high = self._fences(words[rows])
                odd = rows[(words[rows] < low) | (words[rows] > high)]
                found |= {int(row): Outlier(int(words[row]), high if words[row] > high else low) for row in odd}
        return found

    def _fences(self, words: Any) -> tuple[float, float]:
        """The shortest and the longest usual length. The interquartile range counts as at least half a doubling, so
        that one more word is not an outlier where nearly all answers are equally long.
        """
        first, third = np.quantile(np.log2(words + 1.0), [0.25, 0.75])
        reach = self._config.spread * max(third - first, 0.5)
        return float(2 ** (first - reach) - 1), float(2 ** (third + reach) - 1)


class RowStore:
    """Numbered JSON values in a SQLite file: memory stays bounded, and they can be read in any order.

    Numbers start at 0 and have no gaps.
    """

    def __init__(self, path: Path):
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, body TEXT NOT NULL)")
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, values: Iterable[Any]) -> None:
        bodies = [(json.dumps(value, ensure_ascii=False),) for value in values]
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT INTO rows (body) VALUES (?)", bodies)
        self._connection.execute("COMMIT")
        self._count += len(bodies)

    def get(self, numbers: Sequence[int]) -> Iterator[Any]:
        """The values with these numbers, in this order."""
        query = "SELECT body FROM rows WHERE number = ?"
        for number in numbers:
            (body,) = self._connection.execute(query, (int(number) + 1,)).fetchone()
            yield json.loads(body)

    def __iter__(self) -> Iterator[DataRow]:
        for (body,) in self._connection.execute("SELECT body FROM rows ORDER BY number"):
            yield json.loads(body)

    def close(self) -> None:
        self._connection.close()


_ERRORS_SHOWN = 10
_ERRORS_LENGTH = 800  # characters of the reasons that a message lists
_REASON_SHOWN = 400


@dataclass(frozen=True)
class MixPlan:
    """Where every row goes, by row number."""

    train: list[int]
    """Training rows, in the order in which they are written."""

    validation: list[int]
    duplicates: dict[int, Duplicate]
    outliers: dict[int, Outlier]
    found: DuplicatesFound

    unused: frozenset[int]
    """Rows that the mix leaves out."""

    notes: list[str]
    """What the decision could not look at: one sentence each."""


class StagedRows:
    """All rows after the filters, with what the audit needs to decide on each."""

    def __init__(self, data: DataConfig, config: AuditConfig, filters: FilterChain, folder: Path):
        self.data, self.config, self.filters, self.folder = data, config, filters, folder
        self.rows = RowStore(folder / "rows.sqlite")
        self.malformed = RowStore(folder / "malformed.sqlite")
        self.left_out = RowStore(folder / "left_out.sqlite")
        self.noted: dict[str, Counter[str]] = {}
        self.names = list(data.sources)
        self.source_of = array("H")
        self.live = array("b")
        self.dedupe = section("dedupe", config.dedupe)
        self.duplicates = Duplicates(self.dedupe)
        self.outliers = section("outliers", config.outliers)
        self.lengths = Lengths(self.outliers)
        own = {
            "duplicate": self.dedupe.action,
            OUTLIER: self.outliers.action,
            "malformed": config.malformed,
            "left out": "drop",
        }
        self.tally = Tally({**filters.codes, **own})

    def close(self) -> None:
        """Removes the temporary files."""
        for part in (self.rows, self.malformed, self.left_out, self.duplicates):
            part.close()

    def stage(self, origins: Sequence[Origin]) -> None:
        """Reads and filters all rows. Raises DataError that lists malformed rows, unless they go to the quarantine."""
        batches = self._batches(origins)
        for done in filter_rows(batches, self.filters, self.config.engine, self.config.workers, self.folder):
            self._take(done)
        if len(self.malformed) and self.config.malformed == "error":
            raise DataError(_malformed_text([row["reasons"][0] for row in self.malformed]))

    def _batches(self, origins: Sequence[Origin]) -> Iterator[list[DataRow]]:
        batch: list[DataRow] = []
        for origin in origins:
            for row in read_rows_of(origin, self.noted.setdefault(origin.name, Counter())):
                if isinstance(row, Malformed):
                    self._set_aside(row)
                    continue
                batch.append(row)
                if len(batch) == self.config.batch_rows:
                    if not self._stopped:
                        yield batch
                    batch = []
        if batch and not self._stopped:
            yield batch

    @property
    def _stopped(self) -> bool:
        """Whether a malformed row has ended the audit. The rest is then only read to report all malformed rows."""
        return bool(len(self.malformed)) and self.config.malformed == "error"

    def _set_aside(self, place: Malformed) -> None:
        empty = dict.fromkeys(("instruction", "input", "topic"), "")
        number = place.where.split()[-1]
        row = {"id": f"{place.source}-{number}", "source": place.source, **empty, "output": masked(place.text)}
        code, action = ("left out", "drop") if place.left_out else ("malformed", self.config.malformed)
        store = self.left_out if place.left_out else self.malformed
        store.append([{**row, "reasons": [f"{code}: {masked(str(place), _REASON_SHOWN)}"]}])
        self.tally.add({**row, "output": ""}, [FilterOutcome(code, action, str(place))])

    def _take(self, done: FilteredBatch) -> None:
        found = list(zip(done.rows, done.outcomes, strict=True))
        self.rows.append({"row": row, "outcomes": [asdict(outcome) for outcome in outcomes]} for row, outcomes in found)
        self.duplicates.add(done.sketches)
        for row, outcomes in found:
            self.source_of.append(self.names.index(row["source"]))
            self.lengths.add(answer_of(row))
            self.live.append(not any(o.action == "drop" for o in outcomes))
            if outcomes:
                self.tally.add(row, outcomes)

    def plan(self) -> MixPlan:
        """Decides on every row: duplicates first, then outliers, then the mix of what is left, then the split."""
        live = np.frombuffer(self.live, np.int8).astype(bool) if self.live else np.zeros(0, bool)
        found = self.duplicates.find(live)
        duplicates = {duplicate.row: duplicate for duplicate in found.duplicates}
        if self.dedupe.action == "drop":
            live[list(duplicates)] = False
        by_source = self._by_source(np.flatnonzero(live))
        outliers = self.lengths.outliers(list(by_source.values()))
        notes = [
            f"source {name}: answers of unusual length were not looked for: {plural(len(rows), 'row')}, and "
            f"audit.outliers.min_rows={self.outliers.min_rows}"
            for name, rows in by_source.items()
            if 0 < len(rows) < self.outliers.min_rows
        ]
        if self.outliers.action == "drop":
            live[list(outliers)] = False
        chosen = self._chosen(np.flatnonzero(live))
        train, validation = split(chosen, found.clusters, self.data.validation, self.data.seed)
        random.Random(self.data.seed).shuffle(train)
        unused = frozenset(np.flatnonzero(live).tolist()) - set(chosen)
        return MixPlan(train, validation, duplicates, outliers, found, unused, notes)

    def _by_source(self, live: Indices) -> dict[str, Indices]:
        source_of = np.frombuffer(self.source_of, np.uint16) if self.source_of else np.zeros(0, np.uint16)
        return {name: live[source_of[live] == i] for i, name in enumerate(self.names)}

    def _chosen(self, live: Indices) -> list[int]:
        rows = {name: numbers.tolist() for name, numbers in self._by_source(live).items()}
        if not len(live):
            return []
        counts = wanted(self.data, {name: len(numbers) for name, numbers in rows.items()})
        chosen: list[int] = []
        for name, numbers in rows.items():
            by_topic = self.data.mix.sampling == "by_topic" and counts[name] < len(numbers)
            topics = [body["row"]["topic"] for body in self.rows.get(numbers)] if by_topic else []
            seed = f"{self.data.seed}/{name}"
            chosen += sample(numbers, counts[name], self.data.mix.sampling, topics, seed)
        return sorted(chosen)

    def kept(self, plan: MixPlan, numbers: Sequence[int]) -> Iterator[DataRow]:
        """Rows by number, each with its `flags`: the findings that did not remove it."""
        for number, body in zip(numbers, self.rows.get(numbers), strict=True):
            flags = [f"{o['code']}: {o['reason']}" for o in body["outcomes"]]
            flags += [self._duplicate_reason(plan.duplicates[number])] if number in plan.duplicates else []
            flags += [f"{OUTLIER}: {plan.outliers[number].reason}"] if number in plan.outliers else []
            yield {**body["row"], "flags": flags}

    def quarantined(self, plan: MixPlan) -> Iterator[DataRow]:
        """The rows that are not kept, with all their reasons; malformed ones last."""
        kept = {*plan.train, *plan.validation}
        for number, body in enumerate(self.rows):
            if number not in kept:
                reasons = [f"{o['code']}: {o['reason']}" for o in body["outcomes"] if o["action"] == "drop"]
                if number in plan.duplicates and self.dedupe.action == "drop":
                    reasons.append(self._duplicate_reason(plan.duplicates[number]))
                if number in plan.outliers and self.outliers.action == "drop":
                    reasons.append(f"{OUTLIER}: {plan.outliers[number].reason}")
                if number in plan.unused:
                    reasons.append("mix: not in the sample of its source")
                yield {**body["row"], "reasons": reasons}
        yield from self.left_out
        yield from self.malformed

    def findings(self, plan: MixPlan) -> list[FilterFinding]:
        """What was found, including duplicates and outliers."""
        numbers = sorted({*plan.duplicates, *plan.outliers})
        for number, body in zip(numbers, self.rows.get(numbers), strict=True):
            found = self._found_among_all(plan, number)
            shown = not any(o["code"] == "personal_data" and o["action"] != "redact" for o in body["outcomes"])
            self.tally.add(body["row"], found, shown)
        return self.tally.findings()

    def _found_among_all(self, plan: MixPlan, number: int) -> list[FilterOutcome]:
        """What the comparison with all other rows found in a row."""
        found = []
        if duplicate := plan.duplicates.get(number):
            reason = self._duplicate_reason(duplicate).removeprefix("duplicate: ")
            found.append(FilterOutcome("duplicate", self.dedupe.action, reason, (duplicate.kind,)))
        if outlier := plan.outliers.get(number):
            found.append(FilterOutcome(OUTLIER, self.outliers.action, outlier.reason, (outlier.kind,)))
        return found

    def conflicts(self, plan: MixPlan) -> Iterator[DataRow]:
        """Questions with several answers, each with the list of its answers."""
        for numbers in plan.found.conflicts:
            rows = [body["row"] for body in self.rows.get(numbers)]
            answers = [{key: row[key] for key in ("id", "source", "output")} for row in rows]
            yield {"instruction": rows[0]["instruction"], "input": rows[0]["input"], "answers": answers}

    def _duplicate_reason(self, duplicate: Duplicate) -> str:
        of = next(self.rows.get([duplicate.of]))["row"]
        similarity = "the same text" if duplicate.kind == "exact" else f"Jaccard {duplicate.jaccard:.2f}"
        return f"duplicate: of row {of['source']}/{of['id']} ({similarity})"

    def why_empty(self, plan: MixPlan) -> str:
        """Why no row is left to train on."""
        codes = Counter(row["reasons"][0].split(":")[0] for row in self.quarantined(plan))
        if not codes:
            return f"the sources have no rows ({', '.join(str(s.path or s.hub) for s in self.data.sources.values())})"
        left = "all were quarantined (" + ", ".join(f"{code}: {n}" for code, n in codes.most_common()) + ")"
        first = next(iter(self.quarantined(plan)))["reasons"][0]
        return f"{left}. The first: {first}"


def _malformed_text(reasons: list[str]) -> str:
    lines: list[str] = []
    for reason in reasons[:_ERRORS_SHOWN]:
        lines.append(f"  - {reason.removeprefix('malformed: ')}")
        if sum(map(len, lines)) > _ERRORS_LENGTH:
            break
    shown = "\n".join(lines)
    more = f"\n  … and {len(reasons) - len(lines)} more" if len(reasons) > len(lines) else ""
    return (
        f"{plural(len(reasons), 'malformed row')}:\n{shown}{more}\n"
        "Fix them, or move them to the quarantine with audit.malformed=quarantine."
    )
