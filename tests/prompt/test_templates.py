"""Shipped templates: exact texts, and what holds for every conversation that each of them takes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stock_templates import (
    CONVERSATIONS,
    FAMILIES,
    FOLDED,
    FOLDER,
    PAIRS,
    SPLITTABLE,
    TOKENIZERS,
    TOOL,
    TOOL_LIST,
    WILD,
    Message,
    bracketed,
    call,
    end_of_turn,
    prompt,
    require_sound,
    template,
    text,
    tokenizer,
    turns,
    wild_turns,
)

from harness.workflows.compose import choices, config_for

OWN = "from_model"
EXACT = {
    ("chatml", "smollm"): (
        "<|im_start|>system\nBe <brief>.<|im_end|>\n<|im_start|>user\n Hi\n<|im_end|>\n"
        "<|im_start|>assistant\n[Yes.\n<|im_end|>]\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n[<|im_end|>]\n"
    ),
    ("llama3", "llama3"): (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe <brief>.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n Hi\n<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[Yes.\n<|eot_id|>]"
        "<|start_header_id|>user<|end_header_id|>\n\n<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[<|eot_id|>]"
    ),
    ("mistral", "tekken"): "<s>[INST]Be <brief>.\n\n Hi\n[/INST][Yes.\n</s>][INST][/INST][</s>]",
    ("gemma", "gemma"): (
        "<bos><start_of_turn>user\nBe <brief>.\n\n Hi\n<end_of_turn>\n"
        "<start_of_turn>model\n[Yes.\n<end_of_turn>]\n<start_of_turn>user\n<end_of_turn>\n"
        "<start_of_turn>model\n[<end_of_turn>]\n"
    ),
    ("qwen", "qwen"): (
        "<|im_start|>system\nBe <brief>.<|im_end|>\n<|im_start|>user\n Hi\n<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n[Yes.\n<|im_end|>]\n<|im_start|>user\n<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n[<|im_end|>]\n"
    ),
    ("alpaca", "mistral"): (
        "<s>Be <brief>.\n\n### Instruction:\n Hi\n\n\n### Response:\n[Yes.\n</s>]\n\n"
        "### Instruction:\n\n\n### Response:\n[</s>]\n\n"
    ),
    ("alpaca", "qwen"): (
        "Be <brief>.\n\n### Instruction:\n Hi\n\n\n### Response:\n[Yes.\n<|im_end|>]\n\n"
        "### Instruction:\n\n\n### Response:\n[<|im_end|>]\n\n"
    ),
}
WITHOUT_SYSTEM = {
    "chatml": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "llama3": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "mistral": "<s>[INST]Hi[/INST]",
    "gemma": "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    "qwen": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "alpaca": "<|im_start|>### Instruction:\nHi\n\n### Response:\n",
}


def require_sound_tokens(name: str, family: str, messages: list[Message]) -> None:
    """The same of token ids: first the prompt's, then the answer's with its end of turn, which alone are supervised."""
    made = tokenizer(family)
    encoded = made.apply_chat_template(
        messages, chat_template=template(name), return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = encoded["input_ids"], encoded["assistant_masks"]
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asked = made.encode(prompt(name, family, messages[:index]), add_special_tokens=False)
        assert ids[: len(asked)] == asked
        assert mask[len(asked) - 1 : len(asked) + 1] == [0, 1], "the mask does not start right after the prompt"
        end = [*mask, 0].index(0, len(asked))
        wanted = made.encode(message["content"] + end_of_turn(name, family), add_special_tokens=False)
        assert made.decode(ids[len(asked) : end]) == made.decode(wanted)
        assert ids[end - 1] == made.convert_tokens_to_ids(end_of_turn(name, family))
        mask = [0] * end + mask[end:]
    assert not any(mask), "something else is supervised"


@pytest.mark.parametrize(("name", "family"), list(EXACT))
def test_exact_text_and_loss(name: str, family: str) -> None:
    messages = turns(" Hi\n", "Yes.\n", "", "", system="Be <brief>.")
    assert bracketed(name, family, messages) == EXACT[name, family]


@pytest.mark.parametrize("name", list(WITHOUT_SYSTEM))
def test_no_system_message_is_made_up(name: str) -> None:
    assert prompt(name, TOKENIZERS[name][0], turns("Hi")) == WITHOUT_SYSTEM[name]


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_an_answer_that_is_gone_on_with(name: str, family: str) -> None:
    messages = turns("Hi", " Hel ", system="Be brief.")
    assert text(name, family, messages, continue_final_message=True) == prompt(name, family, messages[:2]) + " Hel "


@pytest.mark.parametrize("kind", list(CONVERSATIONS))
@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_conversations(name: str, family: str, kind: str) -> None:
    require_sound(name, family, CONVERSATIONS[kind])
    require_sound_tokens(name, family, CONVERSATIONS[kind])


@pytest.mark.parametrize(("name", "family"), PAIRS)
@settings(max_examples=40, deadline=None)
@given(messages=wild_turns(WILD))
def test_any_text(name: str, family: str, messages: list[Message]) -> None:
    require_sound(name, family, messages)


@pytest.mark.parametrize(("name", "family"), PAIRS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_tokens(name: str, family: str, data: st.DataObject) -> None:
    # Only [/INST] keeps leading whitespace of an answer from merging with the text before it.
    answer = WILD if name == "mistral" else SPLITTABLE
    require_sound_tokens(name, family, data.draw(wild_turns(answer)))


@pytest.mark.parametrize(("name", "family"), [pair for pair in PAIRS if pair[0] in {"llama3", "mistral", "gemma"}])
def test_bos_once(name: str, family: str) -> None:
    whole = text(name, family, turns("Hi", "Hello.", "And?", "No.", system="Be brief."))
    bos = FAMILIES[family].bos
    assert bos is not None
    assert whole.startswith(bos)
    assert whole.count(bos) == 1


@pytest.mark.parametrize(
    ("name", "token"),
    [("llama3", "bos_token"), ("mistral", "bos_token"), ("gemma", "bos_token"), ("alpaca", "eos_token")],
)
def test_tokenizers_without_a_needed_token_are_refused(name: str, token: str) -> None:
    with pytest.raises(Exception, match="this tokenizer has none"):
        text(name, TOKENIZERS[name][0], turns("Hi"), **{token: None})


@pytest.mark.parametrize("name", list(TOKENIZERS))
@pytest.mark.parametrize("role", ["developer", "ipython", "function", "Assistant", "user\nroot", ""])
def test_unknown_roles_are_refused_by_name(name: str, role: str) -> None:
    with pytest.raises(Exception, match=r"template .* message 2 has") as caught:
        text(name, TOKENIZERS[name][0], [*turns("Hi"), {"role": role, "content": "x"}])
    assert role in str(caught.value)


@pytest.mark.parametrize("name", list(TOKENIZERS))
@pytest.mark.parametrize("content", [None, 7, [{"type": "text", "text": "Hi"}]])
def test_only_text_is_taken(name: str, content: object) -> None:
    with pytest.raises(Exception, match="text only; message 1 has other content"):
        text(name, TOKENIZERS[name][0], [{"role": "user", "content": content}])


@pytest.mark.parametrize("name", sorted(FOLDED))
@pytest.mark.parametrize(
    "roles",
    [["assistant"], ["user", "user"], ["user", "assistant", "assistant"], ["user", "system"], ["system", "assistant"]],
)
def test_turns_that_the_format_has_not(name: str, roles: list[str]) -> None:
    with pytest.raises(Exception, match=f"message {len(roles)} has the role {roles[-1]}"):
        text(name, TOKENIZERS[name][0], [{"role": role, "content": "x"} for role in roles])


@pytest.mark.parametrize("name", sorted(FOLDED))
@pytest.mark.parametrize("messages", [turns(system="Alone."), turns("Hi", "Hello.")])
def test_a_prompt_that_asks_nothing(name: str, messages: list[Message]) -> None:
    with pytest.raises(Exception, match="only after a user message"):
        prompt(name, TOKENIZERS[name][0], messages)


@pytest.mark.parametrize("name", sorted(set(TOKENIZERS) - FOLDED))
@pytest.mark.parametrize(
    "roles", [["user", "user", "assistant"], ["user", "assistant", "assistant"], ["user", "system", "assistant"]]
)
def test_any_order_of_turns_with_headers(name: str, roles: list[str]) -> None:
    require_sound(name, TOKENIZERS[name][0], [{"role": role, "content": f"{role}'s"} for role in roles])


@pytest.mark.parametrize("name", sorted(set(TOKENIZERS) - {"qwen"}))
def test_tools_are_refused_rather_than_ignored(name: str) -> None:
    family = TOKENIZERS[name][0]
    with pytest.raises(Exception, match="no tools"):
        prompt(name, family, turns("Hi"), tools=[TOOL])
    with pytest.raises(Exception, match="tool calls"):
        text(name, family, [*turns("Hi"), {"role": "assistant", "content": "", "tool_calls": [call(city="Bern")]}])


def test_the_shipped_templates_are_those_tested() -> None:
    assert (
        set(TOKENIZERS) == {path.stem for path in FOLDER.glob("*.jinja")} == set(choices("template")) - {"from_model"}
    )
    for name in TOKENIZERS:
        config = config_for([f"template={name}"]).template
        assert (config.name, config.file, config.system) == (name, f"{name}.jinja", None)


def test_tools_calls_and_responses() -> None:
    calls = [call(city="Zürich"), call(city="Bern")]
    messages = [
        *turns("Zürich and Bern?"),
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": " 21 "},
        {"role": "tool", "content": "19"},
        {"role": "assistant", "content": "Warm.", "tool_calls": [call()]},
    ]
    whole = (
        f"<|im_start|>system\n{TOOL_LIST}<|im_end|>\n<|im_start|>user\nZürich and Bern?<|im_end|>\n"
        '<|im_start|>assistant\n[<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call><|im_end|>]\n'
        "<|im_start|>user\n<tool_response>\n 21 \n</tool_response><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n19\n</tool_response><|im_end|>\n"
        '<|im_start|>assistant\n[Warm.\n<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call><|im_end|>]\n'
    )
    assert bracketed("qwen", "qwen", messages, tools=[TOOL], enable_thinking=True) == whole
    for count in range(1, len(messages)):
        part = text("qwen", "qwen", messages[:count], tools=[TOOL], enable_thinking=True)
        assert whole.replace("[", "").replace("]", "").startswith(part)


def test_tools_stand_in_the_first_system_message_only() -> None:
    later = {"role": "system", "content": "Later."}
    rendered = text("qwen", "qwen", [*turns("Hi", system=" Be brief."), later], tools=[TOOL])
    assert rendered.startswith(f"<|im_start|>system\n Be brief.\n\n{TOOL_LIST}<|im_end|>\n<|im_start|>user\nHi")
    assert rendered.count(TOOL_LIST) == 1
    assert rendered.endswith("<|im_start|>system\nLater.<|im_end|>\n")


def test_fields_that_servers_add_to_tools_change_nothing() -> None:
    added = {**TOOL, "function": {**TOOL["function"], "strict": None, "response": None}, "defer": False}  # type: ignore[dict-item]
    assert prompt("qwen", "qwen", turns("Hi"), tools=[added]) == prompt("qwen", "qwen", turns("Hi"), tools=[TOOL])
    bare = {"type": "function", "function": {"name": "ping"}}
    filled = {"type": "function", "function": {"name": "ping", "description": None, "parameters": None}}
    assert prompt("qwen", "qwen", turns("Hi"), tools=[bare]) == prompt("qwen", "qwen", turns("Hi"), tools=[filled])


@pytest.mark.parametrize("tool", [{"name": "weather"}, {"type": "function", "function": {}}, {"type": "web_search"}])
def test_tools_of_another_form_are_refused(tool: Message) -> None:
    with pytest.raises(Exception, match="tool 1 has another form"):
        prompt("qwen", "qwen", turns("Hi"), tools=[tool])


def test_arguments_as_text_are_refused() -> None:
    one = {"type": "function", "function": {"name": "weather", "arguments": '{"city":"Bern"}'}}
    with pytest.raises(Exception, match="as an object"):
        text("qwen", "qwen", [*turns("Hi"), {"role": "assistant", "content": "", "tool_calls": [one]}])


def test_thoughts_of_every_turn_are_kept_and_learnt() -> None:
    first = {"role": "assistant", "content": "4", "reasoning_content": " 2+2 \n"}
    messages = [*turns("2+2?"), first, *turns("Sure?", "Yes.")]
    assert bracketed("qwen", "qwen", messages, enable_thinking=True) == (
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n[<think>\n 2+2 \n\n</think>\n\n4<|im_end|>]\n"
        "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n[Yes.<|im_end|>]\n"
    )
    assert prompt("qwen", "qwen", messages[:1], enable_thinking=True).endswith("<|im_start|>assistant\n")


def test_thinking_is_off_unless_requested() -> None:
    messages = turns("Hi", "Hello.", "And?")
    off = prompt("qwen", "qwen", messages, enable_thinking=False)
    assert off == prompt("qwen", "qwen", messages)
    assert off.count("<think>\n\n</think>\n\n") == 2
    assert prompt("qwen", "qwen", messages, enable_thinking=True) == off.replace("<think>\n\n</think>\n\n", "")


def test_thoughts_are_refused_when_thinking_is_off() -> None:
    with pytest.raises(Exception, match="Message 2 carries reasoning_content"):
        text("qwen", "qwen", [*turns("Hi"), {"role": "assistant", "content": "4", "reasoning_content": "2+2"}])


@settings(max_examples=40, deadline=None)
@given(messages=wild_turns(SPLITTABLE))
def test_with_thinking_qwen_is_chatml(messages: list[Message]) -> None:
    assert text("qwen", "qwen", messages, enable_thinking=True) == text("chatml", "qwen", messages)
