"""Answers of base and candidate side by side, as a table: what changed comes first."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHOWN = 2000  # characters of a cell
Key = tuple[str, str]
Row = dict[str, Any]


def side_by_side(base: Path, candidate: Path, task: str, limit: int) -> tuple[list[str], list[list[object]]]:
    """(columns, rows) of the items that both evaluation folders hold: prompt, target, answers, and each metric twice.

    At most `limit` rows, items with a changed metric before the others.
    """
    left, right = (dict(_samples(folder / f"samples_{task}.jsonl")) for folder in (base, candidate))
    keys = [key for key in right if key in left]
    metrics = sorted({metric for key in keys for metric in right[key].get("metrics", []) if metric in left[key]})
    names = [name for metric in metrics for name in (f"base {metric}", f"candidate {metric}")]
    columns = ["item", "filter", "prompt", "target", "base", "candidate", *names]
    keys.sort(key=lambda key: all(left[key].get(m) == right[key].get(m) for m in metrics))
    return columns, [_row(left[key], right[key], metrics) for key in keys[:limit]]


def _samples(path: Path) -> Iterator[tuple[Key, Row]]:
    if path.is_file():
        with path.open() as file:
            for line in file:
                row: Row = json.loads(line)
                yield (str(row.get("doc_hash")), str(row.get("filter", "none"))), row


def _row(base: Row, candidate: Row, metrics: list[str]) -> list[object]:
    values = [_number(side.get(metric)) for metric in metrics for side in (base, candidate)]
    shown = [_prompt(candidate), str(candidate.get("target", "")), _answer(base), _answer(candidate)]
    return [str(candidate["doc_hash"])[:12], candidate.get("filter", "none"), *(t[:SHOWN] for t in shown), *values]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _prompt(row: Row) -> str:
    arguments = row.get("arguments") or {}
    first = arguments.get("gen_args_0", {}) if isinstance(arguments, dict) else arguments[0]
    return str(first.get("arg_0", "") if isinstance(first, dict) else first[0])


def _answer(row: Row) -> str:
    """The filtered answer; for a choice, the one that the model finds likeliest."""
    found = row.get("filtered_resps") or [""]
    if len(found) > 1 and isinstance(found[0], list | tuple):
        return f"choice {max(range(len(found)), key=lambda index: float(found[index][0]))}"
    return str(found[0])
