"""Static checks: each finds its own fault alone, and sound set-ups raise no alarm."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faulty_contract
import pytest
import tiny
from faults import TRAINING, Fault
from faulty_contract import Bench, contract_for, settings_of
from stock_templates import CONVERSATIONS, PAIRS, template, tokenizer, turns

from harness.core.errors import EvidenceFault
from harness.prompt.contract import Contract
from harness.prompt.golden import render_golden
from harness.prompt.make import make_contract, read_template
from harness.prompt.render import Renderer
from harness.prompt.static import STATIC_CHECKS, Problem, check_contract, require_sound

STATIC = [fault for fault in TRAINING if fault.caught_by == "static"]
POLICIES = {"none": None, "required": None, "fixed": "You are “careful” | {{ x }}."}
STOCK = (  # as Qwen 3: thoughts of earlier turns are dropped
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{%- if message.role == 'assistant' and not loop.last -%}{{- message.content.split('</think>\\n\\n')[-1] -}}"
    "{%- else -%}{{- message.content -}}{%- endif -%}{{- '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
NOTES_ONLY = {"whitespace", "tokenizer round trip"}


def make_bench(folder: Path) -> Bench:
    made = tiny.make_tokenizer()
    contract = make_contract(settings_of("chatml"), made)
    return Bench(SimpleNamespace(contract=contract, renderer=Renderer(contract, made)), folder)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return make_bench(tmp_path)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The checks that find each static fault."""
    finders = {}
    for fault in STATIC:
        check = getattr(faulty_contract, fault.name)(make_bench(tmp_path_factory.mktemp(fault.name)))
        with pytest.raises(EvidenceFault, match=fault.says) as caught:
            check()
        finders[fault.name] = set(re.findall(r"^  - ([a-z ]+):", str(caught.value), re.MULTILINE))
    return finders


@pytest.mark.parametrize("fault", STATIC, ids=lambda fault: fault.name)
def test_the_fault_is_found_by_its_check(fault: Fault, found: dict[str, set[str]]) -> None:
    assert fault.says.partition(":")[0] in found[fault.name]


@pytest.mark.parametrize("check", sorted(set(STATIC_CHECKS) - NOTES_ONLY))
def test_every_check_finds_a_fault_that_no_other_finds(check: str, found: dict[str, set[str]]) -> None:
    assert {check} in found.values()


def set_ups() -> Iterator[tuple[str, str, Contract, Any]]:
    """Every shipped template on every tokenizer that it fits, under every system policy."""
    for name, family in PAIRS:
        for policy, system in POLICIES.items():
            settings = settings_of(name).model_copy(update={"system_policy": policy, "system": system})
            yield f"{name} {policy}", family, make_contract(settings, tokenizer(family)), tokenizer(family)


def test_sound_set_ups_raise_no_alarm() -> None:
    """A triple is a template (with its system policy), a tokenizer and a conversation that it takes."""
    triples, alarms = set(), []
    for name, family, contract, made in set_ups():
        renderer = Renderer(contract, made)
        more = [render_golden(renderer, kind, messages) for kind, messages in CONVERSATIONS.items()]
        whole = contract.model_copy(update={"golden": [*contract.golden, *more]})
        alarms += [(name, family, p) for p in check_contract(whole, made) if p.severity == "error"]
        triples |= {(name, family, golden.name) for golden in whole.golden if golden.refused is None}
    assert alarms == []
    assert len(triples) >= 500


def notes(problems: list[Problem]) -> str:
    assert [problem for problem in problems if problem.severity == "error"] == []
    return "\n".join(f"{problem.check}: {problem.message}" for problem in problems)


