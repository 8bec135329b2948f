"""Turns a record of a file into rows: Alpaca triples, prompt and response, chat messages, ShareGPT, OASST trees, …"""

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.config.data import SourceConfig
from harness.data.keys import (
    ALIASES,
    CALLS,
    CONVERSATION,
    GIVEN,
    OFFERS,
    PROMPTS,
    RESPONSES,
    ROLE,
    SYSTEM,
    TEXT,
    RowValues,
    first,
    is_pair,
    is_thought,
    unread,
)
from harness.data.marks import MARKS, is_partial, mark_of, marked_turns
from harness.data.row import ROLES, TEXTS, DataRow, from_turns
from harness.prompt.messages import user_text

REQUIRED = ("instruction", "output")
_WRAPPER = re.compile(
    r"\A(?:Below is an instruction.*?)?### Instruction:\s*(?P<instruction>.*?)\s*"
    r"(?:### Input:\s*(?P<input>.*?)\s*)?### (?:Response|Output):\s*(?:Let's think step by step\.)?\s*\Z",
    re.DOTALL,
)

_LISTS = ("messages", *CONVERSATION, "history", "prompt", "completion", "chosen", "rejected", "loss_mask")
_UNUSABLE = {
    "segments": "segments are text in the markup of one template; write the turns as messages with role and content, "
    "and train: false on those that are not to be learned",
    "input_ids": "input_ids are tokens of one model; give the text: messages with role and content",
}
_ASKED = ("instruction", "question", *PROMPTS)


@dataclass(frozen=True)
class LeftOut:
    """A record that is read and not trained on: it is marked so, or holds what a row cannot carry."""

    reason: str


def rows_of(
    values: RowValues, source: SourceConfig, noted: Counter[str] | None = None
) -> list[DataRow] | str | LeftOut:
    """The rows of a record (nearly always one), the reason why it is left out, or why it cannot be read as one.

    `noted` counts what of a record its rows do not hold: keys that are not read, and reasoning beside an answer.
    """
    columns = {str(key): column for key, column in source.columns.items()}
    given = {key: _decoded(str(key), value) for key, value in values.items() if value is not None}
    if reason := _left_out(given):
        return LeftOut(reason)
    if unusable := next((_UNUSABLE[key] for key in _UNUSABLE if isinstance(given.get(key), list)), ""):
        return unusable
    preferred = _preferred(given)
    if isinstance(preferred, str):
        return preferred
    format_ = source.format if source.format != "auto" else _recognised(preferred, columns)
    whole = _with_history(preferred, columns, format_)
    if isinstance(whole, str):
        return whole
    if whole is not preferred:
        made = _messages(whole)
    elif format_ == "triples":
        made = _triple(whole, columns, source.defaults)
    else:
        made = FORMATS[format_](whole)
    if isinstance(made, str | LeftOut):
        return made
    mask = given.get("loss_mask")
    if isinstance(mask, list) and mask and not mask[-1] and not any(row.get("messages") for row in made):
        return LeftOut(f"loss_mask: {mask} marks the answer as one that is not to be learned")
    finished = [_finished(row, whole, columns, source.defaults) for row in made]
    if error := next((row for row in finished if isinstance(row, str)), None):
        return error
    if noted is not None:
        noted.update(unread(given, format_, columns))
    return [row for row in finished if not isinstance(row, str)]


def _left_out(values: RowValues) -> str:
    """Why a record is not trained on, although it can be read; '' where nothing says so."""
    if mark := mark_of(values):
        return f"{mark} marks the answer as one that is not to be learned"
    if "rejected" in values and "chosen" not in values and str(values["rejected"]).lower() != "false":
        return "it holds only a rejected answer"
    if key := next((key for key in OFFERS if values.get(key) not in (None, "", [], {}, "[]", "{}", "null")), ""):
        return f"{key}: it offers tools to the model, which a row cannot carry"
    return ""


def _decoded(key: str, value: Any) -> Any:
    """A list of turns that stands as text in a cell, as a list: JSON, or as pandas writes lists into a CSV file."""
    if key not in _LISTS or not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        kinds: Any = {"history": Mapping | list | tuple, "loss_mask": int | float}.get(key, Mapping)
        if isinstance(found, list) and all(isinstance(item, kinds) for item in found):
            return found
    return value


