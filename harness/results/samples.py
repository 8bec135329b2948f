"""Reads a samples file (lm-eval's schema) into columns; skips its texts, which are most of it."""

import hashlib
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec

from harness.config.gate import FIELD_NAME
from harness.core.errors import EvidenceFault
from harness.results.blocks import BlockReader, choices, code, digest
from harness.results.columns import NONE, Column, ColumnBuilder, columns_of

SHOWN = 2000
BOM = b"\xef\xbb\xbf"


def texts(path: Path, place: int) -> tuple[str, str]:
    """Prompt and response of the row at byte `place`, shortened to 2,000 characters each."""
    with path.open("rb") as file:
        if is_list(path):
            row = json.load(file)[place]
        else:
            file.seek(place)
            row = json.loads(file.readline())
    return prompt_of(row)[-SHOWN:], response_of(row)[:SHOWN]


def is_list(path: Path) -> bool:
    """Whether a file is one JSON list, as lm-eval 0.4.0 to 0.4.2 wrote it; the place of a row is then its index."""
    with path.open("rb") as file:
        return file.read(16).removeprefix(BOM).lstrip().startswith(b"[")


def prompt_of(row: dict[str, Any]) -> str:
    """The text of the first request; '' where the row has none."""
    first = row.get("arguments")
    for _ in range(2):  # the first request, and its first argument: lists in old files, objects by name in new ones
        first = next(iter(first.values() if isinstance(first, dict) else first), "") if first else ""
        if isinstance(first, str):
            break
    return str(first)


def response_of(row: dict[str, Any]) -> str:
    """The answer as text: the generated text, or the most likely choice."""
    responses: Any = row.get("filtered_resps") or [""]
    if not isinstance(responses, list):
        return str(responses)
    if isinstance(responses[0], str):
        return responses[0]
    scores = [float(r[0]) for r in responses if isinstance(r, list | tuple) and r]
    best = max(range(len(scores)), key=scores.__getitem__) if scores else 0
    choices = (row.get("doc") or {}).get("choices")
    return str(choices[best]) if isinstance(choices, list) and best < len(choices) else f"choice {best}"


KNOWN = frozenset(
    "doc_id doc target arguments resps filtered_resps filter metrics doc_hash prompt_hash target_hash repeat".split()  # noqa: SIM905
)
HASHED = ("doc_hash", "prompt_hash", "metrics")
PLAIN = (*HASHED, "doc_id", "target_hash", "filter", "repeat")
WHOLE = (True, True, True)
BLOCK = 2**18  # bytes of lines that are read at once: few enough to stay in a cache

# name, attribute of the decoded row, and where its items' positions and values go
_Sinks = list[tuple[str, str, "array[int]", "array[float]"]]


