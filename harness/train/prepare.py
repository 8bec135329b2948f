"""Renders training rows to token ids that fit a training sequence. Rows that are too long are reported, never cut."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.train import TrainConfig
from harness.core.console import plural
from harness.core.errors import DataError
from harness.prompt.messages import row_messages
from harness.prompt.render import Rendered, Renderer
from harness.records.stages import LongRows

TrainingRow = dict[str, Any]
_SHOWN = 5


@dataclass(frozen=True)
class Prepared:
    """Rows with their token ids and loss masks, in the same order, and what happened to rows that were too long."""

    rows: list[TrainingRow]
    rendered: list[Rendered]
    long: LongRows


def prepare(renderer: Renderer, rows: Sequence[TrainingRow], config: TrainConfig) -> Prepared:
    """Every row rendered under the contract, with at most `sequence_length` tokens each.

    Raises DataError for rows that cannot be rendered, for long rows under train.too_long=error, and when no row is
    left.
    """
    kept: list[tuple[TrainingRow, Rendered]] = []
    dropped: dict[str, int] = {}
    split: dict[str, int] = {}
    for row in rows:
        rendered = _rendered(renderer, row, config.train_on)
        if len(rendered.ids) <= config.sequence_length:
            kept.append((row, rendered))
            continue
        parts = _parts(renderer, row, config) if config.too_long == "split" else []
        kept += parts
        name = row["id"] if row["id"] not in dropped and row["id"] not in split else f"{row['source']}/{row['id']}"
        if parts:
            split[name] = len(parts)
        else:
            dropped[name] = len(rendered.ids)
    long = LongRows(policy=config.too_long, limit=config.sequence_length, dropped=dropped, split=split)
    if config.too_long == "error" and dropped:
        raise DataError(_too_long(long))
    if not kept:
        raise DataError(f"no row fits into {config.sequence_length} tokens. Raise train.sequence_length.")
    return Prepared([row for row, _ in kept], [rendered for _, rendered in kept], long)


def long_rows_messages(long: LongRows) -> Iterator[str]:
    """One line for the rows that were dropped, one for those that were split."""
    for what, found in (("dropped", long.dropped), ("split", long.split)):
        if found:
            names = ", ".join(list(found)[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")
            yield f"{what} {plural(len(found), 'row')} over {long.limit} tokens: {names}"


def _too_long(long: LongRows) -> str:
    named = ", ".join(f"{name} ({size})" for name, size in list(long.dropped.items())[:_SHOWN])
    return (
        f"{plural(len(long.dropped), 'row')} over {long.limit} tokens: {named}. Raise train.sequence_length, shorten "
        "the rows, or set train.too_long=drop or split."
    )


def _rendered(renderer: Renderer, row: TrainingRow, train_on: str) -> Rendered:
    try:
        rendered = renderer.training(row_messages(row))
    except DataError as error:
        raise DataError(f"row {row['id']} cannot be trained on: {error}") from None
    if train_on == "all":
        return rendered
    mask = [on and index >= rendered.prompt_length for index, on in enumerate(rendered.mask)]
    return dataclasses.replace(rendered, mask=mask)


def _parts(renderer: Renderer, row: TrainingRow, config: TrainConfig) -> list[tuple[TrainingRow, Rendered]]:
    """The row's turns as several rows that fit, each with the system message; empty if one exchange does not fit.

    With train.train_on=last, only the row with the last answer: the others would teach nothing.
    """
    system, exchanges = _exchanges(row_messages(row))
    parts: list[tuple[TrainingRow, Rendered]] = []
    start = 0
    while start < len(exchanges):
        fitting = None
        for end in range(start + 1, len(exchanges) + 1):
            turns = [*system, *(turn for exchange in exchanges[start:end] for turn in exchange)]
            part = {**row, "id": f"{row['id']}#{len(parts) + 1}", "messages": json.dumps(turns)}
            rendered = _rendered(renderer, part, config.train_on)
            if len(rendered.ids) > config.sequence_length:
                break
            fitting = (end, part, rendered)
        if fitting is None:
            return []
        start = fitting[0]
        parts.append(fitting[1:])
    return parts[-1:] if config.train_on == "last" else parts


def _exchanges(turns: Sequence[dict[str, str]]) -> tuple[list[dict[str, str]], list[list[dict[str, str]]]]:
    """(leading system messages, the other turns split after every answer that a user's turn follows)."""
    first = next((i for i, turn in enumerate(turns) if turn["role"] != "system"), len(turns))
    exchanges: list[list[dict[str, str]]] = []
    for index, turn in enumerate(turns[first:], first):
        if turn["role"] == "user" and (index == first or turns[index - 1]["role"] == "assistant"):
            exchanges.append([])
        exchanges[-1:] = [[*(exchanges[-1] if exchanges else []), turn]]
    return list(turns[:first]), exchanges