def _preferred(values: RowValues) -> RowValues | str:
    """A preference record as a prompt and the chosen answer; any other record as it is."""
    chosen = values.get("chosen")
    if chosen is None:
        return values
    rest = {key: value for key, value in values.items() if key not in ("chosen", "rejected")}
    before = first(rest, ("prompt", "messages", "conversations"))
    if isinstance(chosen, Mapping):
        chosen = [chosen]
    if isinstance(chosen, list):
        turns = chosen if len(chosen) > 1 or not isinstance(before, list) else [*before, *chosen]
        if isinstance(before, str) and before and len(chosen) == 1:
            turns = [{"role": "user", "content": before}, *chosen]
        others = {key: value for key, value in rest.items() if key not in ("prompt", "conversations", "messages")}
        return {**others, "messages": turns}
    if isinstance(before, list) and before:
        return {**rest, "prompt": before, "completion": [{"role": "assistant", "content": chosen}], "messages": None}
    if "instruction" in rest:
        return {**rest, "output": chosen}
    if question := first(rest, ("prompt", "question", "query", "input")):
        return {"prompt": question, "response": chosen, **({"system": rest["system"]} if "system" in rest else {})}
    return (
        "chosen is a text without its question (columns: "
        f"{', '.join(map(str, values))}); give the question as prompt, or the conversation as a list of messages"
    )


def _with_history(values: RowValues, columns: Mapping[str, str], format_: str) -> RowValues | str:
    """A record with earlier exchanges under `history`, as a conversation; any other record as it is.

    Returns why the history cannot be read: a list of [question, answer] pairs or of turns is expected.
    """
    history = values.get("history")
    if history in (None, "", [], "[]") or format_ not in ("triples", "prompt_response"):
        return values
    turns = [{"role": "system", "content": system}] if (system := first(values, SYSTEM)) else []
    for item in history if isinstance(history, list | tuple) else [None]:
        if isinstance(item, list | tuple) and len(item) == 2:
            turns += [{"role": "user", "content": item[0]}, {"role": "assistant", "content": item[1]}]
        elif isinstance(item, Mapping) and _role(item):
            turns.append(dict(item))
        elif isinstance(item, Mapping) and len(item) == 2 and first(item, _ASKED) and first(item, RESPONSES):
            asked, answered = first(item, _ASKED), first(item, RESPONSES)
            turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        else:
            return "history is not a list of [question, answer] pairs or of turns with role and content"
    triple = format_ == "triples"
    asked = first(values, _names("instruction", columns) if triple else PROMPTS)
    given = first(values, _names("input", columns) if triple else GIVEN)
    answered = first(values, _names("output", columns) if triple else RESPONSES)
    if not isinstance(asked, str) or not isinstance(answered, str):
        return "beside a history, the last question and its answer must be texts"
    last = user_text(asked, given) if isinstance(given, str) else asked
    turns += [{"role": "user", "content": last}, {"role": "assistant", "content": answered}]
    kept = {name: values[name] for key in ("id", "topic") for name in _names(key, columns) if name in values}
    return {**kept, **{key: values[key] for key in ("loss_mask",) if key in values}, "messages": turns}


def _recognised(values: RowValues, columns: Mapping[str, str]) -> str:
    """The format, by the keys of the record."""
    if not columns:
        for key, format_ in KEYS.items():
            if values.get(key) is not None:
                return "oasst" if isinstance(values[key], Mapping) else format_
    return "triples"


def _triple(values: RowValues, columns: Mapping[str, str], defaults: Mapping[Any, str]) -> list[DataRow] | str:
    found = {key: first(values, _names(key, columns)) for key in TEXTS}
    empty = [_names(k, columns)[0] for k in REQUIRED if found[k] in ("", None) and not defaults.get(k)]
    if empty:
        return f"column {', '.join(empty)} is missing or empty (columns: {', '.join(map(str, values)) or 'none'})"
    if isinstance(found["instruction"], str) and first(values, SYSTEM) and not columns:
        made = _with_system(values, found["instruction"], found["input"], found["output"])
        return made if isinstance(made, str) else [{**found, **row} for row in made]
    return [found]


