"""Finds how a text file is written: its encoding, and of a table the delimiter, the quoting and the header."""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import DataError

DELIMITERS = (",", ";", "\t", "|")
SAMPLE = 1 << 20  # bytes
LINES = 200
# Letters of western languages and the signs that word processors write; other bytes mean another encoding.
_WESTERN = set("äöüßÄÖÜéèêëàâáãåçñóòôõúùûíìîïæøœÉÈÊÀÂÁÃÅÇÑÓÒÔÕÚÙÛÍÌÎÏÆØŒ€‚„…‰‹›“”‘’–—•™©®°§´`¿¡«»£¢¥±²³¼½¾×·µ \xa0")


@dataclass(frozen=True)
class Dialect:
    """How a table is written. `said` names what differs from a comma-separated file in UTF-8, for a person to read."""

    delimiter: str
    quoted: bool
    skip: int
    """Lines before the header, such as Excel's `sep=;`."""

    said: tuple[str, ...] = ()


def encoding_of(path: Path, sample: bytes) -> tuple[str, str]:
    """(encoding, what to say of it) of a text file, from its first bytes; UTF-8 needs no word.

    Raises DataError where the bytes are of no encoding that can be told.
    """
    if sample.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32", "UTF-32"
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", "UTF-16"
    if sample.startswith(codecs.BOM_UTF8):
        return "utf-8-sig", ""
    half = sample[: len(sample) // 2 * 2]
    if len(half) >= 8:  # without a mark: every second byte of plain text is zero
        zeros = [half[i::2].count(0) / (len(half) / 2) for i in (0, 1)]
        if max(zeros) > 0.4 and min(zeros) < 0.05:
            return ("utf-16-be", "UTF-16") if zeros[0] > zeros[1] else ("utf-16-le", "UTF-16")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return _single_byte(path, sample)
    return "utf-8-sig", ""


def _single_byte(path: Path, sample: bytes) -> tuple[str, str]:
    """An older encoding of text that is not UTF-8. A few odd bytes are damage of their lines, not another encoding."""
    damaged = sample.decode("utf-8", "replace").count("\ufffd")
    wide = sum(byte >= 0x80 for byte in sample)
    if damaged * 4 < wide:
        return "utf-8-sig", ""
    try:
        western = sample.decode("cp1252")
    except UnicodeDecodeError:
        western = ""
    if western and sum(sign in _WESTERN for sign in western if ord(sign) > 127) >= 0.95 * wide and damaged > 1:
        return "cp1252", "Windows-1252"
    if damaged < 3:
        return "utf-8-sig", ""
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    if best is None or best.encoding in ("ascii", "utf_8"):
        raise DataError(
            f"{path} is not UTF-8 text, and its encoding cannot be told. Save it as UTF-8, or name the encoding: "
            "data.sources.<name>.csv.encoding=cp1252"
        )
    return best.encoding, best.encoding


def dialect_of(path: Path, text: str, tabs: bool, known: set[str], given: str | None) -> Dialect:
    """The dialect of a table from its beginning. `known` are column names that tell a header, `given` a set delimiter.

    Of delimiters that split the lines alike, the one counts whose first line has known names, then the commonest.
    """
    said: list[str] = []
    skip = 0
    first = text.split("\n", 1)[0].strip().strip('"')
    if first.lower().startswith("sep=") and len(first) == 5:
        skip, given = 1, given or first[4]
        text = text.split("\n", 1)[1] if "\n" in text else ""
    candidates = [given] if given else ["\t"] if tabs else list(DELIMITERS)
    lower = {name.lower() for name in known}
    best, quality = candidates[0], (-1, -1.0, -1)
    for delimiter in candidates:
        rows = _rows(text, delimiter, quoted=True) or _rows(text, delimiter, quoted=False)
        if not rows:
            continue
        names = sum(cell.strip().lower() in lower for cell in rows[0])
        width, alike = Counter(map(len, rows)).most_common(1)[0]
        score = (names if width > 1 else min(names, 1), alike / len(rows) if width > 1 else 0.0, width)
        if score > quality:
            best, quality = delimiter, score
    if best != ("\t" if tabs else ",") and not given:
        said.append(f"columns separated by {best!r}")
    return Dialect(best, _is_quoted(text, best, tabs), skip, tuple(said))


def _rows(text: str, delimiter: str, quoted: bool, most: int = LINES) -> list[list[str]]:
    """The first rows; [] where they cannot be read so. The text may end in the middle of a row."""
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=quoted)
    rows: list[list[str]] = []
    try:
        for row in reader:
            if any(row):
                rows.append(row)
            if len(rows) == most:
                break
    except csv.Error as error:
        return rows if "unexpected end" in str(error) and len(text) >= SAMPLE - 4 else []
    return rows


def _is_quoted(text: str, delimiter: str, tabs: bool) -> bool:
    """Whether quotes around a cell are quoting, as csv and pandas write it, and not part of the text."""
    plain = _rows(text, delimiter, quoted=False, most=SAMPLE)
    if not any(cell.startswith('"') for row in plain for cell in row):
        return not tabs
    read = _rows(text, delimiter, quoted=True, most=SAMPLE)
    if not read:
        return False
    if not tabs:
        return True  # RFC 4180
    width = Counter(map(len, plain)).most_common(1)[0][0]
    cells = [cell for row in plain if len(row) == width for cell in row if cell.startswith('"')]
    return len({len(row) for row in read}) == 1 and all(cell.rstrip("\r").endswith('"') for cell in cells)


def shown_names(names: Sequence[str]) -> str:
    return ", ".join(names)[:200]
