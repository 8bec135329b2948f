"""Turns (instruction, input, output) into chat messages; no other code joins them."""

import json
from collections.abc import Mapping
from typing import Any

Message = Mapping[str, Any]


def user_text(instruction: str, input_text: str = "") -> str:
    """The user's turn: the instruction, then the input (if any) after a blank line."""
    return f"{instruction}\n\n{input_text}" if input_text else instruction


def conversation(instruction: str, input_text: str, output: str) -> list[dict[str, str]]:
    """A whole exchange, without a system message: the contract adds that."""
    return [
        {"role": "user", "content": user_text(instruction, input_text)},
        {"role": "assistant", "content": output},
    ]


def row_messages(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """A training row as messages: its own `messages` if it has them, else its single exchange."""
    if row.get("messages"):
        turns: list[dict[str, str]] = json.loads(row["messages"])
        return turns
    return conversation(row["instruction"], row["input"], row["output"])