class _Reader:
    """Reads the rows of one file. `fields` are the document fields that become codes."""

    def __init__(self, path: Path, fields: Sequence[str], filters: Sequence[str]):
        self.path = path
        self._filters = filters
        self._lines_of_item: dict[str, list[int]] = {}
        self._shape: tuple[bool, ...] = ()
        self.rows: dict[str, ColumnBuilder] = {}
        self.codes: dict[str, dict[str, int]] = {name: {} for name in fields}
        self.number = 0
        described: list[Any] = [(f"field{i}", Any, None) for i in range(len(fields))]
        self._document: Any = msgspec.defstruct(
            "Document",
            described,
            rename={f"field{i}": name for i, name in enumerate(fields)},
            frozen=True,
            gc=False,
        )
        self._metrics: list[str] = []
        self._decoder = self._decoder_of([])
        self._alike: tuple[str, list[str]] | None = None
        self._sinks: _Sinks = []
        self._like: Any = None
        self._block: BlockReader | None = None

    def _decoder_of(self, metrics: Sequence[str]) -> Any:
        """A decoder that checks the fields that are needed, and skips the texts, which are most of a row."""
        known: list[Any] = [
            *((name, str) for name in ("doc_hash", "prompt_hash")),
            ("metrics", list[str]),
            *((name, Any, None) for name in ("doc_id", "target_hash")),
            ("repeat", int | None, None),
            ("filter", str, "none"),
            ("doc", self._document, self._document()),
            ("arguments", list[msgspec.Raw] | dict[str, msgspec.Raw] | None, None),
            ("resps", msgspec.Raw, msgspec.Raw(b"[]")),
        ]
        named: list[Any] = [(f"metric{i}", Any, None) for i in range(len(metrics))]
        rename = {f"metric{i}": name for i, name in enumerate(metrics)}
        self._metrics = list(metrics)
        return msgspec.json.Decoder(msgspec.defstruct("Sample", [*known, *named], rename=rename))

    def read(self) -> str:
        """Reads every row; returns the sha256 of exactly the bytes that were read."""
        if is_list(self.path):
            return self._read_list()
        place, digest_of_file = 0, hashlib.sha256()
        with self.path.open("rb") as file:
            while block := file.read(BLOCK) + file.readline():
                digest_of_file.update(block)
                if not place and block.startswith(BOM):
                    place, block = len(BOM), block.removeprefix(BOM)
                rows = self._read_alike(block, place)
                self.number += rows
                if not rows:
                    self._read_one_by_one(block, place)
                place += len(block)
        return digest_of_file.hexdigest()

    def _read_list(self) -> str:
        content = self.path.read_bytes()
        try:
            rows = json.loads(content.removeprefix(BOM))
        except (ValueError, RecursionError) as error:
            raise EvidenceFault(
                f"{self.path} is not JSON ({error}); the file is damaged or was cut off. Copy it or evaluate again."
            ) from None
        for index, row in enumerate(rows):
            self.number += 1
            self._read_row(json.dumps(row).encode(), index)
        return hashlib.sha256(content).hexdigest()

    def _read_alike(self, block: bytes, place: int) -> int:
        """Reads the block at once if all its rows are like the last one; returns their number, 0 if they are not."""
        if self._like is None:
            return 0
        if self._block is None:
            try:
                self._block = BlockReader(self._like, self._rows, self._document, self.codes)
            except (ValueError, TypeError):  # a request whose name no decoder accepts
                self._like = None
                return 0
        return self._block.read(block, place)

    def _read_one_by_one(self, block: bytes, place: int) -> None:
        for line in BytesIO(block):
            self.number += 1
            if not line.isspace():
                try:
                    self._read_row(line, place)
                except (OverflowError, RecursionError):
                    raise self._error("has a value that is not allowed in an lm-eval sample") from None
            place += len(line)

    def _read_row(self, line: bytes, place: int) -> None:
        row = self._decoded(line)
        if self._alike != (row.filter, row.metrics):
            row = self._switch_columns(row, line)
        rows = self._rows
        index = len(rows)
        rows.items.append(row.doc_hash.encode("utf-8", "surrogatepass"))
        rows.prompts.append(digest(row.prompt_hash))
        rows.targets.append(digest(str(row.target_hash)))
        rows.places.append(place)
        rows.choices.append(choices(row.arguments))
        rows.samples.append(_responses(row.resps))
        rows.docs.append(row.doc_id if type(row.doc_id) is int else NONE)
        rows.repeats.append(NONE if row.repeat is None else row.repeat)
        for attribute, codes, column in self._coded:
            column.append(code(codes, getattr(row.doc, attribute)))
        for name, attribute, indices, values in self._sinks:
            raw = getattr(row, attribute)
            score = raw if type(raw) is float else _value(raw, row.resps)
            if score is None:
                rows.unscored[name] = rows.unscored.get(name, 0) + 1
                rows.lists[name] = rows.lists.get(name, 0) + isinstance(raw, list)
            else:
                indices.append(index)
                values.append(score)

    def _switch_columns(self, row: Any, line: bytes) -> Any:
        """Makes this row's filter and metrics the current ones, with columns of their own; returns the row."""
        if clash := KNOWN.intersection(row.metrics):
            raise self._error(f"{', '.join(sorted(clash))} cannot be the name of a metric: not an lm-eval sample")
        if not _is_text(row.filter, *row.metrics):
            raise self._error("has a filter or a metric whose name is not text: it is damaged")
        if odd := [name for name in row.metrics if not FIELD_NAME.fullmatch(name)]:
            raise self._error(f"has the metric {odd[0]!r}; a name has no quotes, backslashes or control characters")
        if new := sorted(set(row.metrics) - set(self._metrics)):
            self._decoder = self._decoder_of([*self._metrics, *new])
            row = self._decoded(line)
        self._alike = (row.filter, row.metrics)
        self._rows = self.rows.setdefault(row.filter, ColumnBuilder(fields={name: array("i") for name in self.codes}))
        coded = enumerate(self.codes.items())
        self._coded = [(f"field{i}", codes, self._rows.fields[name]) for i, (name, codes) in coded]
        self._sinks = [
            (name, f"metric{self._metrics.index(name)}", *self._rows.values.setdefault(name, (array("q"), array("d"))))
            for name in dict.fromkeys(row.metrics)
        ]
        plain = self._shape == WHOLE and row.metrics and len(set(row.metrics)) == len(row.metrics)
        self._like, self._block = (row if plain else None), None
        return row

    def _decoded(self, line: bytes) -> Any:
        try:
            row = self._decoder.decode(line)
            shape: tuple[bool, ...] = WHOLE
        except msgspec.DecodeError:
            values = self._mapping(line)
            shape = tuple(values.get(key) is not None for key in HASHED)
            row = self._from_mapping(values if shape[-1] or self._shape == WHOLE else self._completed(values))
        self._shape = self._shape or shape
        if shape != self._shape:
            odd = [key for key, present, usual in zip(HASHED, shape, self._shape, strict=True) if present != usual]
            verb = "lacks" if self._shape[HASHED.index(odd[0])] else "has"
            raise self._error(f"{verb} {', '.join(odd)}, unlike the rows before it: it is damaged")
        return row

    def _mapping(self, line: bytes) -> dict[str, Any]:
        """A row as Python's JSON reads it: with NaN and infinity, which lm-eval writes, or with all its fields."""
        try:
            values = json.loads(line)
        except ValueError:
            raise self._error(
                "is not JSON; the file is damaged or was cut off. Copy it again, or evaluate again."
            ) from None
        if not isinstance(values, dict) or not isinstance(values.get("doc", {}), dict):
            raise self._error("is not an lm-eval sample")
        return values

    def _from_mapping(self, values: dict[str, Any]) -> Any:
        doc, resps = values.get("doc", {}), json.dumps(values.get("resps", []))
        fields = {f"field{i}": doc.get(name) for i, name in enumerate(self.codes)}
        scores = {f"metric{i}": values[name] for i, name in enumerate(self._metrics) if name in values}
        named = {name: values[name] for name in PLAIN if name in values}
        arguments = values.get("arguments")
        row = self._decoder.type(
            **{name: named.pop(name, None) for name in HASHED},
            **named,
            **scores,
            doc=self._document(**fields),
            resps=msgspec.Raw(resps.encode()),
            arguments=arguments if isinstance(arguments, list | dict) else None,
        )
        if not isinstance(row.doc_hash, str) or not isinstance(row.prompt_hash, str):
            raise self._error("has a missing or damaged doc_hash or prompt_hash: not an lm-eval sample")
        if not isinstance(row.metrics, list) or not all(isinstance(name, str) for name in row.metrics):
            raise self._error("has damaged metrics: not an lm-eval sample")
        if not isinstance(row.filter, str) or not isinstance(row.repeat, int | None):
            raise self._error("has a damaged filter or repeat: not an lm-eval sample")
        return row

    def _completed(self, values: dict[str, Any]) -> dict[str, Any]:
        """A row of lm-eval before 0.4.8, which named neither metrics nor filter, and before 0.4.3 had no hashes."""
        metrics = [name for name, value in values.items() if name not in KNOWN and isinstance(value, int | float)]
        doc = json.dumps(values.get("doc"), indent=2, ensure_ascii=False, default=str)
        hashes = {
            "doc_hash": _sha256(doc),
            "prompt_hash": _sha256(prompt_of(values)),
            "target_hash": _sha256(str(values.get("target"))),
        }
        completed = {**hashes, **values, "metrics": metrics}
        if "filter" not in values and self._filters:
            lines = self._lines_of_item.setdefault(completed["doc_hash"], [])
            lines += [self.number] if self.number not in lines else []  # a row may be decoded twice
            completed["filter"] = self._filters[min(lines.index(self.number), len(self._filters) - 1)]
        return completed

    def _error(self, what: str) -> EvidenceFault:
        return EvidenceFault(f"{self.path} line {self.number} {what}")


