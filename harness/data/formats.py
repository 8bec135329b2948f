"""Turns a record of a file into rows: Alpaca triples, prompt and response, chat messages, ShareGPT, OASST trees, …"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.config.data import SourceConfig
from harness.data.row import TEXTS, DataRow, from_turns
from harness.prompt.messages import user_text

RowValues = Mapping[str, Any]
REQUIRED = ("instruction", "output")
ALIASES: dict[str, tuple[str, ...]] = {
    "input": ("input", "context"),
    "output": ("output", "response"),
    "topic": ("topic", "category"),
}
PROMPTS = ("prompt", "inputs")
SYSTEM = ("system", "system_prompt")
RESPONSES = ("response", "completion", "targets", "output")
_WRAPPER = re.compile(
    r"\A(?:Below is an instruction.*?)?### Instruction:\s*(?P<instruction>.*?)\s*"
    r"(?:### Input:\s*(?P<input>.*?)\s*)?### (?:Response|Output):\s*(?:Let's think step by step\.)?\s*\Z",
    re.DOTALL,
)


def rows_of(values: RowValues, source: SourceConfig) -> list[DataRow] | str:
    """The rows of a record (nearly always one), or the reason why it cannot be read as one."""
    columns = {str(key): column for key, column in source.columns.items()}
    format_ = source.format if source.format != "auto" else _recognised(values, columns)
    made = _triple(values, columns, source.defaults) if format_ == "triples" else FORMATS[format_](values)
    if isinstance(made, str):
        return made
    finished = [_finished(row, values, columns, source.defaults) for row in made]
    error = next((row for row in finished if isinstance(row, str)), None)
    return error or [row for row in finished if not isinstance(row, str)]


def _recognised(values: RowValues, columns: Mapping[str, str]) -> str:
    """The format, by the keys of the record."""
    if not columns:
        for key, format_ in KEYS.items():
            if key in values:
                return "oasst" if isinstance(values[key], Mapping) else format_
    return "triples"


def _triple(values: RowValues, columns: Mapping[str, str], defaults: Mapping[Any, str]) -> list[DataRow] | str:
    found = {key: _first(values, _names(key, columns)) for key in TEXTS}
    empty = [_names(k, columns)[0] for k in REQUIRED if found[k] in ("", None) and not defaults.get(k)]
    if empty:
        return f"column {', '.join(empty)} is missing or empty (columns: {', '.join(map(str, values)) or 'none'})"
    if isinstance(found["instruction"], str) and _first(values, SYSTEM) and not columns:
        made = _with_system(values, found["instruction"], found["input"], found["output"])
        return made if isinstance(made, str) else [{**found, **row} for row in made]
    return [found]


def _prompt_response(values: RowValues) -> list[DataRow] | str:
    prompt, response = _first(values, PROMPTS), _first(values, RESPONSES)
    if isinstance(prompt, list) and isinstance(response, list):
        return _conversation([*prompt, *response], "role", "content")
    if not isinstance(prompt, str) or not prompt.strip():
        return f"column prompt is missing, empty or not text (columns: {', '.join(map(str, values))})"
    if not isinstance(response, str) or not response.strip():
        return f"column response is missing, empty or not text (columns: {', '.join(map(str, values))})"
    wrapped = _WRAPPER.match(prompt)
    texts = wrapped.groupdict(default="") if wrapped else {"instruction": prompt, "input": _input(values)}
    return _with_system(values, texts["instruction"], texts["input"], response)


def _question_answer(values: RowValues) -> list[DataRow] | str:
    """A question with its answer, after the rationale where there is one."""
    question, answer, rationale = (values.get(key) or "" for key in ("question", "answer", "rationale"))
    wrong = [k for k, v in (("question", question), ("answer", answer)) if not isinstance(v, str) or not v.strip()]
    if wrong:
        return f"column {', '.join(wrong)} is missing, empty or not text (columns: {', '.join(map(str, values))})"
    output = f"{rationale.strip()}\n\nThe answer is {answer}." if isinstance(rationale, str) and rationale else answer
    return _with_system(values, question, _input(values), output)


def _input(values: RowValues) -> Any:
    """The text that a question or a prompt is about."""
    return _first(values, (*ALIASES["input"], "passage"))


def _with_system(values: RowValues, instruction: str, given: Any, output: str) -> list[DataRow] | str:
    """The row. Where the record has a system message, it is a conversation, so that training sees that message."""
    system = _first(values, SYSTEM)
    if not system:
        return [{"instruction": instruction, "input": given, "output": output}]
    question = user_text(instruction, given) if isinstance(given, str) else instruction
    row = from_turns([("system", system), ("user", question), ("assistant", output)])
    return row if isinstance(row, str) else [row]


def _messages(values: RowValues) -> list[DataRow] | str:
    return _conversation(values.get("messages"), "role", "content")


def _sharegpt(values: RowValues) -> list[DataRow] | str:
    turns, system = _first(values, ("conversations", "conversation")), _first(values, SYSTEM)
    if system and isinstance(turns, list):
        turns = [{"from": "system", "value": system}, *turns]
    return _conversation(turns, "from", "value")


def _conversation(turns: Any, role: str, text: str) -> list[DataRow] | str:
    if not isinstance(turns, list) or not turns:
        return "the conversation is empty or not a list"
    if not all(isinstance(turn, Mapping) for turn in turns):
        return "a turn of the conversation is not a JSON object"
    row = from_turns([(turn.get(role), _content(turn.get(text))) for turn in turns])
    return row if isinstance(row, str) else [row]


def _content(content: Any) -> Any:
    """The text of a message, whose content may be a list of parts."""
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        return "\n\n".join(str(part.get("text", "")) for part in content)
    return content


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


FORMATS: dict[str, Callable[[RowValues], list[DataRow] | str]] = {
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
    row = {**{key: _first(values, _names(key, columns)) for key in ("topic", "id")}, **row}
    row = {key: "" if row.get(key) is None else row[key] for key in (*TEXTS, "messages") if key in {*TEXTS, *row}}
    if isinstance(row["id"], int):
        row["id"] = str(row["id"])
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


def _names(key: str, columns: Mapping[str, str]) -> tuple[str, ...]:
    return (columns[key],) if key in columns else ALIASES.get(key, (key,)) if not columns else (key,)


def _first(values: RowValues, names: Sequence[str]) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), "")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
