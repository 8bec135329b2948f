"""How a row becomes messages."""

import json

from hypothesis import given
from hypothesis import strategies as st

from harness.prompt.messages import conversation, row_messages, user_text


def test_input_follows_after_a_blank_line() -> None:
    assert user_text("Summarise.", "A long text.") == "Summarise.\n\nA long text."
    assert user_text("Say hello.") == "Say hello."


def test_conversation() -> None:
    assert conversation("Add.", "1 2", "3") == [
        {"role": "user", "content": "Add.\n\n1 2"},
        {"role": "assistant", "content": "3"},
    ]


@given(st.text(), st.text(), st.text())
def test_no_text_is_changed(instruction: str, given_input: str, output: str) -> None:
    asked, answered = conversation(instruction, given_input, output)
    assert asked["content"].startswith(instruction)
    assert asked["content"].endswith(given_input)
    assert answered["content"] == output


def test_a_row_of_several_turns_brings_them_all() -> None:
    turns = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"))]
    row = {"instruction": "a", "input": "", "output": "b"}
    assert row_messages(row) == row_messages({**row, "messages": None}) == turns
    longer = [*turns, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]
    assert row_messages({**row, "messages": json.dumps(longer)}) == longer
