"""Reads a sheet of an Excel workbook as rows of texts, as a person sees them."""

import datetime
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.console import plural
from harness.core.errors import DataError, MissingDependency


@dataclass(frozen=True)
class SheetRow:
    number: int
    """As Excel counts, from 1."""

    cells: list[str]

    reason: str = ""
    """Why the row cannot be read; '' where it can."""


def sheet_rows(path: Path, sheet: str | None, said: list[str]) -> Iterator[SheetRow]:
    """The rows of a sheet that hold anything. `sheet` names one; None: the only one that holds anything.

    A formula counts with the value that Excel stored. Raises DataError for a damaged file, and where the sheet is not
    the only one or does not exist.
    """
    try:
        import openpyxl
        from openpyxl.utils.exceptions import InvalidFileException
    except ModuleNotFoundError:
        raise MissingDependency("openpyxl", f"the workbook {path.name}", "data") from None
    try:
        values: Any = openpyxl.load_workbook(path, data_only=True)
        formulas: Any = openpyxl.load_workbook(path)
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, EOFError, SyntaxError) as error:
        raise DataError(
            f"{path} is not a readable Excel workbook ({' '.join(str(error).split())[:200]}). Open it in Excel, and "
            "save it as .xlsx or CSV."
        ) from None
    name = _sheet_name(path, values, sheet)
    page = values[name]
    merged = {row: str(span) for span in page.merged_cells.ranges for row in range(span.min_row, span.max_row + 1)}
    hidden = 0
    for cells, written in zip(page.iter_rows(), formulas[name].iter_rows(), strict=True):
        number = cells[0].row
        texts = [_text(cell.value) for cell in cells]
        while texts and not texts[-1]:
            texts.pop()
        reason = _unreadable(cells, written)
        if number in merged and (texts or reason):
            reason = f"it has merged cells ({merged[number]}), whose value belongs to one row only: unmerge them"
        if texts or reason:
            hidden += bool(page.row_dimensions[number].hidden)
            yield SheetRow(number, texts, reason)
    said.append(f"{path.name}: sheet {name!r} is read")
    if hidden:
        said.append(f"{path.name}: {plural(hidden, 'hidden row')} of the sheet read too")


def _sheet_name(path: Path, book: Any, sheet: str | None) -> str:
    filled = [page.title for page in book.worksheets if any(cell is not None for cell in _values(page))]
    shown = ", ".join(map(repr, filled))[:300] or "none with rows"
    if sheet is not None and sheet not in book.sheetnames:
        raise DataError(f"{path} has no sheet {sheet!r}; its sheets: {shown} (data.sources.<name>.csv.sheet)")
    if sheet is None and len(filled) != 1:
        raise DataError(
            f"{path} has {len(filled)} sheets with rows ({shown}); say which one is meant: "
            f"data.sources.<name>.csv.sheet={filled[0] if filled else '<sheet>'}"
        )
    return sheet if sheet is not None else str(filled[0])


def _values(page: Any) -> Iterator[Any]:
    for row in page.iter_rows(values_only=True):
        yield from row


def _unreadable(cells: Any, written: Any) -> str:
    for cell, formula in zip(cells, written, strict=True):
        if formula.data_type == "f" and cell.value is None:
            return f"cell {cell.coordinate} has a formula without a stored value: open the file in Excel, and save it"
        if cell.data_type == "e":
            return f"cell {cell.coordinate} holds the error {cell.value}"
    return ""


def _text(value: Any) -> str:
    """A cell as a person sees it: 1.0 as 1, and a date in ISO form, without the time where that is midnight."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(sep=" ")
    if isinstance(value, bool):
        return str(value).upper()
    return str(value)
