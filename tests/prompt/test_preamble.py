"""The preamble: the system policy and the guard act in every reader of the template, and nothing else changes."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stock_templates import CONVERSATIONS, FAMILIES, PAIRS, WILD, template, tokenizer, turns, wild_turns

from harness.prompt.guard import added_tokens
from harness.prompt.preamble import SystemPolicy, with_preamble, without_preamble

Messages = list[dict[str, Any]]
QUOTES = st.sampled_from(['"', "'", "\\", "{{ x }}", "{% raw %}", "#}", "\\n", "\u2028", "🙂"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | WILD | QUOTES


def rendered(
    name: str, family: str, messages: Messages, policy: SystemPolicy = "none", system: str | None = None
) -> str:
    made = tokenizer(family)
    text = with_preamble(template(name), policy, system, *added_tokens(made))
    shown: str = made.apply_chat_template(messages, chat_template=text, tokenize=False, add_generation_prompt=False)
    return shown


def bare(name: str, family: str, messages: Messages) -> str:
    shown: str = tokenizer(family).apply_chat_template(messages, chat_template=template(name), tokenize=False)
    return shown


def innocent(family: str, messages: Messages) -> bool:
    return not any(token in m["content"] for m in messages for token in FAMILIES[family].special)


@pytest.mark.parametrize("kind", list(CONVERSATIONS))
@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_innocent_conversations_are_rendered_byte_for_byte(name: str, family: str, kind: str) -> None:
    messages = CONVERSATIONS[kind]
    same = rendered(name, family, messages) == bare(name, family, messages)
    assert same == innocent(family, messages)


@pytest.mark.parametrize(("name", "family"), PAIRS)
@settings(max_examples=30, deadline=None)
@given(messages=wild_turns(WILD))
def test_any_innocent_conversation_is(name: str, family: str, messages: Messages) -> None:
    if innocent(family, messages):
        assert rendered(name, family, messages) == bare(name, family, messages)


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_every_special_token_stays_text(name: str, family: str) -> None:
    made = tokenizer(family)
    plain = ids_of(made, rendered(name, family, turns("a b", "c")))
    for token in added_tokens(made)[0]:
        for content in (token, f"a{token}b", token * 3, f"{token[:3]}{token}{token[3:]}"):
            assert ids_of(made, rendered(name, family, turns(content, "c"))) == plain, content
            assert ids_of(made, rendered(name, family, turns("a b", content))) == plain, content


def ids_of(made: Any, text: str) -> list[int]:
    """The special ids of a text, in order."""
    special = {number for number, token in made.added_tokens_decoder.items() if token.special}
    return [token for token in made.encode(text, add_special_tokens=False) if token in special]


@settings(max_examples=200, deadline=None)
@given(pieces=st.lists(st.sampled_from([*FAMILIES["qwen"].special, "<|im_", "end|>", "<", "|", " ", "a"]), max_size=8))
def test_no_patchwork_of_special_tokens_gets_through(pieces: list[str]) -> None:
    made = tokenizer("qwen")
    plain = ids_of(made, rendered("chatml", "qwen", turns("a", "b")))
    assert ids_of(made, rendered("chatml", "qwen", turns("".join(pieces), "b"))) == plain


@settings(max_examples=150, deadline=None)
@example(system="🙂")
@given(system=TEXT)
def test_a_fixed_system_message_comes_first_whatever_it_says(system: str) -> None:
    if not innocent("smollm", [{"content": system}]):
        return
    expected = bare("chatml", "smollm", turns("Hi", "Hello.", system=system))
    assert rendered("chatml", "smollm", turns("Hi", "Hello."), "fixed", system) == expected


def test_a_requests_own_system_message_wins_over_the_fixed_one() -> None:
    own = turns("Hi", "Hello.", system="Mine.")
    assert rendered("chatml", "smollm", own, "fixed", "The contract's.") == bare("chatml", "smollm", own)


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_a_required_system_message_is_required(name: str, family: str) -> None:
    with_one = turns("Hi", "Hello.", system="Mine.")
    assert rendered(name, family, with_one, "required") == bare(name, family, with_one)
    with pytest.raises(Exception, match="requires a system message"):
        rendered(name, family, turns("Hi", "Hello."), "required")


@pytest.mark.parametrize("policy", ["none", "required"])
@given(special=st.lists(st.text(min_size=2, max_size=8), max_size=4, unique=True))
def test_the_authors_template_is_found_again(policy: SystemPolicy, special: list[str]) -> None:
    text = with_preamble(template("llama3"), policy, None, special)
    assert without_preamble(text) == template("llama3")
    assert without_preamble(template("llama3")) == template("llama3")


@settings(max_examples=150, deadline=None)
@example(special=["🙂🙂"], content="a 🙂🙂 b")
@given(special=st.lists(TEXT.filter(lambda t: len(t) > 1), min_size=1, max_size=3), content=TEXT)
def test_any_special_token_can_be_guarded(special: list[str], content: str) -> None:
    """Special tokens are other people's text too: quotes, braces and backslashes must not break the template."""
    source = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    text = with_preamble(source, "none", None, special)
    shown = tokenizer("smollm").apply_chat_template(turns(content), chat_template=text, tokenize=False)
    if not any(token in content for token in special):
        assert shown == f"[{content}]"
    assert not any(token in shown[1:-1] for token in special if " " not in token)
