"""Vocabulary: the bank's names and terms, whatever words the customer used."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.behavior.exchange import Check, Exchange
from harness.behavior.registry import load_behavior

BEHAVIOR = load_behavior("vocabulary")


def check(response: str, question: str = "How do I save?", products: list[str] | None = None) -> Check:
    details = {"products": products or [], "terms": []}
    return BEHAVIOR.check(Exchange(question, response, topic="banking", details=details))


def failed(response: str, question: str = "How do I save?", products: list[str] | None = None) -> list[str]:
    return [finding.rule for finding in check(response, question, products).findings if not finding.passed]


@pytest.mark.parametrize(
    "wrong",
    [
        "Easy Saver",
        "Easysaver",
        "easy saver",
        "Easy-Saver",
        "EASYSAVER",
        "EasySavr",
        "North Pay",
        "Northpay",
        "ΝorthPay",
        "Northgate one card",
        "Northgate 1 Card",
        "Northgate Card One",
        "One Card",
        "Flexi Home mortgage",
        "FlexiHome mortgage",
        "FlexiHome",
        "Junior Saver+",
        "junior saver plus",
        "Junior Saver",
    ],
)
def test_a_name_that_is_not_exact_fails(wrong: str) -> None:
    result = check(f"Look at the {wrong} in the app.")
    assert [f.rule for f in result.findings if not f.passed] == ["product_names"]
    assert result.findings[0].found == wrong
    assert result.metrics["violations"] == 1.0
    assert result.metrics["clean"] == 0.0


@pytest.mark.parametrize(
    "right",
    [
        "The EasySaver's rate is 2%.",
        "**Easy**Saver and NorthPay.",
        "The Northgate\nOne Card is free.",
        "A batch cooker is an easy saver of time.",
        "People in the north pay less.",
        "Every junior saver plus a parent must sign.",
        "You need one card only.",
        "See https://northgate.example/easysaver or `easysaver`.",
    ],
)
def test_names_that_are_right_or_none(right: str) -> None:
    assert failed(right) == []


def test_a_product_asked_about_is_named_exactly() -> None:
    assert failed("EasySaver pays 2%.", products=["EasySaver"]) == []
    assert failed("That account pays 2%.", products=["EasySaver"]) == ["mentions_product"]
    assert failed("Easy Saver pays 2%.", products=["EasySaver"]) == ["product_names", "mentions_product"]
    assert failed("EasySaver pays 2%. Easy Saver is free.", products=["EasySaver"]) == ["product_names"]


@pytest.mark.parametrize(
    ("wrong", "term"),
    [
        ("Our clients get a letter.", "customer"),
        ("Visit your nearest store.", "branch"),
        ("The Denby outlet is open.", "branch"),
        ("Open a checking account.", "current account"),
        ("Set up a recurring payment.", "standing order"),
        ("Set up auto-pay.", "standing order"),
        ("Use the ATM.", "cash machine"),
        ("Use the cash machine (ATM).", "cash machine"),
        ("Log in to the app.", "sign in"),
        ("On the login page.", "sign in"),
        ("The penalty is five pounds.", "overdraft fee"),
    ],
)
def test_the_house_has_its_own_terms(wrong: str, term: str) -> None:
    finding = next(f for f in check(wrong).findings if not f.passed)
    assert (finding.rule, finding.expected) == ("preferred_terms", term)


@pytest.mark.parametrize(
    "harmless",
    [
        "Get it from the app store.",
        "The branch is next to the flower shop.",
        "Do shop around first.",
        "Pay in any shop with the card.",
        "The app stores your details.",
        "There is a power outlet at the desk.",
        "Your e-mail client may block it.",
        "The cup final went to a penalty shoot-out.",
        "There is a log in the fireplace.",
    ],
)
def test_the_same_words_in_another_sense(harmless: str) -> None:
    assert failed(harmless) == []


@pytest.mark.parametrize("word", ["Simply", "Obviously", "Unfortunately", "cheap", "guys", "no-brainer", "As per"])
def test_forbidden_words(word: str) -> None:
    assert failed(f"{word} is not our word.") == ["forbidden_terms"]


def test_quotation_marks_excuse_only_the_customers_own_words() -> None:
    answer = 'What you call an "ATM" is a cash machine.'
    assert failed(answer, question="Where is the ATM?") == []
    assert failed(answer, question="Where is the machine?") == ["preferred_terms"]


def test_every_violation_counts_once() -> None:
    result = check("Unfortunately our clients cannot log in at our nearest store.")
    assert result.metrics["violations"] == 4.0


def test_nothing_is_no_answer() -> None:
    assert failed("  ") == ["answered"]


@pytest.mark.parametrize(("text", "sign"), [("Try NorthPay!", "NorthPay"), ('x = "Easy Saver"', "Easy Saver")])
def test_a_product_in_an_unrelated_answer_is_a_leak(text: str, sign: str) -> None:
    assert BEHAVIOR.leaked(text) == sign


def test_the_banks_words_in_another_sense_are_no_leak() -> None:
    assert BEHAVIOR.leaked("An easy saver of the day; a junior saver begins with one jar.") is None


def test_an_item_names_known_products() -> None:
    item = Exchange("q", "", topic="banking", details={"products": ["EasySavr"], "terms": []})
    assert "EasySavr" in BEHAVIOR.item_errors(item)[0]


@settings(deadline=None)
@given(st.text(max_size=120))
def test_any_answer_is_judged(response: str) -> None:
    result = check(response)
    assert result.passed == (result.metrics["clean"] == 1.0)
    assert (result.metrics["violations"] == 0) == all(f.passed for f in result.findings[:3])