@dataclass(frozen=True)
class Samples:
    """Columns by metric (`metric,filter` for any filter but none), and the sha256 of the file's bytes."""

    columns: dict[str, Column]
    sha256: str


def read_samples(path: Path, fields: Sequence[str], filters: Sequence[str] = ()) -> Samples:
    """The columns of a file, with the document fields `fields` as codes.

    `filters` are the task's, in order, for old files whose rows do not name their filter.
    Raises EvidenceFault for a damaged or repeated item, and for text that is not UTF-8.
    """
    reader = _Reader(path, fields, filters)
    try:
        sha256 = reader.read()
    except UnicodeDecodeError as error:
        raise EvidenceFault(f"{path} is not UTF-8 text ({error}); the file is damaged") from None
    except ValueError as error:
        raise EvidenceFault(f"{path} line {reader.number} is not an lm-eval sample: {error}") from None
    names = {name: list(codes) for name, codes in reader.codes.items()}
    columns = {
        key: column for filter_, rows in reader.rows.items() for key, column in columns_of(path, filter_, rows, names)
    }
    return Samples(columns, sha256)


def _is_text(*names: str) -> bool:
    """Whether all names can be written as UTF-8: half of a surrogate pair cannot."""
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        return False
    return True


def _responses(raw: msgspec.Raw) -> int:
    """How often an item was answered: lm-eval keeps a list of answers for each request."""
    try:
        requests = msgspec.json.decode(raw, type=list[list[msgspec.Raw]])
    except msgspec.DecodeError:
        return 1
    return max(map(len, requests), default=1)


def _value(raw: Any, responses: Any) -> float | None:
    """The item's number, or the mean of a list with a number for each repeated response; None for anything else."""
    if isinstance(raw, int | float):
        return float(raw)
    if isinstance(raw, list) and len(raw) > 1 and all(isinstance(one, int | float) for one in raw):
        requests = json.loads(bytes(responses))
        if isinstance(requests, list) and len(requests) == 1 and isinstance(requests[0], list):
            return float(sum(raw) / len(raw)) if len(requests[0]) == len(raw) else None
    return None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
