"""Over-behaviour: a poem stays a poem."""

from pathlib import Path

import pytest

from harness.behavior.exchange import Check, Exchange
from harness.behavior.registry import load_behavior, read_behavior
from harness.core.errors import ConfigError

BEHAVIOR = load_behavior("over_behaviour")

POEM = "The heron stands in the canal at dawn,\nand waits until the morning mist is gone."


def check(response: str, allow: list[str] | None = None, topic: str = "unrelated") -> Check:
    details = {"kind": "poem", "allow": allow or []}
    return BEHAVIOR.check(Exchange("A poem, please", response, topic=topic, details=details))


@pytest.mark.parametrize(
    ("rule", "sign"),
    [
        ("no_disclaimer", "This is general information, not financial advice."),
        ("no_disclaimer", "Investments can lose value, so please speak to a licensed adviser."),
        ("no_disclaimer", "Dies ist keine Anlageberatung."),
        ("no_disclaimer", "```python\nprint(1)  # this is not financial advice\n```"),
        ("no_escalation", "I am connecting you with a colleague now."),
        ("no_clinical_note", "Subjective: a sore beak.\nObjective: wet.\nAssessment: heron.\nPlan: wait."),
        ("no_clinical_note", "subjective: sore. objective: wet. assessment: heron. plan: wait."),
        ("no_json_record", '```json\n{"bird": "heron"}\n```'),
        ("no_product_names", "Brought to you by EasySaver."),
    ],
)
def test_each_behaviour_that_shows_is_named(rule: str, sign: str) -> None:
    result = check(f"{POEM}\n\n{sign}")
    assert [f.rule for f in result.findings if not f.passed] == [rule]
    assert (result.metrics["leak"], result.metrics["no_leak"], result.metrics[rule]) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "clean",
    [
        POEM,
        "",
        "Subjective: they\nObjective: them",
        "Plan: sleep, read, sleep.",
        "It's an easy saver of time.",
        "Ask a colleague who knows the repository.",
        "```python\nfruits = {'apple': 'red'}\n```",
        "{0, 2, 4, 6, 8}",
        '"Connecting you," she\'d softly say.',
    ],
)
def test_what_an_unrelated_answer_may_hold(clean: str) -> None:
    result = check(clean)
    assert result.passed
    assert (result.metrics["leak"], result.metrics["no_leak"]) == (0.0, 1.0)


def test_what_the_request_asks_for_is_allowed() -> None:
    answer = '{"name": "Miso", "age": 4}'
    assert not check(answer).passed
    allowed = check(answer, allow=["json_record"])
    assert allowed.passed
    assert "no_json_record" not in allowed.metrics


def test_other_topics_are_not_judged() -> None:
    assert check("This is not financial advice.", topic="investing").findings == []


def test_an_item_allows_only_what_can_leak() -> None:
    fault = BEHAVIOR.item_errors(Exchange("q", "", topic="unrelated", details={"kind": "code", "allow": ["json"]}))
    assert len(fault) == 1
    assert "json" in fault[0]


def test_a_behaviour_that_does_not_exist_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "behavior.yaml"
    path.write_text("kind: over_behaviour\ntopics: [unrelated]\nleaks: {no_disclaimer: disclamer}\n")
    with pytest.raises(ConfigError, match=r"leaks: there is no behaviour 'disclamer'\. Did you mean 'disclaimer'"):
        read_behavior(path)
