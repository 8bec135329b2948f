"""Reads JSON, JSON lines, CSV, TSV and Parquet files record by record. Memory holds a few records, never a file."""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from harness.core.console import plural
from harness.core.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
SHOWN = 500
_CHUNK = 1 << 20
_BETWEEN = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class SourceRecord:
    """What is at one place of a file."""

    where: str
    """Such as `line 3` or `row 7`."""

    values: Mapping[str, Any] | None
    """None where the place cannot be read."""

    reason: str = ""
    """Why it cannot be read."""

    text: str = ""
    """Its first SHOWN characters, where the values do not show them."""


def is_readable(path: Path) -> bool:
    return kind_of(path) in SUFFIXES


def kind_of(path: Path) -> str:
    """The suffix that decides how a file is read, with `.gz` ignored."""
    name = path.name.lower().removesuffix(".gz")
    return name[name.rfind(".") :] if "." in name else ""


def read_records(
    path: Path, header_names: set[str], fields: Sequence[str] = (), delimiter: str = ","
) -> Iterator[SourceRecord]:
    """The records of a file in order. The other arguments only matter for CSV and TSV (see `_table`).

    Raises DataError when the file as a whole cannot be read.
    """
    kind = kind_of(path)
    try:
        if kind == ".parquet":
            yield from _parquet(path)
        elif kind in (".csv", ".tsv"):
            yield from _table(path, kind, header_names, fields, delimiter)
        elif kind == ".json":
            yield from _json(path)
        else:
            yield from _json_lines(path)
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged: {error}") from None


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _open_text(path: Path) -> IO[str]:
    """As text. Bytes that are not UTF-8 become lone surrogates, so that only their row is malformed, not the file."""
    return io.TextIOWrapper(_open(path), encoding="utf-8-sig", errors="surrogateescape", newline="")


def _json_lines(path: Path) -> Iterator[SourceRecord]:
    with _open(path) as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if raw.strip():
                yield _json_line(f"line {number}", raw.removesuffix(b"\n"))


def _json_line(where: str, raw: bytes) -> SourceRecord:
    text = raw[:SHOWN].decode(errors="replace")
    try:
        values = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        return SourceRecord(where, None, f"not UTF-8 text: {error}", text)
    except (ValueError, RecursionError) as error:
        return SourceRecord(where, None, f"not JSON: {error}", text)
    return _object(where, values, text)


def _object(where: str, values: Any, text: str = "") -> SourceRecord:
    if isinstance(values, dict):
        return SourceRecord(where, values, text=text)
    return SourceRecord(where, None, "not a JSON object", text or _shown(values))


def _json(path: Path) -> Iterator[SourceRecord]:
    """A list of objects, an object that holds one such list, or JSON lines under another name."""
    with _open_text(path) as file:
        head = file.read(_CHUNK).lstrip()
        if head.startswith("["):
            yield from _list_items(path, file, head[1:])
            return
    first, _, rest = head.partition("\n")
    if rest.strip() and _is_object(first):
        yield from _json_lines(path)
        return
    with _open_text(path) as file:
        yield from _whole(path, file.read())


def _whole(path: Path, text: str) -> Iterator[SourceRecord]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    lists = [v for v in value.values() if isinstance(v, list)] if isinstance(value, dict) else []
    rows = lists[0] if len(lists) == 1 and all(isinstance(v, dict) for v in lists[0]) else [value]
    for number, row in enumerate(rows, 1):
        yield _object(f"row {number}", row)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _list_items(path: Path, file: IO[str], text: str) -> Iterator[SourceRecord]:
    """The elements of a JSON list after its opening bracket. The rest of the file is read as it is needed."""
    # Not ijson: it is twice as fast, but reads a lone surrogate as '?', and fails on the file for one NaN or bad byte.
    decoder = json.JSONDecoder()
    number = at = 0
    while True:
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        if text.startswith("]", at):
            if rest := (text[at + 1 :] + file.read()).strip():
                raise DataError(f"{path} is damaged: its list of {plural(number, 'row')} is followed by {rest[:60]!r}")
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            more = file.read(max(_CHUNK, len(text) - at))
            if not more:
                raise DataError(f"{path} is damaged: row {number + 1} is not JSON: {error}") from None
            text, at = text[at:] + more, 0
            continue
        number += 1
        yield _object(f"row {number}", value)


def _table(
    path: Path, kind: str, header_names: set[str], fields: Sequence[str], delimiter: str
) -> Iterator[SourceRecord]:
    """CSV as in RFC 4180 with any delimiter; TSV without quoting, where \\n and \\t in a cell mean line end and tab.

    Columns are named by `fields`, else by a first line that holds a known name, else in FLAN's order.
    """
    csv.field_size_limit(1 << 30)
    tabs = kind == ".tsv"
    with _open_text(path) as file:
        quoting: Any = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
        reader = csv.reader(file, delimiter="\t" if tabs else delimiter, quoting=quoting, strict=not tabs)
        names = list(fields)
        for cells in _lines(reader):
            if isinstance(cells, SourceRecord):
                yield cells
                continue
            if not any(cells):
                continue
            if not names:
                names, is_header = _header(path, cells, header_names)
                if is_header:
                    continue
            yield _cells(f"line {reader.line_num}", names, cells, tabs)


def _lines(reader: Any) -> Iterator[list[str] | SourceRecord]:
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield SourceRecord(f"line {reader.line_num}", None, f"not CSV: {error}")


def _header(path: Path, cells: Sequence[str], known: set[str]) -> tuple[list[str], bool]:
    if known & {cell.strip() for cell in cells}:
        return [cell.strip() for cell in cells], True
    lower = [cell.strip().lower() for cell in cells]
    if {name.lower() for name in known} & set(lower):
        raise DataError(
            f"{path}: the header ({', '.join(cells)[:200]}) has known names, but in other upper and lower case. "
            "Map them: data.sources.<name>.columns={instruction: …, output: …}."
        )
    if len(cells) in (2, 3):
        return ["question", "answer", "rationale"][: len(cells)], False
    if len(cells) == 1 and (sign := next((sign for sign in ";\t|" if sign in cells[0]), None)):
        raise DataError(
            f"{path}: the columns seem to be separated by {sign!r} ({cells[0][:200]}). "
            f"If so: data.sources.<name>.delimiter={sign!r}."
        )
    raise DataError(
        f"{path}: the first line has no known column ({', '.join(cells)[:200]}). If it is a header, map its names: "
        "data.sources.<name>.columns={instruction: …, output: …}; if it is a row, name the columns: "
        "data.sources.<name>.fields=[instruction, output]."
    )


def _cells(where: str, names: Sequence[str], cells: Sequence[str], tabs: bool) -> SourceRecord:
    if len(cells) != len(names):
        return SourceRecord(where, None, f"{plural(len(cells), 'cell')} instead of {len(names)}", _shown(cells))
    texts = [c.replace("\\n", "\n").replace("\\t", "\t") for c in cells] if tabs else cells
    return SourceRecord(where, dict(zip(names, texts, strict=True)))


def _parquet(path: Path) -> Iterator[SourceRecord]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=1000):
            for values in batch.to_pylist():
                number += 1
                yield SourceRecord(f"row {number}", values)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {' '.join(str(error).split())}") from None


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:SHOWN].encode(errors="replace").decode()
