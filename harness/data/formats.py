"""Turns a record of a file into rows: Alpaca triples, prompt and response, chat messages, ShareGPT, OASST trees, …"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.data import SourceConfig
from harness.data.row import ROLES, TEXTS, DataRow, from_turns
from harness.prompt.messages import user_text

RowValues = Mapping[str, Any]
REQUIRED = ("instruction", "output")
ALIASES: dict[str, tuple[str, ...]] = {
    "input": ("input", "context"),
    "output": ("output", "response"),
    "topic": ("topic", "category"),
}
PROMPTS = ("prompt", "inputs", "query", "user")
SYSTEM = ("system", "system_prompt")
RESPONSES = ("response", "completion", "targets", "output", "assistant", "answer")
# Marks on a turn: it is not to be learned where one is 0 or false, or where `masked`, `ignore` or `rejected` is true.
MARKS = ("weight", "train", "training", "loss", "loss_mask", "learn", "label", "masked", "ignore", "rejected")
REASONING = ("reasoning_content", "reasoning", "thinking", "thoughts", "chain_of_thought")
TOOLS = ("tool_calls", "function_call", "tool_call_id")
_WRAPPER = re.compile(
    r"\A(?:Below is an instruction.*?)?### Instruction:\s*(?P<instruction>.*?)\s*"
    r"(?:### Input:\s*(?P<input>.*?)\s*)?### (?:Response|Output):\s*(?:Let's think step by step\.)?\s*\Z",
    re.DOTALL,
)


@dataclass(frozen=True)
class LeftOut:
    """A record that is read and not trained on: it is marked so, or holds what a row cannot carry."""

    reason: str


def rows_of(
    values: RowValues, source: SourceConfig, noted: Counter[str] | None = None
) -> list[DataRow] | str | LeftOut:
    """The rows of a record (nearly always one), the reason why it is left out, or why it cannot be read as one.

    `noted` counts what of the record is not read: unknown keys, and reasoning beside an answer.
    """
    columns = {str(key): column for key, column in source.columns.items()}
    values = {key: value for key, value in values.items() if value is not None}
    if noted is not None:
        known = KNOWN_KEYS | set(columns.values()) | set(source.fields)
        noted.update(f"the key {key!r}" for key in values if str(key).lower() not in known and key not in known)
    if rejected := _rejected(values):
        return LeftOut(rejected)
    preferred = _preferred(values)
    if isinstance(preferred, str):
        return preferred
    values = _with_history(preferred, columns)
    if noted is not None:
        noted.update(_unread(values))
    format_ = source.format if source.format != "auto" else _recognised(values, columns)
    made = _triple(values, columns, source.defaults) if format_ == "triples" else FORMATS[format_](values)
    if isinstance(made, str | LeftOut):
        return made
    finished = [_finished(row, values, columns, source.defaults) for row in made]
    error = next((row for row in finished if isinstance(row, str)), None)
    return error or [row for row in finished if not isinstance(row, str)]


def _rejected(values: RowValues) -> str:
    """Why people do not want the answers of a record learned; '' where nothing says so."""
    for key in ("label", "train", "training", "loss", "weight", "loss_mask", "kto_tag", "is_chosen"):
        value = values.get(key)
        bad = value is False or (isinstance(value, str) and value.strip().lower() == "false")
        if bad or (key in ("weight", "loss_mask") and value in (0, "0") and value is not False):
            return f"{key}: {value} marks the answer as one that is not to be learned"
    if "rejected" in values and "chosen" not in values:
        return "it holds only a rejected answer"
    return ""


def _preferred(values: RowValues) -> RowValues | str:
    """A preference record as a prompt and the chosen answer; any other record as it is."""
    chosen = values.get("chosen")
    if chosen is None:
        return values
    rest = {key: value for key, value in values.items() if key not in ("chosen", "rejected")}
    before = _first(rest, ("prompt", "messages", "conversations"))
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
    if question := _first(rest, ("prompt", "question", "query", "input")):
        return {"prompt": question, "response": chosen, **({"system": rest["system"]} if "system" in rest else {})}
    return (
        "chosen is a text without its question (columns: "
        f"{', '.join(map(str, values))}); give the question as prompt, or the conversation as a list of messages"
    )


def _with_history(values: RowValues, columns: Mapping[str, str]) -> RowValues:
    """An Alpaca record with earlier exchanges under `history`, as a conversation; any other record as it is."""
    history = values.get("history")
    if not isinstance(history, list) or not history or columns or "instruction" not in values:
        return values
    turns = [{"role": "system", "content": system}] if (system := _first(values, SYSTEM)) else []
    for pair in history:
        asked, answered = pair if isinstance(pair, list | tuple) and len(pair) == 2 else (None, None)
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    given = _first(values, ALIASES["input"])
    asked = user_text(str(values["instruction"]), given if isinstance(given, str) else "")
    turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": _first(values, ALIASES["output"])}]
    kept = {key: values[key] for key in ("id", "topic", "category", "loss_mask") if key in values}
    return {**kept, "messages": turns}


def _unread(values: RowValues) -> set[str]:
    """What of a record's turns a row does not hold, although nothing is wrong with it."""
    turns = _first(values, ("messages", "conversations", "conversation", "completion"))
    found = {"reasoning beside the answer"} if _first(values, REASONING) else set()
    for turn in turns if isinstance(turns, list) else []:
        if isinstance(turn, Mapping):
            parts = turn.get("content")
            if _first(turn, REASONING) or (isinstance(parts, list) and any(_is_thought(part) for part in parts)):
                found.add("reasoning beside the answer")
    return found


