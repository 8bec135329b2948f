"""One samples file (lm-eval's schema) as columns: numbers in arrays, texts left in the file until a flip is shown."""

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from harness.errors import EvidenceFault
from harness.gate.texts import prompt_of

KNOWN = frozenset(
    "doc_id doc target arguments resps filtered_resps filter metrics doc_hash prompt_hash target_hash repeat".split()  # noqa: SIM905
)
HASHED = ("doc_hash", "prompt_hash", "metrics")
NONE = -1
ARRAYS = ("items", "prompts", "targets", "values", "places", "choices", "docs")


@dataclass(frozen=True)
class Column:
    """One metric's scores, one an item, sorted by item; repeated samples of an item are averaged.

    All arrays have shape (n,): `items` doc_hash as bytes, `prompts` and `targets` digests of the file's hashes,
    `values` as the task reports them, `places` byte offsets of the item's (first) row, `choices` numbers of answer
    choices (0: not multiple choice), `docs` doc_id. `fields` number the values of a document's fields, NONE where a
    document has none; `names` are the values. `unscored` counts rows that name the metric and have no number for it.
    """

    path: Path
    items: npt.NDArray[np.bytes_]
    prompts: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    places: npt.NDArray[np.int64]
    choices: npt.NDArray[np.int64]
    docs: npt.NDArray[np.int64]
    fields: Mapping[str, npt.NDArray[np.int64]]
    names: Mapping[str, Sequence[str]]
    unscored: int

    def __len__(self) -> int:
        return len(self.items)

    def only(self, index: Any) -> "Column":
        """The items at these positions (or where the mask is true)."""
        return replace(
            self,
            **{name: getattr(self, name)[index] for name in ARRAYS},
            fields={name: codes[index] for name, codes in self.fields.items()},
        )


@dataclass
class _Rows:
    """The columns of one filter while its file is read: every row once, metrics by name."""

    items: list[bytes] = field(default_factory=list)
    prompts: "array[int]" = field(default_factory=lambda: array("q"))
    targets: "array[int]" = field(default_factory=lambda: array("q"))
    places: "array[int]" = field(default_factory=lambda: array("q"))
    choices: "array[int]" = field(default_factory=lambda: array("q"))
    docs: "array[int]" = field(default_factory=lambda: array("q"))
    repeats: "array[int]" = field(default_factory=lambda: array("q"))
    fields: dict[str, "array[int]"] = field(default_factory=dict)
    values: dict[str, tuple["array[int]", "array[float]"]] = field(default_factory=dict)
    unscored: dict[str, int] = field(default_factory=dict)


