"""The keys under which data sets hold what a row needs, and which keys of a record are not read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.data.marks import MARKS, has_fraction, is_understood

RowValues = Mapping[str, Any]
TEXTS = ("instruction", "input", "output", "topic", "id")
ALIASES: dict[str, tuple[str, ...]] = {
    "input": ("input", "context"),
    "output": ("output", "response"),
    "topic": ("topic", "category"),
}
GIVEN = (*ALIASES["input"], "passage")
PROMPTS = ("prompt", "inputs", "query", "user")
SYSTEM = ("system", "system_prompt")
RESPONSES = ("response", "completion", "targets", "output", "assistant", "answer")
CONVERSATION = ("conversations", "conversation")
REASONING = ("reasoning_content", "reasoning", "thinking", "thoughts", "chain_of_thought")
CALLS = ("tool_calls", "function_call", "tool_call_id")
OFFERS = ("tools", "functions")
ROLE = ("role", "from", "speaker", "author")
TEXT = ("content", "value", "text")
# Where a record comes from. Nothing in it changes what is learned.
PROVENANCE = {
    "id", "topic", "category", "source", "lang", "task", "dataset", "prompt_id", "conversation_id", "uuid", "index",
    "idx", "kind", "message_tree_id", "tree_state",
}  # fmt: skip
# What each format reads: of the names in one tuple, the first that has a value.
READ: dict[str, tuple[tuple[str, ...], ...]] = {
    "triples": (("instruction",), ALIASES["input"], ALIASES["output"], SYSTEM, ("history",)),
    "prompt_response": (PROMPTS, RESPONSES, GIVEN, SYSTEM, ("history",)),
    "question_answer": (("question",), ("answer",), ("rationale",), GIVEN, SYSTEM),
    "messages": (("messages",), SYSTEM),
    "sharegpt": (CONVERSATION, SYSTEM),
    "oasst": (
        ("prompt",), ("replies",), ("text",), ("role",), ("rank",), ("deleted",), ("review_result",),
    ),
    "self_instruct": (("instruction",), ("instances",)),
    "firefly": (("input",), ("target",)),
}  # fmt: skip
_PREFERENCE = {"chosen", "rejected", "prompt", "messages", "conversations"}
_HANDLED = {*MARKS, *REASONING, *OFFERS, *CALLS}


def first(values: RowValues, names: Sequence[str]) -> Any:
    """The first value under one of these names that is not None; '' without one."""
    return next((values[name] for name in names if values.get(name) is not None), "")


def unread(values: RowValues, format_: str, columns: Mapping[str, str]) -> set[str]:
    """What of a record its row does not hold: keys that the format does not read, reasoning, weights in between."""
    given = {key for key, value in values.items() if value is not None and value != "" and value != [] and value != {}}
    if columns:
        read = {*columns.values(), *(key for key in TEXTS if key not in columns), "history"}
    else:
        read = set()
        for names in READ[format_]:
            present = [name for name in names if name in given]
            read.update(n for n in present if values[n] == values[present[0]])
        read |= _PREFERENCE if "chosen" in values else set()
    left = given - read - PROVENANCE - _HANDLED
    left |= {key for key in given - read if key in MARKS and not is_understood(key, values[key]) and key != "rejected"}
    found = {f"the key {key!r}" for key in left}
    if first(values, REASONING) or any(map(_thinks, turns_of(values))):
        found.add("reasoning beside the answer")
    if any(map(has_fraction, (values, *turns_of(values)))):
        found.add("a weight other than 0 and 1")
    for number, turn in enumerate(turns_of(values)):
        found |= _unread_of_turn(turn, number)
    return found


def turns_of(values: RowValues) -> Iterator[Mapping[str, Any]]:
    """The turns of a record, under whichever keys they stand."""
    for name in ("messages", *CONVERSATION, "prompt", "completion", "chosen"):
        turns = values.get(name)
        for turn in [turns] if isinstance(turns, Mapping) else turns if isinstance(turns, list) else []:
            if isinstance(turn, Mapping) and "replies" not in turn:
                yield turn


def is_pair(turn: Any) -> bool:
    """Whether a turn is a question with its answer, as xtuner writes them."""
    return isinstance(turn, Mapping) and "output" in turn and "role" not in turn and "from" not in turn


def is_thought(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("thinking", "reasoning", "redacted_thinking")


def _thinks(turn: Mapping[str, Any]) -> bool:
    parts = turn.get("content")
    return bool(first(turn, REASONING)) or (isinstance(parts, list) and any(map(is_thought, parts)))


def _unread_of_turn(turn: Mapping[str, Any], number: int) -> set[str]:
    """Keys of a turn, and of the parts of its text, that are not read."""
    pair = is_pair(turn)
    groups = (("input", "instruction"), ("output",)) if pair else (ROLE, TEXT)
    read = {"system"} if pair and not number else set()
    for names in groups:
        present = [name for name in names if turn.get(name) not in (None, "")]
        read |= {name for name in present if turn[name] == turn[present[0]]}
    left = {key for key, value in turn.items() if value not in (None, "", [], {})} - read - _HANDLED - {"id", "uuid"}
    left |= {key for key in set(MARKS) & set(turn) if turn[key] is not None and not is_understood(key, turn[key])}
    found = {f"the key {key!r} of a turn" for key in left}
    parts = turn.get("content")
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, Mapping) and not is_thought(part):
            found |= {f"the key {key!r} of a part" for key in set(part) - {"type", *TEXT} if part[key] is not None}
    return found
