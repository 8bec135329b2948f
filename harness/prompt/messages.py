"""(instruction, input, output) as chat messages: the one place that decides how they are joined."""

Message = dict[str, str]


def user_text(instruction: str, input_text: str = "") -> str:
    """The user's turn: the instruction, then the input (if any) after a blank line."""
    return f"{instruction}\n\n{input_text}" if input_text else instruction


def conversation(instruction: str, input_text: str, output: str) -> list[Message]:
    """A whole exchange. The system message is the contract's affair, not the row's."""
    return [
        {"role": "user", "content": user_text(instruction, input_text)},
        {"role": "assistant", "content": output},
    ]