def _prompt_response(values: RowValues) -> "list[DataRow] | str | LeftOut":
    prompt, response = first(values, PROMPTS), first(values, RESPONSES)
    if isinstance(prompt, list) and isinstance(response, list):
        return _conversation([*prompt, *response], values)
    if not isinstance(prompt, str) or not prompt.strip():
        return f"column prompt is missing, empty or not text (columns: {', '.join(map(str, values))})"
    if not isinstance(response, str) or not response.strip():
        return f"column response is missing, empty or not text (columns: {', '.join(map(str, values))})"
    wrapped = _WRAPPER.match(prompt)
    texts = wrapped.groupdict(default="") if wrapped else {"instruction": prompt, "input": first(values, GIVEN)}
    return _with_system(values, texts["instruction"], texts["input"], response)


def _question_answer(values: RowValues) -> list[DataRow] | str:
    """A question with its answer, after the rationale where there is one."""
    question, answer, rationale = (values.get(key) or "" for key in ("question", "answer", "rationale"))
    wrong = [k for k, v in (("question", question), ("answer", answer)) if not isinstance(v, str) or not v.strip()]
    if wrong:
        return f"column {', '.join(wrong)} is missing, empty or not text (columns: {', '.join(map(str, values))})"
    output = f"{rationale.strip()}\n\nThe answer is {answer}." if isinstance(rationale, str) and rationale else answer
    return _with_system(values, question, first(values, GIVEN), output)


def _with_system(values: RowValues, instruction: str, given: Any, output: str) -> list[DataRow] | str:
    """The row. Where the record has a system message, it is a conversation, so that training sees that message."""
    system = first(values, SYSTEM)
    if not system:
        return [{"instruction": instruction, "input": given, "output": output}]
    question = user_text(instruction, given) if isinstance(given, str) else instruction
    row = from_turns([("system", system), ("user", question), ("assistant", output)])
    return row if isinstance(row, str) else [row]


def _messages(values: RowValues) -> list[DataRow] | str | LeftOut:
    return _sharegpt({**values, "conversations": values.get("messages")})


def _sharegpt(values: RowValues) -> list[DataRow] | str | LeftOut:
    turns, system = first(values, CONVERSATION), first(values, SYSTEM)
    if isinstance(turns, list) and turns and all(is_pair(turn) for turn in turns):  # xtuner
        system = system or first(turns[0], SYSTEM)
        pairs = [(first(turn, ("input", "instruction")), turn["output"], turn) for turn in turns]
        turns = []
        for asked, answered, pair in pairs:
            marks = {key: pair[key] for key in MARKS if key in pair}
            turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered, **marks}]
    if system and isinstance(turns, list) and not (turns and _role(turns[0]) == "system"):
        turns = [{"role": "system", "content": system}, *turns]
    return _conversation(turns, values)


def _role(turn: Any) -> Any:
    """A turn's role in lower case, under whichever key it stands."""
    role = first(turn, ROLE) if isinstance(turn, Mapping) else None
    return role.strip().lower() if isinstance(role, str) else role or None


def _conversation(turns: Any, values: RowValues) -> list[DataRow] | str | LeftOut:
    """The row of a conversation, whose turns have a role and a text under any of the usual keys.

    A turn that is marked as not to be learned stays, without loss. A conversation in which no answer is to be learned,
    or with calls of tools, is left out.
    """
    if not isinstance(turns, list) or not turns:
        return "the conversation is empty or not a list (in a table, write it as JSON)"
    if not all(isinstance(turn, Mapping) for turn in turns):
        return "a turn of the conversation is not a JSON object"
    for number, turn in enumerate(turns, 1):
        if first(turn, CALLS) or _role(turn) in ("tool", "function", "observation", "function_call", "ipython"):
            return LeftOut(f"turn {number} calls a tool or holds its result, which a row cannot carry")
        if is_partial(turn):
            return LeftOut(f"turn {number} marks a part of its text as not to be learned, which a row cannot carry")
    answers = [n for n, turn in enumerate(turns) if ROLES.get(str(_role(turn)), "") == "assistant"]
    marked = marked_turns(turns, answers, values)
    if isinstance(marked, str):
        return marked
    if answers and marked.issuperset(answers):
        return LeftOut("every answer is marked as one that is not to be learned")
    row = from_turns([(_role(turn), _content(first(turn, TEXT))) for turn in turns], marked)
    return row if isinstance(row, str) else [row]


def _content(content: Any) -> Any:
    """The text of a message, whose content may be a list of parts of text; thoughts are left out (see `_unread`)."""
    if not isinstance(content, list):
        return content
    parts = [part for part in content if not is_thought(part)]
    texts = [_part_text(part) for part in parts]
    return "\n\n".join(texts) if texts and all(isinstance(text, str) for text in texts) else content


