"""The audit's files of rows: Parquet for the stages that follow, JSON lines for people and other tools."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.data.row import COLUMNS, DataRow

TRAIN, VALIDATION, QUARANTINE = "train.parquet", "validation.parquet", "quarantine.parquet"
_AT_ONCE = 2000


def write_parquet(rows: Iterable[DataRow], path: Path, lists: tuple[str, ...] = ()) -> tuple[int, str]:
    """Writes the rows; returns their number and the SHA-256 of their columns in this order.

    `lists` names further columns that hold lists of texts. They are not part of the digest.
    """
    import pyarrow
    import pyarrow.parquet

    text = [(column, pyarrow.string()) for column in COLUMNS]
    schema = pyarrow.schema([*text, *((name, pyarrow.list_(pyarrow.string())) for name in lists)])
    digest = hashlib.sha256()
    count = 0
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for chunk in _chunks(rows):
            for row in chunk:
                digest.update(json.dumps([row.get(column) for column in COLUMNS]).encode() + b"\n")
            columns = [{name: row.get(name) for name in (*COLUMNS, *lists)} for row in chunk]
            writer.write_table(pyarrow.Table.from_pylist(columns, schema))
            count += len(chunk)
    return count, digest.hexdigest()


def read_parquet(path: Path, lists: tuple[str, ...] = ()) -> Iterator[DataRow]:
    """The rows of a file that `write_parquet` wrote. Only rows of several turns have `messages`."""
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(_AT_ONCE, columns=[*COLUMNS, *lists]):
        for row in batch.to_pylist():
            if row["messages"] is None:
                del row["messages"]
            yield row


def read_rows(folder: Path) -> list[DataRow]:
    """The rows of train.parquet, in training order."""
    return list(read_parquet(folder / TRAIN))


def read_validation_rows(folder: Path) -> list[DataRow]:
    """The rows that were set aside for validation; empty without any."""
    path = folder / VALIDATION
    return list(read_parquet(path)) if path.is_file() else []


def write_json_lines(rows: Iterable[DataRow], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _chunks(rows: Iterable[DataRow]) -> Iterator[list[DataRow]]:
    chunk: list[DataRow] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