class _Reader:
    """Rows of one file. `fields` are the document fields that become codes."""

    def __init__(self, path: Path, fields: Sequence[str], filters: Sequence[str]):
        self.path = path
        self._filters = filters
        self._turns: dict[str, int] = {}
        self._shape: tuple[bool, ...] = ()
        self.rows: dict[str, _Rows] = {}
        self.codes: dict[str, dict[str, int]] = {name: {} for name in fields}
        self.number = 0
        self._document = msgspec.defstruct(
            "Document",
            [(f"field{i}", Any, None) for i in range(len(fields))],
            rename={f"field{i}": name for i, name in enumerate(fields)},
        )
        self._metrics: list[str] = []
        self._decoder = self._decoder_of([])

    def _decoder_of(self, metrics: Sequence[str]) -> Any:
        """Decodes what is asked for and skips the texts, which are most of a row."""
        raw = msgspec.Raw
        anything = ("doc_id", "doc_hash", "prompt_hash", "target_hash", "metrics", "repeat")
        known = [
            *((name, Any, None) for name in anything),
            ("filter", Any, "none"),
            ("doc", raw, raw(b"{}")),
            ("arguments", list[raw] | dict[str, raw] | None, None),
            ("resps", raw, raw(b"[]")),
        ]
        named = [(f"metric{i}", Any, None) for i in range(len(metrics))]
        rename = {f"metric{i}": name for i, name in enumerate(metrics)}
        self._metrics = list(metrics)
        return msgspec.json.Decoder(msgspec.defstruct("Sample", [*known, *named], rename=rename))

    def read(self) -> None:
        place = 0
        with self.path.open("rb") as file:
            for self.number, line in enumerate(file, 1):
                if not line.isspace():
                    self._take(line, place)
                place += len(line)

    def _take(self, line: bytes, place: int) -> None:
        row = self._decoded(line)
        new = [name for name in row.metrics if name not in self._metrics]
        if new:
            self._decoder = self._decoder_of([*self._metrics, *new])
            row = self._decoded(line)
        rows = self.rows.setdefault(row.filter, _Rows(fields={name: array("q") for name in self.codes}))
        index = len(rows.items)
        rows.items.append(row.doc_hash.encode("utf-8", "surrogatepass"))
        rows.prompts.append(hash(row.prompt_hash))
        rows.targets.append(hash(str(row.target_hash)))
        rows.places.append(place)
        rows.choices.append(_choices(row.arguments))
        rows.docs.append(row.doc_id if isinstance(row.doc_id, int) else NONE)
        rows.repeats.append(NONE if row.repeat is None else row.repeat)
        self._fields(rows, row.doc)
        for name in row.metrics:
            value = _value(getattr(row, f"metric{self._metrics.index(name)}"), row.resps)
            if value is None:
                rows.unscored[name] = rows.unscored.get(name, 0) + 1
                continue
            indices, values = rows.values.setdefault(name, (array("q"), array("d")))
            indices.append(index)
            values.append(value)

    def _fields(self, rows: _Rows, doc: Any) -> None:
        try:
            found = msgspec.json.decode(doc, type=self._document)
        except msgspec.DecodeError:
            raise self._fault("has a damaged doc: not an lm-eval sample") from None
        for index, (name, codes) in enumerate(self.codes.items()):
            value = getattr(found, f"field{index}")
            code = NONE if value is None else codes.setdefault(str(value), len(codes))
            rows.fields[name].append(code)

    def _decoded(self, line: bytes) -> Any:
        try:
            row = self._decoder.decode(line)
        except msgspec.DecodeError:
            row = self._from_mapping(self._mapping(line))
        self._shape = self._shape or _shape(row)
        if _shape(row) != self._shape:
            odd = [key for key, absent, usual in zip(HASHED, _shape(row), self._shape, strict=True) if absent != usual]
            raise self._fault(f"differs from the rows before it in having {', '.join(odd)} or not: it is damaged")
        if row.metrics is None:
            row = self._from_mapping(self._completed(self._mapping(line)))
        if not isinstance(row.doc_hash, str) or not isinstance(row.prompt_hash, str):
            raise self._fault("has no doc_hash or no prompt_hash, or they are damaged: not an lm-eval sample")
        if not isinstance(row.metrics, list) or not all(isinstance(name, str) for name in row.metrics):
            raise self._fault("metrics is damaged: not an lm-eval sample")
        if clash := KNOWN.intersection(row.metrics):
            raise self._fault(f"{', '.join(sorted(clash))} cannot be a metric: not an lm-eval sample")
        if not isinstance(row.filter, str) or not isinstance(row.repeat, int | None):
            raise self._fault("filter or repeat is damaged: not an lm-eval sample")
        return row

    def _mapping(self, line: bytes) -> dict[str, Any]:
        """A row that is no strict JSON (lm-eval writes NaN and infinity as Python does), or is read whole."""
        try:
            found = json.loads(line)
        except ValueError:
            raise self._fault("is not JSON; the file is damaged or was cut off") from None
        if not isinstance(found, dict) or not isinstance(found.get("doc", {}), dict):
            raise self._fault("is not an lm-eval sample")
        return found

    def _from_mapping(self, found: dict[str, Any]) -> Any:
        wanted = ("doc_id", "doc_hash", "prompt_hash", "target_hash", "filter", "metrics", "repeat")
        plain = {name: found[name] for name in wanted if name in found}
        if "resps" in found:
            plain["resps"] = msgspec.Raw(json.dumps(found["resps"]).encode())
        if isinstance(found.get("arguments"), list | dict):
            plain["arguments"] = found["arguments"]
        plain["doc"] = msgspec.Raw(json.dumps({name: found.get("doc", {}).get(name) for name in self.codes}).encode())
        plain |= {f"metric{i}": found[name] for i, name in enumerate(self._metrics) if name in found}
        return self._decoder.type(**plain)

    def _completed(self, found: dict[str, Any]) -> dict[str, Any]:
        """A row of an lm-eval before 0.4.8, which named neither metrics nor filter, and before 0.4.3 no hashes."""
        metrics = [name for name, value in found.items() if name not in KNOWN and isinstance(value, int | float)]
        doc = json.dumps(found.get("doc"), indent=2, ensure_ascii=False, default=str)
        hashes = {
            "doc_hash": _sha256(doc),
            "prompt_hash": _sha256(prompt_of(found)),
            "target_hash": _sha256(str(found.get("target"))),
        }
        completed = {**hashes, **found, "metrics": metrics}
        if "filter" not in found and self._filters:
            turn = self._turns.get(completed["doc_hash"], 0)
            self._turns[completed["doc_hash"]] = turn + 1
            completed["filter"] = self._filters[min(turn, len(self._filters) - 1)]
        return completed

    def _fault(self, what: str) -> EvidenceFault:
        return EvidenceFault(f"{self.path} line {self.number} {what}")


