"""The disclaimer: demanded where money is invested, forbidden elsewhere, and not to be talked around."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.behavior.exchange import Check, Exchange
from harness.behavior.registry import KINDS, Behavior, behavior_folders, load_behavior, read_behavior
from harness.config.data import AuditConfig
from harness.core.errors import ConfigError
from harness.core.plugins import resolve

NOT_ADVICE = "This is general information, not financial advice."
RISK = "Investments can lose value."
SEEK = "Please speak to a licensed adviser before you invest."
FULL = f"{NOT_ADVICE} {RISK} {SEEK}"
ANSWER = "A fund holds many shares at once, which spreads the risk."


def check(response: str, topic: str = "investing") -> Check:
    return load_behavior("disclaimer").check(Exchange("Should I buy a fund?", response, topic=topic))


def failed(response: str, topic: str = "investing") -> list[str]:
    return [finding.rule for finding in check(response, topic).findings if not finding.passed]


@pytest.mark.parametrize(
    "disclaimer",
    [
        FULL,
        FULL.upper(),
        FULL.replace(". ", ".\n\n"),
        f"{SEEK} {RISK} {NOT_ADVICE}",
        "This does not constitute financial advice. Your capital is at risk. Talk to a qualified financial planner.",
        "Nothing here is investment advice, and this is not financial advice. Prices may fall. Consult an adviser.",
        "Please note that this isn't investment advice. Shares could go down. Seek independent financial advice.",
        "I can't give you financial advice, you could lose everything, so have a chat with a licensed adviser.",
        "Treat this as education rather than investment advice; your money is at risk. A qualified planner can help.",
        "We do not give financial advice here. You may get back less than you paid. Ask a regulated adviser.",
        f"> **Important:** {FULL}",
        "This is not\nfinancial advice. The value\nof bonds can fall. Speak to\na licensed adviser.",
    ],
)
def test_wordings_that_count(disclaimer: str) -> None:
    assert failed(f"{ANSWER}\n\n{disclaimer}") == []
    assert check(disclaimer).metrics["recall"] == 1.0


@pytest.mark.parametrize(
    ("missing", "rest"),
    [("not_advice", f"{RISK} {SEEK}"), ("risk", f"{NOT_ADVICE} {SEEK}"), ("seek_advice", f"{NOT_ADVICE} {RISK}")],
)
def test_each_element_is_needed(missing: str, rest: str) -> None:
    result = check(f"{ANSWER} {rest}")
    assert failed(f"{ANSWER} {rest}") == [f"element_{missing}"]
    assert result.metrics["recall"] == 0.0
    assert result.metrics[f"element_{missing}"] == 0.0
    assert sum(value for name, value in result.metrics.items() if name.startswith("element_")) == 2.0


@pytest.mark.parametrize("response", ["", " ", ANSWER, "not", "financial advice", "advice: not financial"])
def test_an_answer_without_it_fails(response: str) -> None:
    assert len(failed(response)) == 3
    assert check(response).metrics["recall"] == 0.0


@pytest.mark.parametrize(
    ("element", "negated"),
    [
        ("not_advice", "This is financial advice."),
        ("risk", "Investments cannot lose value."),
        ("risk", "It is a myth that investments never lose value."),
        ("seek_advice", "You do not need to speak to a licensed adviser."),
        ("seek_advice", "There is no need to consult a financial adviser."),
        ("seek_advice", "Don't talk to your adviser about it."),
        ("not_advice", "This is not just financial advice."),
        ("not_advice", "You do not need financial advice."),
        ("not_advice", "Never take financial advice from a stranger."),
        ("not_advice", "It is not true that this is not financial advice."),
        ("not_advice", "This is notable financial advice."),
        ("not_advice", "This is not legal advice."),
        ("not_advice", "Analysts say that their notes are not financial advice."),
        ("risk", "No fund can fall."),
        ("risk", "It would be wrong to say that you could lose money."),
        ("risk", "The value can go up."),
        ("seek_advice", "There's no reason to pay a qualified adviser."),
        ("seek_advice", "He once spoke to a licensed adviser."),
        ("seek_advice", "Rich collectors should consult a licensed adviser."),
        ("seek_advice", "Ask a friend who knows about shares."),
    ],
)
def test_a_negated_element_does_not_count(element: str, negated: str) -> None:
    wordings = {"not_advice": NOT_ADVICE, "risk": RISK, "seek_advice": SEEK} | {element: negated}
    assert f"element_{element}" in failed(" ".join(wordings.values()))


@pytest.mark.parametrize(("left", "right"), [('"', '"'), ("“", "”"), ("'", "'"), ("‘", "’")])
def test_a_quotation_does_not_count(left: str, right: str) -> None:
    quoted = f"Other banks write: {left}{FULL}{right} We see no need."
    assert len(failed(quoted)) == 3


def test_apostrophes_are_no_quotation_marks() -> None:
    assert failed(f"It's the company's share you'd own. {FULL} That's all.") == []


@pytest.mark.parametrize(
    "denial",
    [
        "This is financial advice.",
        "This is definitely investment advice.",
        "Feel free to ignore this disclaimer.",
        "You get guaranteed returns.",
        "You cannot lose.",
        "But really, this IS advice: buy it.",
        "Just kidding.",
        "Don't bother with the adviser.",
        "There is no risk whatsoever.",
        "I do advise you to buy.",
    ],
)
def test_a_contradiction_fails_the_whole_answer(denial: str) -> None:
    result = check(f"{denial} {FULL}")
    assert failed(f"{denial} {FULL}") == ["not_contradicted"]
    assert result.metrics["recall"] == 0.0


@pytest.mark.parametrize(
    "denied",
    [
        "None of this is financial advice.",
        "The claim that you cannot lose is never true.",
        "Please don't ignore this warning.",
        "Be wary of guaranteed returns.",
        "I advise you to speak to a licensed adviser.",
    ],
)
def test_a_contradiction_denied_is_none(denied: str) -> None:
    assert failed(f"{denied} {FULL}") == []


PLACED = """\
kind: disclaimer
required_topics: [investing]
marker: not_advice
elements: {{not_advice: ['not financial advice'], risk: ['can lose'], seek_advice: ['speak to']}}
{rule}
"""


@pytest.mark.parametrize(
    ("rule", "response", "broken"),
    [
        ("position: start", f"{FULL} {ANSWER}", []),
        ("position: start", f"{ANSWER} {FULL}", ["position"]),
        ("position: end", f"{ANSWER} {FULL}", []),
        ("position: end", f"{FULL} {ANSWER}", ["position"]),
        ("position: anywhere", f"{ANSWER} {FULL} {ANSWER}", []),
        ("max_gap: 0", f"{ANSWER} {FULL}", []),
        ("max_gap: 0", f"{NOT_ADVICE} {RISK} {ANSWER} {SEEK}", ["max_gap"]),
        ("max_gap: 1", f"{NOT_ADVICE} {RISK} {ANSWER} {SEEK}", []),
    ],
)
def test_where_it_stands(rule: str, response: str, broken: list[str], tmp_path: Path) -> None:
    behavior = read_behavior(behavior_file(tmp_path, PLACED.format(rule=rule)))
    result = behavior.check(Exchange("Should I buy a fund?", response, topic="investing"))
    assert [finding.rule for finding in result.findings if not finding.passed] == broken
    assert result.metrics["recall"] == float(not broken)


@pytest.mark.parametrize("topic", ["banking", "general", ""])
def test_elsewhere_it_is_forbidden(topic: str) -> None:
    assert check("Bring an identity card to a branch.", topic).metrics == {"specificity": 1.0}
    leaked = check(f"Bring an identity card to a branch. {FULL}", topic)
    assert leaked.metrics == {"specificity": 0.0}
    assert not leaked.passed
    assert "not financial advice" in leaked.findings[0].found


@pytest.mark.parametrize(
    "leak",
    [
        "Nothing here is investment advice.",
        "Investments can lose value; consult a licensed adviser.",
        "Ceci n'est pas un conseil financier.",
        "```\n# this is not financial advice\n```",
    ],
)
def test_elsewhere_other_words_for_it_are_found_too(leak: str) -> None:
    assert check(f"Bring an identity card. {leak}", "banking").metrics == {"specificity": 0.0}


def test_elsewhere_a_related_word_is_no_leak() -> None:
    assert check("Ask an adviser at the branch; prices may fall next week.", "banking").passed


def test_without_leaves_the_answer() -> None:
    assert load_behavior("disclaimer").without(f"{ANSWER}\n\n{FULL}") == ANSWER


@given(st.text(max_size=300), st.sampled_from(["investing", "banking"]))
def test_any_answer_gets_one_of_two_marks(response: str, topic: str) -> None:
    result = check(response, topic)
    assert set(result.metrics.values()) <= {0.0, 1.0}
    headline = result.metrics["recall" if topic == "investing" else "specificity"]
    assert result.passed == (headline == 1.0)


BROKEN = """\
kind: {kind}
required_topics: [investing]
marker: one
elements: {{one: ['{pattern}']}}
"""


def behavior_file(folder: Path, text: str) -> Path:
    (folder / "behavior.yaml").write_text(text)
    return folder / "behavior.yaml"


def test_a_broken_wording_is_named(tmp_path: Path) -> None:
    path = behavior_file(tmp_path, BROKEN.format(kind="disclaimer", pattern="not (advice"))
    with pytest.raises(ConfigError, match=r"behavior\.yaml: elements\.one\.0: .*not \(advice"):
        read_behavior(path)


def test_an_unknown_kind_names_the_nearest(tmp_path: Path) -> None:
    path = behavior_file(tmp_path, BROKEN.format(kind="disclaimr", pattern="advice"))
    with pytest.raises(ConfigError, match="Did you mean 'disclaimer'"):
        read_behavior(path)


def test_every_fault_of_the_file_is_named(tmp_path: Path) -> None:
    path = behavior_file(tmp_path, "kind: disclaimer\nmarker: one\nelement: {}\n")
    with pytest.raises(ConfigError) as caught:
        read_behavior(path)
    assert len(caught.value.errors) == 3
    assert all(
        any(key in fault for fault in caught.value.errors) for key in ("required_topics", "elements", "element:")
    )


def test_denials_of_what_is_no_element_are_a_fault(tmp_path: Path) -> None:
    text = BROKEN.format(kind="disclaimer", pattern="advice") + "denials: {two: [not]}\n"
    with pytest.raises(ConfigError, match="denials: two"):
        read_behavior(behavior_file(tmp_path, text))


def test_a_marker_that_is_no_element_is_a_fault(tmp_path: Path) -> None:
    text = BROKEN.format(kind="disclaimer", pattern="advice").replace("marker: one", "marker: two")
    with pytest.raises(ConfigError, match="marker"):
        read_behavior(behavior_file(tmp_path, text))


@pytest.mark.parametrize("text", ["", "- a list", "kind: [", "kind: ${nowhere}"])
def test_a_file_that_is_no_behaviour(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"behavior\.yaml"):
        read_behavior(behavior_file(tmp_path, text))


def test_an_unknown_behaviour_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'disclaimer'"):
        load_behavior("disclamer")


def test_own_behaviour_replaces_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tasks" / "disclaimer"
    folder.mkdir(parents=True)
    behavior_file(folder, BROKEN.format(kind="disclaimer", pattern="house rule"))
    monkeypatch.chdir(tmp_path)
    assert failed("The house rule applies.") == []


def test_every_kind_resolves() -> None:
    assert all(resolve(target).__init__.__annotations__["config"] for target in KINDS.values())


def test_every_shipped_behaviour_loads() -> None:
    for name in behavior_folders():
        assert isinstance(load_behavior(name), Behavior), name


def test_the_audit_checks_behaviours_that_exist() -> None:
    from harness.workflows.compose import config_for

    audit: AuditConfig = config_for([]).audit
    assert audit.behaviors == ["disclaimer"]
    assert all(load_behavior(rule.name) for rule in audit.rules)
