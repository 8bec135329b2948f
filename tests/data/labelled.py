"""Labelled rows, our own in labelled/*.jsonl and public ones in ../shared/data, and how findings match them."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OWN = Path(__file__).parent / "labelled"
SHARED = Path(__file__).parents[3] / "shared" / "data"
Spans = set[tuple[str, int, int]]
_MARK = re.compile(r"\{\{([A-Z_]+)\|(.*?)\}\}", re.S)


@dataclass(frozen=True)
class Score:
    """Counts of one kind of finding."""

    hit: int = 0
    false: int = 0
    missed: int = 0

    @property
    def precision(self) -> float:
        return self.hit / (self.hit + self.false) if self.hit + self.false else 1.0

    @property
    def recall(self) -> float:
        return self.hit / (self.hit + self.missed) if self.hit + self.missed else 1.0


def own(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (OWN / f"{name}.jsonl").read_text().splitlines()]


def own_personal_data() -> list[tuple[str, Spans]]:
    return [unmarked(row["text"]) for row in own("personal_data")]


def unmarked(text: str) -> tuple[str, Spans]:
    """`Mail {{EMAIL_ADDRESS|a@b.org}}` as plain text and the spans in it."""
    plain, spans, end = "", set(), 0
    for match in _MARK.finditer(text):
        plain += text[end : match.start()]
        spans.add((match.group(1), len(plain), len(plain) + len(match.group(2))))
        plain += match.group(2)
        end = match.end()
    return plain + text[end:], spans


def shared_personal_data(folder: Path = SHARED) -> list[tuple[str, Spans]]:
    rows = json.loads((folder / "pii" / "presidio_generated_small.json").read_text())
    return [
        (row["full_text"], {(s["entity_type"], s["start_position"], s["end_position"]) for s in row["spans"]})
        for row in rows
    ]


def shared_toxicity(folder: Path = SHARED) -> list[tuple[str, bool]]:
    with (folder / "toxicity" / "surge_toxicity_500.csv").open(newline="") as file:
        return [(row["text"], row["is_toxic"] == "Toxic") for row in csv.DictReader(file)]


def span_scores(rows: Iterable[tuple[str, Spans]], find: Callable[[str], Spans]) -> dict[str, Score]:
    """Score by entity; a finding is right when it overlaps a label of the same entity."""
    hit: Counter[str] = Counter()
    false: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for text, labels in rows:
        found = find(text)
        for label in labels:
            (hit if any(_same(label, f) for f in found) else missed)[label[0]] += 1
        for f in found:
            false[f[0]] += not any(_same(label, f) for label in labels)
    return {kind: Score(hit[kind], false[kind], missed[kind]) for kind in hit | missed | +false}


def rule_scores(rows: Iterable[tuple[str | None, set[str]]]) -> dict[str, Score]:
    """Score by rule of (label, rules found); a further rule on a row with a label is not counted as false."""
    hit: Counter[str] = Counter()
    false: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for label, found in rows:
        if label is None:
            false.update(found)
        elif label in found:
            hit[label] += 1
        else:
            missed[label] += 1
            false.update(found)
    return {kind: Score(hit[kind], false[kind], missed[kind]) for kind in hit | missed | false}


def _same(a: tuple[str, int, int], b: tuple[str, int, int]) -> bool:
    return a[0] == b[0] and a[1] < b[2] and b[1] < a[2]