TURN = "{%- elif message.role in ['system', 'user'] -%}"
LOOP = "{%- for message in messages -%}\n"
OWN = "{{- '' if messages[0].role == 'system' else '<|im_start|>system\\nBe good.<|im_end|>\\n' -}}"
REFUSAL = "{{- raise_exception('The ChatML template knows"


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        ("message.content + '<|im_end|>\\n'", "message.content | trim + '<|im_end|>\\n'", "whitespace: .*not rendered"),
        (
            TURN,
            "{%- elif message.role == 'system' -%}{%- elif message.role == 'user' -%}",
            "ignored: system messages are",
        ),
        (LOOP, OWN + LOOP, "ignored: .*own .*Be good."),
        (REFUSAL, REFUSAL.replace("{{-", "{{- '' if true else"), "ignored: tool messages are silently dropped"),
    ],
    ids=["trims", "drops system messages", "adds a system message", "drops tool messages"],
)
def test_what_a_template_ignores_is_noted(bench: Bench, before: str, after: str, note: str) -> None:
    changed = faulty_contract.changed(read_template("chatml.jinja"), (before, after))
    contract = contract_for(changed, bench.tokenizer, bench.folder)
    assert re.search(note, notes(check_contract(contract, bench.tokenizer)))


def test_a_tokenizer_that_normalises_is_noted() -> None:
    contract = make_contract(settings_of("qwen"), tokenizer("qwen"))
    assert "tokenizer round trip: unicode" in notes(check_contract(contract, tokenizer("qwen")))
    contract = make_contract(settings_of("chatml"), tokenizer("smollm"))
    assert "round trip" not in notes(check_contract(contract, tokenizer("smollm")))


def test_a_model_that_was_trained_without_its_bos_says_so() -> None:
    made = tokenizer("llama3")
    chatml = settings_of("chatml").model_copy(update={"end_of_turn": "<|eot_id|>"})
    text = read_template("chatml.jinja").replace("<|im_end|>", "<|eot_id|>")
    made.chat_template = text
    own = chatml.model_copy(update={"file": None})
    with pytest.raises(EvidenceFault, match=r"bos: BOS .*<|begin_of_text|>.* is missing.*template.bos=never"):
        require_sound(check_contract(make_contract(own, made), made), "it")
    never = make_contract(own.model_copy(update={"bos": "never"}), made)
    assert "bos" not in notes(check_contract(never, made))


def test_a_template_that_refuses_tools_gives_no_note() -> None:
    """Rows hold no tools; the card shows the refusal."""
    made = tokenizer("smollm")
    contract = make_contract(settings_of("chatml"), made)
    assert any(golden.tools and golden.refused for golden in contract.golden)
    assert "tools" not in notes(check_contract(contract, made))


def test_plain_headings_can_be_imitated_and_the_note_says_so() -> None:
    contract = make_contract(settings_of("alpaca"), tokenizer("gpt2"))
    assert "forgery: turn markers such as '### Response:'" in notes(check_contract(contract, tokenizer("gpt2")))


def test_an_unguarded_template_is_described_as_it_is() -> None:
    """A model made elsewhere, under its own template: nothing is guarded, and that is a note."""
    made = tokenizer("smollm")
    contract = make_contract(settings_of("chatml"), made, guard=False)
    assert contract.template == template("chatml")
    assert "forgery: text in a message can forge a turn with <|endoftext|>" in notes(check_contract(contract, made))


def test_a_template_that_rewrites_earlier_turns_is_noted() -> None:
    """Qwen 3's own template drops the thoughts of earlier turns: only the last answer is learnt."""
    made = tiny.make_tokenizer()
    made.chat_template = STOCK
    contract = make_contract(settings_of("from_model"), made)
    assert "earlier_thought: the template rewrites earlier turns" in notes(check_contract(contract, made))


def test_a_rewritten_answer_is_not_learnt() -> None:
    made = tiny.make_tokenizer()
    made.chat_template = STOCK
    contract = make_contract(settings_of("from_model"), made)
    thought = turns("2+2?", "<think>\nadd\n</think>\n\n4", "3+3?", "<think>\nadd\n</think>\n\n6")
    rendered = Renderer(contract, made).training(thought)
    supervised = [token for token, kept in zip(rendered.ids, rendered.mask, strict=True) if kept]
    assert made.decode(supervised) == "<think>\nadd\n</think>\n\n6<|im_end|>"


def test_all_faults_are_listed_and_notes_are_returned() -> None:
    fault, note = Problem("mask", "error", "empty"), Problem("ignored", "note", "tools")
    with pytest.raises(EvidenceFault, match=r"2 errors in the contract:\n  - mask: empty\n  - mask: empty"):
        require_sound([fault, note, fault], "the contract")
    assert require_sound([note], "the contract") == [note]
