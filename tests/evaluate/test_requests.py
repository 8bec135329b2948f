"""Questions: which requests are the same, which differ, and which are already answered."""

from types import SimpleNamespace
from typing import Any

import pytest
from fake_server import Renderer
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import ConfigError
from harness.evaluate.requests import (
    generation,
    instance_keys,
    likelihoods,
    questions,
    require_supported,
    sampling,
    without,
)

pytestmark = pytest.mark.integration
GREEDY = {"until": ["\n"], "max_gen_toks": 8}
SAMPLED = {**GREEDY, "do_sample": True, "temperature": 0.7}
RENDERER: Any = Renderer()


def instance(kind: str, *arguments: Any, repeats: int = 1) -> Any:
    return SimpleNamespace(request_type=kind, args=arguments, repeats=repeats)


def test_choices_of_one_prompt_are_one_question_and_equal_requests_one_request() -> None:
    asked = [
        instance("loglikelihood", "Q1", " a"),
        instance("loglikelihood", "Q2", " a"),
        instance("loglikelihood", "Q1", " b"),
        instance("loglikelihood", "Q1", " a"),
        instance("generate_until", "Q1", GREEDY),
        instance("generate_until", "Q1", dict(GREEDY)),
    ]
    found = list(questions(RENDERER, asked))
    assert sorted((question.context, question.continuations) for question in found) == [
        ("Q1", ()),
        ("Q1", (" a", " b")),
        ("Q2", (" a",)),
    ]
    keys = {key for question in found for key in question.keys}
    assert {key for one in asked for key in instance_keys(RENDERER, one)} == keys
    assert len(keys) == 4


@pytest.mark.parametrize("change", [{"max_gen_toks": 9}, {"until": ["."]}, {"temperature": 0.7, "do_sample": True}])
def test_a_change_of_the_answer_changes_the_key(change: dict[str, Any]) -> None:
    one, other = (generation(RENDERER, "Q", wanted) for wanted in (GREEDY, {**GREEDY, **change}))
    assert one.keys != other.keys
    assert generation(RENDERER, "Q ", GREEDY).keys != one.keys
    assert generation(RENDERER, "Q", dict(reversed(GREEDY.items()))).keys == one.keys


def test_repeats_have_their_own_seeds_and_greedy_ones_are_one_request() -> None:
    sampled = instance_keys(RENDERER, instance("generate_until", "Q", SAMPLED, repeats=4))
    assert len(set(sampled)) == 4
    assert sampled == instance_keys(RENDERER, instance("generate_until", "Q", SAMPLED, repeats=4))
    assert len(set(instance_keys(RENDERER, instance("generate_until", "Q", GREEDY, repeats=4)))) == 1
    seeds = [sampling({}, SAMPLED, prompt, repeat)["seed"] for prompt in ("Q1", "Q2") for repeat in range(3)]
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert sampling({}, {**SAMPLED, "seed": 1}, "Q1", 0)["seed"] not in seeds


def test_the_contracts_sampling_is_the_default_and_the_tasks_own_wins() -> None:
    defaults = {"temperature": 0.0, "repetition_penalty": 1.1}
    assert sampling(defaults, GREEDY, "Q", 0) == {**defaults, "max_tokens": 8, "stop": ["\n"]}
    assert sampling(defaults, {**GREEDY, "repetition_penalty": 1.3}, "Q", 0)["repetition_penalty"] == 1.3


@given(st.lists(st.text(min_size=1), min_size=1, max_size=6, unique=True), st.data())
def test_only_unanswered_requests_are_left(texts: list[str], data: Any) -> None:
    question = likelihoods("Q", texts)
    known = set(data.draw(st.lists(st.sampled_from(question.keys))))
    left = without(question, known)
    assert set(left.keys if left else ()) == set(question.keys) - known
    assert known.isdisjoint(left.keys if left else ())


def test_whole_documents_are_refused_and_every_such_task_is_named() -> None:
    rolling = [instance("loglikelihood_rolling", "text")]
    with pytest.raises(ConfigError) as caught:
        require_supported({"wiki": rolling, "arc": [instance("loglikelihood", "Q", " a")], "pile": rolling})
    assert [fault.split(":")[0] for fault in caught.value.errors] == ["task wiki", "task pile"]
    assert "whole documents" in str(caught.value)
