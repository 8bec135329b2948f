"""A row as the audit holds it: its texts, and a conversation of several turns as single exchanges."""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

DataRow = dict[str, Any]  # the columns of COLUMNS; `messages` (JSON) only for conversations of several turns
FIELDS = ("instruction", "input", "output")


def row_texts(row: DataRow) -> Iterator[tuple[str, str]]:
    """(where, text) for everything in the row that a model would read: the fields, then the content of each message.

    Empty texts are left out.
    """
    for field in FIELDS:
        if text := row.get(field):
            yield field, text
    for number, message in enumerate(_messages(row), 1):
        if isinstance(message.get("content"), str) and message["content"]:
            yield f"message {number}", message["content"]


def map_texts(row: DataRow, change: Callable[[str], str]) -> DataRow:
    """The row with `change` applied to every text. `messages` stays valid JSON."""
    changed = {**row, **{field: change(row[field]) for field in FIELDS if row.get(field)}}
    if messages := _messages(row):
        contents = [
            {**m, "content": change(m["content"])} if isinstance(m.get("content"), str) else m for m in messages
        ]
        changed["messages"] = json.dumps(contents, ensure_ascii=False)
    return changed


def answer_of(row: DataRow) -> str:
    """What the model would learn to say: the output, or the last assistant message."""
    if row.get("output"):
        return str(row["output"])
    said = [m.get("content") for m in _messages(row) if m.get("role") == "assistant"]
    return str(said[-1]) if said and isinstance(said[-1], str) else ""


def question_of(row: DataRow) -> str:
    """The instruction and, on the next line, the input."""
    return "\n".join(part for part in (row.get("instruction"), row.get("input")) if part)


def _messages(row: DataRow) -> list[dict[str, Any]]:
    """The messages of the row; none when the column is absent, empty or not a list of objects."""
    raw = row.get("messages")
    if not raw:
        return []
    try:
        messages = json.loads(raw) if isinstance(raw, str) else raw
    except ValueError:
        return []
    return [m for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []


TEXTS = ("instruction", "input", "output", "topic", "id")
COLUMNS = ("id", "source", "topic", "instruction", "input", "output", "messages")
ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}


def from_turns(turns: Sequence[tuple[Any, Any]], unlearned: Collection[int] = ()) -> DataRow | str:
    """(role, text) pairs as a row, or the reason why they cannot be one. No loss is taken on the turns `unlearned`.

    A single exchange has no `messages`. A longer conversation keeps all its turns there (JSON), with the first question
    as `instruction`, the last answer as `output` and everything between them as `input`.
    """
    messages = [{"role": ROLES.get(str(role), ""), "content": text} for role, text in turns]
    error = _error(turns, messages)
    if error:
        return error
    system = [message["content"] for message in messages if message["role"] == "system"]
    spoken = [message["content"] for message in messages if message["role"] != "system"]
    for number in unlearned:
        if messages[number]["role"] == "assistant":
            messages[number]["train"] = False
    row = {"instruction": spoken[0], "input": "\n\n".join([*system, *spoken[1:-1]]), "output": spoken[-1]}
    return row if len(messages) == 2 else {**row, "messages": json.dumps(messages, ensure_ascii=False)}


def _error(turns: Sequence[tuple[Any, Any]], messages: Sequence[dict[str, Any]]) -> str | None:
    for number, ((role, text), message) in enumerate(zip(turns, messages, strict=True), 1):
        if not message["role"]:
            return f"turn {number} has the role {role!r}; it must be user, assistant or system"
        if not isinstance(text, str) or not text.strip():
            return f"turn {number} has no text"
        if message["role"] == "system" and number > 1:
            return f"turn {number} is a system message; only the first turn can be one"
    roles = [message["role"] for message in messages if message["role"] != "system"]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        shown = ", ".join(roles) or "none"
        return f"the turns do not alternate between user and assistant, from user to assistant ({shown})"
    return None


def exchanges(row: DataRow) -> list[DataRow]:
    """A row as single exchanges, one for each pair of turns. A system message is the input of the first."""
    if not row.get("messages"):
        return [row]
    messages = json.loads(row["messages"])
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    spoken = [message["content"] for message in messages if message["role"] != "system"]
    bare = {key: value for key, value in row.items() if key != "messages"}
    return [
        {**bare, "instruction": spoken[i], "input": "" if i else system, "output": spoken[i + 1]}
        for i in range(0, len(spoken), 2)
    ]


def joined_exchanges(row: DataRow, parts: Sequence[DataRow]) -> DataRow:
    """The row with `parts` as its exchanges: the inverse of `exchanges`. Raises ValueError for an empty text."""
    if not row.get("messages"):
        return parts[0]
    before = json.loads(row["messages"])
    unlearned = [number for number, message in enumerate(before) if message.get("train") is False]
    turns = [("system", parts[0]["input"])] if parts[0]["input"] else []
    for part in parts:
        turns += [("user", part["instruction"]), ("assistant", part["output"])]
    made = from_turns(turns, unlearned)
    if isinstance(made, str):
        raise ValueError(f"row {row['id']}: {made}")
    return {**row, **made}
