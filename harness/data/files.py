"""Reads JSON, JSON lines, CSV, TSV, Excel, Parquet and Arrow files record by record. Memory holds a few records."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, AnyStr

from harness.core.console import plural
from harness.core.errors import DataError
from harness.data.dialect import SAMPLE, dialect_of, encoding_of, shown_names
from harness.data.opening import COMPRESSED, DAMAGED, member_of, open_bytes, suffix_of
from harness.data.workbook import sheet_rows

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".xlsx", ".xlsm", ".parquet", ".arrow", ".feather")
SHOWN = 500
LONGEST_LINE = 1 << 26  # bytes of a line, or characters of a cell: more is damage, and would fill the memory
LARGEST_VALUE = 1 << 30  # characters of a JSON file that is neither a list nor lines
_CHUNK = 1 << 20
_BETWEEN = re.compile(r"[\s,]*")
_SPACE = re.compile(r"\s*")


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
    return suffix_of(path.name) in SUFFIXES or path.name.lower().endswith(".zip")


def kind_of(path: Path) -> str:
    """The suffix that decides how a file is read. Raises DataError for an archive whose file is of no such kind."""
    kind = suffix_of(member_of(path)) if path.suffix.lower() == ".zip" else suffix_of(path.name)
    if kind not in SUFFIXES:
        raise DataError(f"{path} holds {member_of(path)}, which does not end in {', '.join(SUFFIXES)}")
    if kind in (".xlsx", ".xlsm", ".parquet", ".arrow", ".feather") and path.suffix.lower() in COMPRESSED:
        raise DataError(f"{path}: {kind} files are compressed inside; unpack it, and name the unpacked file")
    return kind


@dataclass(frozen=True)
class TableOptions:
    """What is configured of a table; None: found."""

    fields: Sequence[str] = ()
    delimiter: str | None = None
    encoding: str | None = None
    sheet: str | None = None


def read_records(
    path: Path, header_names: set[str], options: TableOptions = TableOptions(), said: list[str] | None = None
) -> Iterator[SourceRecord]:
    """The records of a file in order. `header_names` and `options` only matter for CSV and TSV (see `_table`).

    `said` receives what was found out about the file: its encoding, its delimiter.
    Raises DataError when the file as a whole cannot be read.
    """
    found = said if said is not None else []
    try:
        kind = kind_of(path)
        sample = _sample(path)
        _require_data(path, sample)
        if kind in (".parquet", ".arrow", ".feather"):
            yield from _columnar(path, kind)
            return
        if kind in (".xlsx", ".xlsm"):
            yield from _sheet(path, header_names, options, found)
            return
        encoding, word = (options.encoding, "") if options.encoding else encoding_of(path, sample)
        if word:
            found.append(f"{path.name}: read as {word}")
        if kind in (".csv", ".tsv"):
            yield from _table(path, kind, header_names, options, encoding, found)
        elif kind == ".json" or sample.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
            yield from _json(path, encoding, found)
        else:
            yield from _json_lines(path, encoding, found)
    except DAMAGED as error:
        raise DataError(f"{path} is damaged: {error}. Fetch it again; if it is not compressed, rename it.") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise DataError(f"{path} is damaged: {error}. Fetch it again; if it is not compressed, rename it.") from None
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
    with open_bytes(path) as file:
        return file.read(SAMPLE)


def _require_data(path: Path, sample: bytes) -> None:
    """Raises DataError for a file that stands in place of the data."""
    head = sample[:300].lstrip().lower()
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise DataError(f"{path} is a Git LFS pointer, not the data. Fetch the file: git lfs pull")
    if head.startswith((b"<!doctype html", b"<html")):
        raise DataError(f"{path} is a web page, not data: the download needed a sign-in, or failed. Fetch it again.")


def _open_text(path: Path, encoding: str) -> IO[str]:
    """As text. Bytes that are not of the encoding become lone surrogates, so that only their row is malformed."""
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, errors=errors, newline="")


def _json_lines(path: Path, encoding: str, said: list[str]) -> Iterator[SourceRecord]:
    if not encoding.startswith("utf-8"):
        with _open_text(path, encoding) as text:
            for number, line in enumerate(_lines_of(path, text), 1):
                if line.strip():
                    yield _json_line(f"line {number}", line.rstrip("\r\n").encode())
        return
    with open_bytes(path) as file:
        for number, raw in enumerate(_lines_of(path, file), 1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
                if raw.strip() == b"{":  # objects over several lines, one after the other
                    yield from _json(path, encoding, said)
                    return
            if raw.strip():
                yield _json_line(f"line {number}", raw.removesuffix(b"\n"))


def _lines_of(path: Path, file: IO[AnyStr]) -> Iterator[AnyStr]:
    """The lines. Raises DataError for one without an end."""
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise DataError(
                f"{path} line {number}: longer than {LONGEST_LINE >> 20} MiB, so these are not JSON lines. Write one "
                "record on each line, or a JSON list into a file that ends in .json"
            )
        yield line


class _Decoder(json.JSONDecoder):
    """A JSON decoder that notices a key with two values in one object; Python would keep the last."""

    def __init__(self) -> None:
        self.twice: list[str] = []
        super().__init__(object_pairs_hook=self._object)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            self.twice += [key for key, value in pairs if value != values[key]]
        return values

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        self.twice.clear()
        try:
            return super().raw_decode(s, idx)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None

    def record(self, where: str, values: Any, text: str = "") -> SourceRecord:
        """What was decoded last, as the record at this place."""
        if self.twice:
            return SourceRecord(where, None, f"the key {self.twice[0]!r} has two values", text or _shown(values))
        if isinstance(values, dict):
            return SourceRecord(where, values, text=text)
        return SourceRecord(where, None, "not a JSON object", text or _shown(values))


_DECODER = _Decoder()


def _json_line(where: str, raw: bytes) -> SourceRecord:
    text = raw[:SHOWN].decode(errors="replace")
    try:
        values = _DECODER.decode(raw.decode())
    except UnicodeDecodeError as error:
        return SourceRecord(where, None, f"not UTF-8 text: {error}", text)
    except ValueError as error:
        return SourceRecord(where, None, f"not JSON: {error}", text)
    return _DECODER.record(where, values, text)


def _json(path: Path, encoding: str, said: list[str]) -> Iterator[SourceRecord]:
    """A list of objects, an object that holds one such list, objects one after the other, or JSON lines."""
    with _open_text(path, encoding) as file:
        head = file.read(_CHUNK).lstrip()
        if head.startswith("["):
            yield from _list_items(path, file, head[1:])
            return
    first, _, rest = head.partition("\n")
    if rest.strip() and _is_object(first):
        yield from _json_lines(path, encoding, said)
        return
    with _open_text(path, encoding) as file:
        text = file.read(LARGEST_VALUE + 1)
    if len(text) > LARGEST_VALUE:
        raise DataError(f"{path} is too large for one JSON object: write a JSON list, or one record on each line")
    yield from _whole(path, text, said)


def _whole(path: Path, text: str, said: list[str]) -> Iterator[SourceRecord]:
    """One value, or several objects one after the other."""
    decoder, at = _Decoder(), _SPACE.match(text).end()  # type: ignore[union-attr]
    records: list[SourceRecord] = []
    try:
        while at < len(text):
            value, at = decoder.raw_decode(text, at)
            records.append(decoder.record(f"row {len(records) + 1}", value))
            at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}. Correct it there, or fetch it again.") from None
    values = records[0].values if len(records) == 1 else None
    if values is not None and not _is_row(values):
        lists = {key: v for key, v in values.items() if isinstance(v, list)}
        key = next(iter(lists), "")
        if len(lists) == 1 and lists[key] and all(isinstance(v, dict) for v in lists[key]):
            beside = [repr(other) for other in values if other != key]
            said.append(
                f"{path.name}: the rows are the list {key!r}"
                + (f"; beside it, {', '.join(beside)[:200]} is not read" if beside else "")
            )
            records = [SourceRecord(f"row {number}", row) for number, row in enumerate(lists[key], 1)]
    yield from records


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
    decoder = _Decoder()
    number = at = 0
    while True:
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        if text.startswith("]", at):
            if rest := (text[at + 1 :] + file.read()).strip():
                raise DataError(f"{path} is damaged: its list of {plural(number, 'row')} is followed by {rest[:60]!r}")
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError as error:
            more = file.read(max(_CHUNK, len(text) - at)) if len(text) - at < LARGEST_VALUE else ""
            if not more:
                raise DataError(f"{path} is damaged: row {number + 1} is not JSON: {error}") from None
            text, at = text[at:] + more, 0
            continue
        number += 1
        yield decoder.record(f"row {number}", value)


def _table(
    path: Path, kind: str, header_names: set[str], options: TableOptions, encoding: str, said: list[str]
) -> Iterator[SourceRecord]:
    """CSV or TSV, whose delimiter and quoting are found. In unquoted TSV, \\n and \\t mean line end and tab.

    Columns are named by the header, or by the configured `fields` for a file without one; no header is guessed.
    """
    csv.field_size_limit(LONGEST_LINE)
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


def _sheet(path: Path, header_names: set[str], options: TableOptions, said: list[str]) -> Iterator[SourceRecord]:
    names, count = list(options.fields), 0
    for row in sheet_rows(path, options.sheet, said):
        if not names:
            names = _header(path, row.cells, header_names, "columns")
            continue
        count += 1
        where = f"row {row.number}"
        if row.reason:
            yield SourceRecord(where, None, row.reason, _shown(row.cells))
            continue
        yield _cells(where, names, row.cells + [""] * (len(names) - len(row.cells)), False)
    if not count and not options.fields:
        raise DataError(f"{path} has a header and no rows; name another sheet, or leave the source out")


def _columnar(path: Path, kind: str) -> Iterator[SourceRecord]:
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    try:
        batches: Any
        if kind == ".parquet":
            batches = pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1000)
        else:
            with path.open("rb") as file:
                is_file = file.read(6) == b"ARROW1"
            opened = pyarrow.ipc.open_file(path) if is_file else pyarrow.ipc.open_stream(pyarrow.memory_map(str(path)))
            batches = (opened.get_batch(n) for n in range(opened.num_record_batches)) if is_file else iter(opened)
        number = 0
        for batch in batches:
            for values in batch.to_pylist():
                number += 1
                yield SourceRecord(f"row {number}", values)
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{path} is not a readable {kind[1:].capitalize()} file: {reason}. Fetch it again.") from None


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:SHOWN].encode(errors="replace").decode()