def read_samples(path: Path, fields: Sequence[str], filters: Sequence[str] = ()) -> dict[str, Column]:
    """Columns by metric (`metric,filter` for any filter but none), with the document fields `fields` as codes.

    `filters` are the task's, in order, for old files whose rows do not name theirs.
    Raises EvidenceFault for a damaged or repeated item, and for text that is not UTF-8.
    """
    reader = _Reader(path, fields, filters)
    try:
        reader.read()
    except UnicodeDecodeError as error:
        raise EvidenceFault(f"{path} is not UTF-8 text ({error}); the file is damaged") from None
    names = {name: list(codes) for name, codes in reader.codes.items()}
    return {
        key: column for filter_, rows in reader.rows.items() for key, column in _columns(path, filter_, rows, names)
    }


def _columns(path: Path, filter_: str, rows: _Rows, names: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Column]]:
    items = np.array(rows.items, dtype=np.bytes_)
    rows.items.clear()
    order = np.argsort(items, kind="stable")
    items = items[order]
    repeats = np.array(rows.repeats, dtype=np.int64)[order]
    _require_distinct(path, items, repeats, np.array(rows.places, dtype=np.int64)[order])
    first = np.ones(len(items), dtype=bool)
    first[1:] = items[1:] != items[:-1]
    group = np.cumsum(first) - 1
    table = {
        name: np.array(getattr(rows, name), dtype=np.int64)[order][first]
        for name in ("prompts", "targets", "places", "choices", "docs")
    }
    fields = {name: np.array(codes, dtype=np.int64)[order][first] for name, codes in rows.fields.items()}
    items = items[first]
    position = np.empty(len(order), dtype=np.int64)
    position[order] = group
    for metric in sorted({*rows.values, *rows.unscored}):
        indices, values = rows.values.get(metric, (array("q"), array("d")))
        at = position[np.array(indices, dtype=np.int64)]
        counts = np.bincount(at, minlength=len(items))
        scored = counts > 0
        sums = np.bincount(at, weights=np.array(values), minlength=len(items))
        key = metric if filter_ == "none" else f"{metric},{filter_}"
        yield (
            key,
            Column(
                path=path,
                items=items[scored],
                values=sums[scored] / counts[scored],
                fields={name: codes[scored] for name, codes in fields.items()},
                names=names,
                unscored=rows.unscored.get(metric, 0),
                **{name: column[scored] for name, column in table.items()},
            ),
        )


def _require_distinct(path: Path, items: Any, repeats: Any, places: Any) -> None:
    """Raises EvidenceFault for an item that stands twice and is not numbered as a repeated sample."""
    for index in np.flatnonzero(items[1:] == items[:-1]):
        same = items == items[index]
        if (repeats[same] == NONE).any() or len(set(repeats[same])) < same.sum():
            line, item = _line_of(path, int(places[same].max())), items[index].decode(errors="replace")
            raise EvidenceFault(f"{path} line {line}: item {item[:12]} occurs twice")


def _line_of(path: Path, place: int) -> int:
    return path.read_bytes()[:place].count(b"\n") + 1


def _choices(arguments: Any) -> int:
    """How many answers were scored by likelihood: one request each; a generation is one request."""
    count = len(arguments) if arguments else 0
    return count if count > 1 else 0


def _value(raw: Any, responses: Any) -> float | None:
    """A per-item number, or the mean of one number a repeated response; other lists have no value of their own."""
    if isinstance(raw, int | float):
        return float(raw)
    if isinstance(raw, list) and len(raw) > 1 and all(isinstance(one, int | float) for one in raw):
        asked = json.loads(bytes(responses))
        if isinstance(asked, list) and len(asked) == 1 and isinstance(asked[0], list) and len(asked[0]) == len(raw):
            return float(sum(raw) / len(raw))
    return None


def _shape(row: Any) -> tuple[bool, ...]:
    return tuple(getattr(row, key) is None for key in HASHED)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
