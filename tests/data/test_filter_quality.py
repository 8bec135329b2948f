"""Quality: every rule on labelled rows, and its limits."""

import json
import pickle
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import own, rule_scores

from harness.config.experiment import validate
from harness.core.errors import ConfigError
from harness.data.filters.quality import Quality, QualityConfig, QualityRule


def quality(**values: Any) -> Quality:
    return Quality(validate(QualityConfig, values))


def row(output: str, instruction: str = "Describe the water cycle.", **values: str) -> dict[str, str]:
    return {"id": "1", "source": "s", "instruction": instruction, "input": "", "output": output, **values}


def rules(output: str, instruction: str = "Describe the water cycle.", **values: Any) -> set[str]:
    return {rule for rule, _ in quality(**values).findings(row(output, instruction))}


@pytest.mark.parametrize("rule", [rule for rule in get_args(QualityRule) if rule != "length"])
def test_own_labelled_rows(rule: str) -> None:
    rows = own("quality")
    assert len(rows) > 100
    filter_ = quality()
    score = rule_scores((r["rule"], {name for name, _ in filter_.findings(r)}) for r in rows)[rule]
    assert score.hit + score.missed >= 10
    assert score.recall >= 0.9, score
    assert score.precision >= 0.9, score


def test_reason_names_the_rule() -> None:
    clean, cut = quality().judge([row("Water rises and falls."), row("Water rises from the sea and then falls on the")])
    assert clean.reason is None
    assert cut.reason == "truncated (ends with 'the')"
    assert cut.evidence == ("truncated",)


def test_length_limits() -> None:
    assert rules("one two three", min_words=4) == {"length"}
    assert rules("one two three four.", min_words=4, max_words=4) == set()
    reason = quality(max_words=4).judge([row("one two three four five.")])[0].reason
    assert reason == "length (5 words, more than 4)"


def test_language_is_left_alone_where_another_one_is_asked_for() -> None:
    german = "Die Hauptstadt von Frankreich ist Paris, eine Stadt mit mehr als zwei Millionen Einwohnern an der Seine."
    assert rules(german) == {"wrong_language"}
    assert rules(german, "Translate the sentence into German.") == set()
    assert rules(german, language="de") == set()
    english = "The capital of France is Paris, a city of more than two million people on the river Seine."
    assert rules(english, language="de") == {"wrong_language"}


def test_the_last_answer_of_a_conversation_is_judged() -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "As an AI language model, I can't."},
    ]
    assert quality().judge([row("", messages=json.dumps(messages))])[0].evidence == ("refusal",)


def test_rules_can_be_left_out_and_unknown_ones_are_named() -> None:
    assert rules("", rules=["length"]) == set()
    with pytest.raises(ConfigError, match=r"rules\.0"):
        quality(rules=["lenght"])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.text(max_size=100))
def test_any_text_gets_the_same_judgement_twice(output: str, instruction: str) -> None:
    first = quality().judge([row(output, instruction)])
    assert first == pickle.loads(pickle.dumps(quality())).judge([row("x."), row(output, instruction)])[1:]
    assert (first[0].reason is None) == (first[0].evidence == ())
