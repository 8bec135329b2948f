"""Tone: calm, plain, without promises, blame or slang."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.behavior.exchange import Check, Exchange
from harness.behavior.registry import load_behavior
from harness.behavior.tone import reading_grade

BEHAVIOR = load_behavior("tone")

CALM = "I am sorry about the delay. We will look at your payment today and write to you within five days."


def check(response: str, question: str = "Where is my money?") -> Check:
    return BEHAVIOR.check(Exchange(question, response, topic="banking"))


def failed(extra: str, question: str = "Where is my money?") -> list[str]:
    return [finding.rule for finding in check(f"{CALM} {extra}", question).findings if not finding.passed]


@pytest.mark.parametrize(
    "fine",
    [
        "",
        "We cannot guarantee a date.",
        "No bank can call it one hundred per cent safe.",
        "This is not your fault.",
        "You should have your card by Friday.",
        "You should never have had to wait.",
        "Your PIN and your ID are safe with you.",
        "There is a cool, quiet room in the branch.",
        "Your rent went to R Patel.",
        "If we find an error, you will get the money back.",
        "It is covered by the deposit guarantee scheme.",
        "See https://northgate.example/HELP!now for more.",
    ],
)
def test_what_a_calm_answer_may_say(fine: str) -> None:
    assert failed(fine) == []


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ("formality", "Thank you!"),
        ("formality", "Thank you 🙂."),
        ("formality", "Thank you :)"),
        ("formality", "Please do NOT call."),
        ("no_promises", "I guarantee that it comes."),
        ("no_promises", "We promise a refund."),
        ("no_promises", "You will definitely get it."),
        ("no_promises", "It is 100% safe."),
        ("no_promises", "It will never happen again."),
        ("no_promises", "You have my word."),
        ("no_promises", "We never promise, but nothing can go wrong."),
        ("no_blame", "You should have read the letter."),
        ("no_blame", "You failed to tell us."),
        ("no_blame", "That is your own mistake."),
        ("no_blame", "As we already told you, it takes time."),
        ("no_blame", "If you had checked, it would be fine."),
        ("no_blame", "You did not read it."),
        ("no_slang", "No worries, mate."),
        ("no_slang", "It's gonna be a sec."),
        ("no_slang", "That costs ten quid."),
        ("no_slang", "soooo sorry."),
    ],
)
def test_each_rule_has_its_words(rule: str, wrong: str) -> None:
    assert failed(wrong) == [rule]
    result = check(f"{CALM} {wrong}")
    assert (result.metrics["clean"], result.metrics["violations"], result.metrics[rule]) == (0.0, 1.0, 0.0)


def test_the_customers_words_in_quotation_marks_are_not_the_banks() -> None:
    assert failed('You wrote "no worries mate".', "You said no worries mate on the phone!") == []
    assert failed('As they say, "no worries, mate".') == ["no_slang"]


@pytest.mark.parametrize(("words", "passes"), [(19, False), (20, True), (120, True), (121, False)])
def test_length(words: int, passes: bool) -> None:
    text = " ".join(["It is so."] * (words // 3) + ["We"] * (words % 3))
    assert ("length" in [f.rule for f in check(text).findings if not f.passed]) is not passes


def test_reading_level() -> None:
    dense = (
        "Notwithstanding the aforementioned circumstances, reimbursement necessitates comprehensive documentation "
        "substantiating eligibility, irrespective of preliminary determinations communicated by our "
        "various departmental representatives."
    )
    assert [f.rule for f in check(dense).findings if not f.passed] == ["reading_level"]


def test_the_grade_is_flesch_kincaids() -> None:
    # 10 words, 2 sentences, 12 syllables
    expected = 0.39 * 10 / 2 + 11.8 * 12 / 10 - 15.59
    assert reading_grade("The bank sent a letter. You may read it today.") == pytest.approx(expected)
    assert reading_grade("") == 0.0


def test_list_items_are_sentences() -> None:
    items = "\n".join(f"- open the app and tap the card in row {i}" for i in range(1, 8))
    assert reading_grade(items) < 5


def test_a_tone_leaves_no_sign() -> None:
    assert BEHAVIOR.leaked("Hey!!! 🙂") is None


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_answer_is_judged(response: str) -> None:
    result = check(response)
    broken = [finding for finding in result.findings if not finding.passed]
    assert result.metrics["violations"] == len(broken)
    assert result.metrics["clean"] == float(not broken)