def _part_text(part: Any) -> Any:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", "text") in ("text", "input_text", "output_text"):
        return first(part, ("text", "value", "content"))
    return None


def _firefly(values: RowValues) -> list[DataRow] | str:
    """Firefly's records: `input` and `target`, with the task's name as `kind`."""
    return _with_system({}, values.get("input", ""), "", values.get("target", ""))


def _oasst(values: RowValues) -> list[DataRow] | str:
    """The conversation of best-ranked replies, from the root of an OpenAssistant tree to its last answer."""
    node = values.get("prompt", values)
    turns: list[tuple[Any, Any]] = []
    while isinstance(node, Mapping):
        turns.append((node.get("role"), node.get("text")))
        node = _best_reply(node.get("replies"))
    while turns and turns[-1][0] != "assistant":
        turns.pop()
    if not turns:
        return "the tree holds no answer"
    row = from_turns(turns)
    return row if isinstance(row, str) else [row]


def _best_reply(replies: Any) -> Any:
    """The reply that people ranked first. Deleted and rejected ones do not count."""
    usable = [
        reply
        for reply in (replies if isinstance(replies, list) else [])
        if isinstance(reply, Mapping) and not reply.get("deleted") and reply.get("review_result") is not False
    ]
    return min(usable, key=_rank, default=None)


def _rank(reply: Mapping[str, Any]) -> float:
    """0 is best. A reply without a number as its rank comes last."""
    rank = reply.get("rank")
    return float(rank) if isinstance(rank, int | float) else float("inf")


def _self_instruct(values: RowValues) -> list[DataRow] | str:
    instances = values.get("instances")
    if not isinstance(instances, list) or not instances or not all(isinstance(i, Mapping) for i in instances):
        return "column instances is empty or not a list of objects"
    return [
        {"instruction": values.get("instruction"), "input": i.get("input"), "output": i.get("output")}
        for i in instances
    ]


FORMATS: dict[str, Callable[[RowValues], list[DataRow] | str | LeftOut]] = {
    "firefly": _firefly,
    "prompt_response": _prompt_response,
    "question_answer": _question_answer,
    "messages": _messages,
    "sharegpt": _sharegpt,
    "oasst": _oasst,
    "self_instruct": _self_instruct,
}
KEYS = {
    "messages": "messages",
    "conversations": "sharegpt",
    "conversation": "sharegpt",
    "instances": "self_instruct",
    "instruction": "triples",
    "target": "firefly",
    "query": "prompt_response",
    "user": "prompt_response",
    "prompt": "prompt_response",
    "inputs": "prompt_response",
    "question": "question_answer",
}


def known_columns(source: SourceConfig) -> set[str]:
    """Column names by which a header line is recognised."""
    aliases = {name for names in ALIASES.values() for name in names}
    return {*KEYS, *RESPONSES, *aliases, *TEXTS, "answer", *source.columns.values()}


def _finished(
    row: DataRow, values: RowValues, columns: Mapping[str, str], defaults: Mapping[Any, str]
) -> DataRow | str:
    """The row with all columns as text, or the reason why it is not a row."""
    row = {**{key: first(values, _names(key, columns)) for key in ("topic", "id")}, **row}
    row = {key: "" if row.get(key) is None else row[key] for key in (*TEXTS, "messages") if key in {*TEXTS, *row}}
    row = {k: _number_text(v) for k, v in row.items()}
    row = {key: defaults.get(key, "") if value == "" else value for key, value in row.items()}
    wrong = [_names(key, columns)[0] for key, value in row.items() if not isinstance(value, str)]
    if wrong:
        return f"column {', '.join(wrong)} is not text"
    damaged = [_names(key, columns)[0] for key, value in row.items() if not _encodable(value)]
    if damaged:
        return f"column {', '.join(damaged)} is not UTF-8 text"
    empty = [_names(key, columns)[0] for key in REQUIRED if not row[key].strip()]
    if empty:
        return f"column {', '.join(empty)} is missing or empty (columns: {', '.join(map(str, values)) or 'none'})"
    return row


def _number_text(value: Any) -> Any:
    """A number as the text that a person would write; NaN stays a number, and so is no text."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return value
    return str(value)


def _names(key: str, columns: Mapping[str, str]) -> tuple[str, ...]:
    return (columns[key],) if key in columns else ALIASES.get(key, (key,)) if not columns else (key,)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
