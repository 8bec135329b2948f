"""What a terminal and a CI log are shown, whatever stands in data, answers and files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.console import MOST_SHOWN, plain, say
from harness.report.markdown import escape


@pytest.mark.parametrize("sign", ["\x1b", "\x00", "\x9b", "\u202e", "\u2066", "\U000e0041", "\u2028", "\r"])
def test_control_bidi_and_tag_characters_are_replaced(sign: str) -> None:
    assert plain(f"a{sign}b") == "a\ufffdb"


@pytest.mark.parametrize("forged", ["::error::no", "  ::set-output name=x::y", "a\n::notice::b", "x ##[error]y"])
def test_no_line_is_a_command_of_a_workflow(forged: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(forged)
    for line in capsys.readouterr().err.splitlines():
        assert not line.strip().startswith("::")
        assert "##[" not in line


def test_plain_text_stays_as_it_is() -> None:
    text = "größer – 大きい 👩‍⚕️ نمونه‌ها\n\tsecond line: a::b C::D"
    assert plain(text) == text


@given(st.text(max_size=300) | st.just("x" * 100_000))
def test_a_message_is_printable_and_short(text: str) -> None:
    shown = plain(text)
    assert len(shown) <= MOST_SHOWN + 100
    shown.encode()
    assert not any(ord(sign) < 32 and sign not in "\n\t" for sign in shown)


@pytest.mark.parametrize(
    "text", ["@security-team look", "see https://evil.example/x", "HTTP://EVIL.example", "www.evil.example"]
)
def test_comments_mention_nobody_and_link_nowhere(text: str) -> None:
    escaped = escape(text)
    assert "@security" not in escaped
    assert "://" not in escaped
    assert "www." not in escaped
