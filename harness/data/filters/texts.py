"""The texts of a row: its fields and, for multi-turn rows, the content of every message."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from harness.data.filters.judgement import Row

FIELDS = ("instruction", "input", "output")


def row_texts(row: Row) -> Iterator[tuple[str, str]]:
    """(where, text) of everything in the row that a model would read, without empty texts."""
    for field in FIELDS:
        if text := row.get(field):
            yield field, text
    for number, message in enumerate(_messages(row), 1):
        if isinstance(message.get("content"), str) and message["content"]:
            yield f"message {number}", message["content"]


def map_texts(row: Row, change: Callable[[str], str]) -> Row:
    """The row with every text changed; messages stay valid JSON, whatever `change` does."""
    changed = {**row, **{field: change(row[field]) for field in FIELDS if row.get(field)}}
    if messages := _messages(row):
        contents = [
            {**m, "content": change(m["content"])} if isinstance(m.get("content"), str) else m for m in messages
        ]
        changed["messages"] = json.dumps(contents, ensure_ascii=False)
    return changed


def answer_of(row: Row) -> str:
    """What the model would learn to say: the output, or the last assistant message."""
    if row.get("output"):
        return str(row["output"])
    said = [m.get("content") for m in _messages(row) if m.get("role") == "assistant"]
    return str(said[-1]) if said and isinstance(said[-1], str) else ""


def question_of(row: Row) -> str:
    """Instruction and input, one under the other."""
    return "\n".join(part for part in (row.get("instruction"), row.get("input")) if part)


def _messages(row: Row) -> list[dict[str, Any]]:
    """The messages of the row; none when the column is absent, empty or no list of objects."""
    raw = row.get("messages")
    if not raw:
        return []
    try:
        messages = json.loads(raw) if isinstance(raw, str) else raw
    except ValueError:
        return []
    return [m for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []
