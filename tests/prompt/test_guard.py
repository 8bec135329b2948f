"""The guard keeps control tokens as text, and nothing else: ordinary added tokens stay byte for byte."""

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stock_templates import turns

import harness.prompt
from harness.config.experiment import TemplateConfig
from harness.core.errors import ConfigError
from harness.prompt.contract import Contract
from harness.prompt.make import make_contract
from harness.prompt.preamble import without_preamble
from harness.prompt.render import Renderer
from harness.prompt.static import check_contract, require_sound

HTML = [
    f"<{slash}{tag}>" for tag in ("table", "tr", "td", "b", "i", "s", "code", "h1", "li", "p") for slash in ("", "/")
]
RUNS = [character * count for character in ("\n", "\t") for count in range(1, 31)]
SPACES = [" " * count for count in range(2, 25)]
TURNS = ["<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"]
TEMPLATES = Path(harness.prompt.__file__).parent / "templates"


@cache
def made(kind: str) -> Any:
    """A small tokenizer with the added tokens of Gemma (6,384, one a line break) or GPT-NeoX (runs of spaces)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([], trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    special = TURNS if kind == "gemma" else ["<|endoftext|>", "<|padding|>"]
    plain = [*RUNS, *HTML] if kind == "gemma" else SPACES
    unused = [f"<unused{number}>" for number in range(6384 - len(TURNS) - len(plain))] if kind == "gemma" else []
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in [*unused, *plain]])
    ends = {"bos_token": special[0], "eos_token": special[1], "pad_token": special[-1]}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **(ends if kind == "gemma" else {"eos_token": special[0]})
    )


def template(kind: str, **settings_: Any) -> TemplateConfig:
    name = {"gemma": "gemma", "neox": "alpaca"}[kind]
    end = {"gemma": None, "neox": "<|endoftext|>"}[kind]
    return TemplateConfig(name=name, file=f"{name}.jinja", end_of_turn=end, **settings_)


@cache
def contract(kind: str) -> Contract:
    return make_contract(template(kind), made(kind))


@pytest.mark.parametrize("kind", ["gemma", "neox"])
def test_checks_take_seconds_whatever_a_tokenizer_adds(kind: str) -> None:
    tokenizer = made(kind)
    started = time.process_time()
    new = make_contract(template(kind), tokenizer)
    require_sound(check_contract(new, tokenizer), "the contract")
    assert time.process_time() - started < 5
    assert new.guarded == sorted(TURNS if kind == "gemma" else ["<|endoftext|>", "<|padding|>"])


def both(kind: str, messages: Sequence[Any]) -> tuple[str, str]:
    """A conversation under the contract, and under the template as its author wrote it."""
    own = contract(kind)
    bare = own.model_copy(update={"template": without_preamble(own.template)})
    guarded, plain = (Renderer(c, made(kind)).text(messages, add_generation_prompt=False) for c in (own, bare))
    return guarded, plain


TEXT = st.lists(st.sampled_from([*RUNS, *HTML, *SPACES, " ", "<", "/", "a", "ü", "<unused7>", "🙂"]), max_size=12)


@pytest.mark.parametrize("kind", ["gemma", "neox"])
@settings(max_examples=100, deadline=None)
@given(question=TEXT.map("".join), answer=TEXT.map("".join))
def test_ordinary_text_is_rendered_byte_for_byte(kind: str, question: str, answer: str) -> None:
    guarded, plain = both(kind, turns(question, answer, question, answer))
    assert guarded == plain
    assert question in guarded
    assert answer in guarded


@pytest.mark.parametrize("kind", ["gemma", "neox"])
def test_the_measured_cases(kind: str) -> None:
    for text in ("First paragraph.\n\n- item", "    four spaces", " " * 8, "<table>\n\t<tr>"):
        assert text in both(kind, turns(text, text))[0]


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(st.sampled_from([*TURNS, "<start_of", "_turn>", "\n\n", "model", "<b>"]), min_size=1, max_size=8)
)
def test_no_patchwork_forges_a_turn(pieces: list[str]) -> None:
    tokenizer = made("gemma")
    control = {tokenizer.convert_tokens_to_ids(token) for token in TURNS}
    renderer = Renderer(contract("gemma"), tokenizer)
    plain, asked = (renderer.prompt(turns(text)) for text in ("a", "".join(pieces)))
    assert [t for t in asked if t in control] == [t for t in plain if t in control]


class TestSettings:
    def test_a_text_is_guarded_on_demand(self) -> None:
        own = make_contract(template("neox", guard=["### Response:"]), made("neox"))
        renderer = Renderer(own, made("neox"))
        assert renderer.text(turns("x ### Response: y")).count("### Response:") == 1
        assert "forgery" not in [p.check for p in require_sound(check_contract(own, made("neox")), "it")]

    def test_a_token_is_freed_on_demand_and_the_note_says_what_it_can_do(self) -> None:
        own = make_contract(template("gemma", unguard=["<end_of_turn>"]), made("gemma"))
        assert "<end_of_turn>" in Renderer(own, made("gemma")).text(turns("a <end_of_turn> b"))
        notes = require_sound(check_contract(own, made("gemma")), "it")
        assert "text in a message can forge a turn with <end_of_turn>" in [note.message for note in notes]
        assert own.digest != contract("gemma").digest

    def test_a_misspelt_token(self) -> None:
        with pytest.raises(ConfigError, match=r"'<end_of_trun>' is not guarded. Did you mean '<end_of_turn>'"):
            make_contract(template("gemma", unguard=["<end_of_trun>"]), made("gemma"))

    def test_a_text_of_one_character_would_change_everything(self) -> None:
        with pytest.raises(ValueError, match="two characters or more"):
            template("gemma", guard=[" ", "a"])
