"""How a row becomes messages."""

from hypothesis import given
from hypothesis import strategies as st

from harness.prompt.messages import conversation, user_text


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