def _is_thought(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("thinking", "reasoning", "redacted_thinking")


def _recognised(values: RowValues, columns: Mapping[str, str]) -> str:
    """The format, by the keys of the record."""
    if not columns:
        for key, format_ in KEYS.items():
            if values.get(key) is not None:
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


def _prompt_response(values: RowValues) -> "list[DataRow] | str | LeftOut":
    prompt, response = _first(values, PROMPTS), _first(values, RESPONSES)
    if isinstance(prompt, list) and isinstance(response, list):
        return _conversation([*prompt, *response], values)
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


def _messages(values: RowValues) -> list[DataRow] | str | LeftOut:
    return _sharegpt({**values, "conversations": values.get("messages")})


def _sharegpt(values: RowValues) -> list[DataRow] | str | LeftOut:
    turns, system = _first(values, ("conversations", "conversation")), _first(values, SYSTEM)
    if isinstance(turns, list) and turns and all(_is_pair(turn) for turn in turns):  # xtuner
        system = system or _first(turns[0], SYSTEM)
        pairs = [(_first(turn, ("input", "instruction")), turn["output"], turn) for turn in turns]
        turns = []
        for asked, answered, pair in pairs:
            marks = {key: pair[key] for key in MARKS if key in pair}
            turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered, **marks}]
    if system and isinstance(turns, list) and not (turns and _role(turns[0]) == "system"):
        turns = [{"role": "system", "content": system}, *turns]
    return _conversation(turns, values)


def _is_pair(turn: Any) -> bool:
    return isinstance(turn, Mapping) and "output" in turn and "role" not in turn and "from" not in turn


def _role(turn: Any) -> Any:
    """A turn's role in lower case, under whichever key it stands."""
    role = _first(turn, ("role", "from", "speaker", "author")) if isinstance(turn, Mapping) else None
    return role.strip().lower() if isinstance(role, str) else role or None


def _conversation(turns: Any, values: RowValues) -> list[DataRow] | str | LeftOut:
    """The row of a conversation, whose turns have a role and a text under any of the usual keys.

    A turn that is marked as not to be learned stays, without loss. A conversation in which no answer is to be learned,
    or with calls of tools, is left out.
    """
    if not isinstance(turns, list) or not turns:
        return "the conversation is empty or not a list"
    if not all(isinstance(turn, Mapping) for turn in turns):
        return "a turn of the conversation is not a JSON object"
    for number, turn in enumerate(turns, 1):
        if _first(turn, TOOLS) or _role(turn) in ("tool", "function", "observation", "function_call", "ipython"):
            return LeftOut(f"turn {number} calls a tool or holds its result, which a row cannot carry")
    marked = _marked(turns, values)
    if isinstance(marked, str):
        return marked
    answers = {n for n, turn in enumerate(turns) if ROLES.get(str(_role(turn)), "") == "assistant"}
    if answers and answers <= marked:
        return LeftOut("every answer is marked as one that is not to be learned")
    row = from_turns([(_role(turn), _content(_first(turn, ("content", "value", "text")))) for turn in turns], marked)
    return row if isinstance(row, str) else [row]


def _marked(turns: Sequence[Mapping[str, Any]], values: RowValues) -> set[int] | str:
    """The positions of turns that are marked as not to be learned."""
    found = {n for n, turn in enumerate(turns) if any(_is_off(key, turn.get(key)) for key in MARKS)}
    mask = values.get("loss_mask")
    if isinstance(mask, list):
        answers = [n for n, turn in enumerate(turns) if ROLES.get(str(_role(turn)), "") == "assistant"]
        places = range(len(turns)) if len(mask) == len(turns) else answers
        if len(mask) != len(places):
            return f"loss_mask has {len(mask)} entries for {len(turns)} turns with {len(answers)} answers"
        found |= {n for n, on in zip(places, mask, strict=True) if n in answers and not on}
    return found


def _is_off(key: str, value: Any) -> bool:
    if key in ("masked", "ignore", "rejected"):
        return value is True or (isinstance(value, str) and value.lower() == "true")
    return value is not None and (value in (0, "0") or (isinstance(value, str) and value.lower() == "false"))


def _content(content: Any) -> Any:
    """The text of a message, whose content may be a list of parts of text; thoughts are left out (see `_unread`)."""
    if not isinstance(content, list):
        return content
    parts = [part for part in content if not _is_thought(part)]
    texts = [_part_text(part) for part in parts]
    return "\n\n".join(texts) if texts and all(isinstance(text, str) for text in texts) else content


def _part_text(part: Any) -> Any:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", "text") in ("text", "input_text", "output_text"):
        return _first(part, ("text", "value", "content"))
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


# Every key that a reader knows, in lower case; other keys of a record are counted and named.
KNOWN_KEYS = {
    *KEYS, *TEXTS, *RESPONSES, *PROMPTS, *SYSTEM, *MARKS, *REASONING, *TOOLS, "context", "category", "answer",
    "rationale", "passage", "chosen", "history", "kind", "tools", "functions", "text", "replies", "kto_tag",
    "is_chosen", "message_tree_id", "tree_state", "source", "messages", "instances", "role", "rank", "deleted",
    "review_result", "lang", "task", "dataset", "prompt_id", "conversation_id", "uuid", "index", "idx",
}  # fmt: skip


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


def _first(values: RowValues, names: Sequence[str]) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), "")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
