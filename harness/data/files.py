"""Reads JSON, JSON lines, CSV, TSV and Parquet files record by record. Memory holds a few records, never a file."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from harness.core.console import plural
from harness.core.errors import DataError
from harness.data.dialect import SAMPLE, dialect_of, encoding_of, shown_names

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


@dataclass(frozen=True)
class TableOptions:
    """What is configured of a table; None: found."""

    fields: Sequence[str] = ()
    delimiter: str | None = None
    encoding: str | None = None


def read_records(
    path: Path, header_names: set[str], options: TableOptions = TableOptions(), said: list[str] | None = None
) -> Iterator[SourceRecord]:
    """The records of a file in order. `header_names` and `options` only matter for CSV and TSV (see `_table`).

    `said` receives what was found out about the file: its encoding, its delimiter.
    Raises DataError when the file as a whole cannot be read.
    """
    kind = kind_of(path)
    found = said if said is not None else []
    try:
        sample = _sample(path)
        _require_data(path, sample)
        if kind == ".parquet":
            yield from _parquet(path)
            return
        encoding, word = (options.encoding, "") if options.encoding else encoding_of(path, sample)
        if word:
            found.append(f"{path.name}: read as {word}")
        if kind in (".csv", ".tsv"):
            yield from _table(path, kind, header_names, options, encoding, found)
        elif kind == ".json" or sample.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
            yield from _json(path, encoding)
        else:
            yield from _json_lines(path, encoding)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}. Fetch it again; if it is not compressed, remove .gz.") from None
    except UnicodeError as error:
        raise DataError(
            f"{path} is damaged, or is not the text that it seems ({error}). Fetch it again, or name its encoding: "
            "data.sources.<name>.csv.encoding=utf-16"
        ) from None
    except LookupError:
        raise DataError(
            f"{path}: there is no encoding {options.encoding!r}; name one such as cp1252 or utf-16"
        ) from None


def _sample(path: Path) -> bytes:
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; fetch it again, or leave the source out")
    with _open(path) as file:
        return file.read(SAMPLE)


def _require_data(path: Path, sample: bytes) -> None:
    """Raises DataError for a file that stands in place of the data."""
    head = sample[:300].lstrip().lower()
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise DataError(f"{path} is a Git LFS pointer, not the data. Fetch the file: git lfs pull")
    if head.startswith((b"<!doctype html", b"<html")):
        raise DataError(f"{path} is a web page, not data: the download needed a sign-in, or failed. Fetch it again.")


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _open_text(path: Path, encoding: str) -> IO[str]:
    """As text. Bytes that are not of the encoding become lone surrogates, so that only their row is malformed."""
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    return io.TextIOWrapper(_open(path), encoding=encoding, errors=errors, newline="")


def _json_lines(path: Path, encoding: str) -> Iterator[SourceRecord]:
    if not encoding.startswith("utf-8"):
        with _open_text(path, encoding) as text:
            for number, line in enumerate(text, 1):
                if line.strip():
                    yield _json_line(f"line {number}", line.rstrip("\r\n").encode())
        return
    with _open(path) as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
                if raw.strip() == b"{":  # objects over several lines, one after the other
                    yield from _json(path, encoding)
                    return
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


def _json(path: Path, encoding: str) -> Iterator[SourceRecord]:
    """A list of objects, an object that holds one such list, objects one after the other, or JSON lines."""
    with _open_text(path, encoding) as file:
        head = file.read(_CHUNK).lstrip()
        if head.startswith("["):
            yield from _list_items(path, file, head[1:])
            return
    first, _, rest = head.partition("\n")
    if rest.strip() and _is_object(first):
        yield from _json_lines(path, encoding)
        return
    with _open_text(path, encoding) as file:
        yield from _whole(path, file.read())


def _whole(path: Path, text: str) -> Iterator[SourceRecord]:
    """One value, or several objects one after the other."""
    decoder, values, at = json.JSONDecoder(), [], len(text) - len(text.lstrip())
    try:
        while at < len(text):
            value, at = decoder.raw_decode(text, at)
            values.append(value)
            at += len(text[at:]) - len(text[at:].lstrip())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}. Correct it there, or fetch it again.") from None
    if len(values) == 1 and isinstance(values[0], dict):
        lists = [v for v in values[0].values() if isinstance(v, list)]
        if len(lists) == 1 and lists[0] and all(isinstance(v, dict) for v in lists[0]) and not _is_row(values[0]):
            values = lists[0]
    for number, row in enumerate(values, 1):
        yield _object(f"row {number}", row)


def _is_row(values: Mapping[str, Any]) -> bool:
    """Whether an object is a row of its own, although it holds a list of objects (the turns)."""
    return bool({"messages", "conversations", "conversation", "chosen", "prompt", "instances"} & set(values))


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
    path: Path, kind: str, header_names: set[str], options: TableOptions, encoding: str, said: list[str]
) -> Iterator[SourceRecord]:
    """CSV or TSV, whose delimiter and quoting are found. In unquoted TSV, \\n and \\t mean line end and tab.

    Columns are named by the header, or by the configured `fields` for a file without one; no header is guessed.
    """
    csv.field_size_limit(1 << 30)
    with _open_text(path, encoding) as file:
        text = file.read(SAMPLE)
    dialect = dialect_of(path, text, kind == ".tsv", header_names, options.delimiter)
    said += [f"{path.name}: {one}" for one in dialect.said]
    escaped = kind == ".tsv" and not dialect.quoted
    with _open_text(path, encoding) as file:
        for _ in range(dialect.skip):
            file.readline()
        quoting: Any = csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE
        reader = csv.reader(file, delimiter=dialect.delimiter, quoting=quoting, strict=dialect.quoted)
        names, count = list(options.fields), 0
        for cells in _lines(reader):
            if isinstance(cells, SourceRecord):
                yield cells
                continue
            if not any(cells):
                continue
            if not names:
                names = _header(path, cells, header_names, dialect.delimiter)
                continue
            if not count and [cell.strip().lower() for cell in cells] == [name.lower() for name in names]:
                said.append(f"{path.name}: the first line is the header that `fields` names; it is not a row")
                continue
            count += 1
            yield _cells(f"line {reader.line_num + dialect.skip}", names, cells, escaped)
        if not count and not options.fields:
            raise DataError(f"{path} has a header and no rows; fetch it again, or leave the source out")


def _lines(reader: Any) -> Iterator[list[str] | SourceRecord]:
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield SourceRecord(f"line {reader.line_num}", None, f"not CSV: {error}")


def _header(path: Path, cells: Sequence[str], known: set[str], delimiter: str) -> list[str]:
    """The names of the columns. Raises DataError for a first line that is not known to be a header."""
    names = [cell.strip() for cell in cells]
    by_lower = {name.lower(): name for name in known}
    read = [name if name in known else by_lower.get(name.lower(), name) for name in names]
    shown = shown_names(names)
    if twice := sorted({name for name in read if name and read.count(name) > 1}):
        raise DataError(f"{path}: the header ({shown}) has the column {twice[0]} more than once; rename one of them")
    if known & set(read):
        return read
    first, last = (name[:30] or "…" for name in (names[0], names[-1]))
    raise DataError(
        f"{path}: the first line has no known column ({shown}; separated by {delimiter!r}). If it is a header, say "
        f"which column is which: data.sources.<name>.columns={{instruction: {first}, output: {last}}}. If it is a row, "
        "name the columns: data.sources.<name>.fields=[instruction, output]."
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
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{path} is not a readable Parquet file: {reason}. Fetch it again.") from None


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:SHOWN].encode(errors="replace").decode()
