"""The kind `approved`: what counts as said, what does not, where it must stand, and what a finding says."""

import random
import time
from typing import Any

import pytest
from approved_cases import OPENINGS, TEXT, faults, improper, proper

from harness.behavior.approved import Approved, ApprovedConfig
from harness.behavior.exchange import Check, Exchange
from harness.behavior.registry import read_behavior
from harness.config.experiment import validate
from harness.core.errors import ConfigError

DEMAND = "This is general information, not financial advice."


def behavior(*texts: dict[str, Any], **settings: Any) -> Approved:
    values = {"kind": "approved", "required_topics": ["investing"], "approved": list(texts), **settings}
    return Approved(validate(ApprovedConfig, values))


def check(answer: str, topic: str = "investing", **text: Any) -> Check:
    return behavior({"text": DEMAND, **text}).check(Exchange("q", answer, "", topic, {}))


@pytest.mark.parametrize("tolerance", [0, 2])
def test_proper_and_improper_answers_are_told_apart(tolerance: int) -> None:
    one, rng = behavior({"text": TEXT, "tolerance": tolerance}), random.Random(7)
    for _ in range(400):
        answer = proper(rng)
        found = one.check(Exchange("q", answer, "", "investing", {}))
        assert found.passed, (answer, found.findings)
    for _ in range(40):
        for answer in faults(rng):
            found = one.check(Exchange("q", answer, "", "investing", {}))
            assert not found.passed, answer


TAKEN_BACK = (
    f"I will not tell you: {DEMAND}", f"It is not true: {DEMAND}", f"Never say the following: {DEMAND}",
    f"{DEMAND} But honestly, none of that is true.", f"Everything in the next sentence is a lie: {DEMAND}",
    f"What I am not going to write is this:\n\n{DEMAND}", f"{DEMAND} Well, actually it is financial advice.",
    f"You won't hear this from me: {DEMAND}", f"My bank wants me to add: {DEMAND}",
    f"If a lawyer asked, I would say: {DEMAND}", f"{DEMAND[:-1]}? No way.", f"~~{DEMAND}~~", f"<!-- {DEMAND} -->",
)  # fmt: skip
STILL_SAID = (
    f"No one knows the future: {DEMAND}", f"**Disclaimer:** {DEMAND}", f"Nothing is free.\n- {DEMAND}",
    f"{DEMAND} Do not forget that fees matter.", f"{DEMAND} It is not a promise.", f"{DEMAND} Ignore short-term noise.",
    f"What I tell you here is not meant to be financial advice. {DEMAND}",
)  # fmt: skip


def test_a_text_that_is_taken_back_and_one_that_is_not() -> None:
    assert [answer for answer in TAKEN_BACK if check(answer).passed] == []
    assert [answer for answer in STILL_SAID if not check(answer).passed] == []


def test_no_improper_row_of_a_planted_set_is_kept() -> None:
    one, rng = behavior({"text": TEXT, "tolerance": 1}), random.Random(11)
    kept = [
        row for row in (improper(rng) for _ in range(200)) if one.check(Exchange("q", row, "", "investing", {})).passed
    ]
    assert kept == []


def test_a_tolerance_spares_no_number_and_no_negation() -> None:
    near = "This is just general information, not financial advice."
    assert not check(near).passed
    found = check(near, tolerance=1)
    assert found.passed
    assert found.findings[0].found.endswith("(with – → just)")
    assert check("This is general info, not financial advice.", tolerance=1).passed
    assert not check("This is general information, financial advice.", tolerance=3).passed
    assert not check("This is general information, never financial advice.", tolerance=3).passed
    limit = {"text": "Transfers above 500 euros take 2 days.", "tolerance": 2}
    assert (
        not behavior(limit).check(Exchange("q", "Transfers above 900 euros take 2 days.", "", "investing", {})).passed
    )


@pytest.mark.parametrize(
    ("placement", "answer", "passes"),
    [
        ("start", f"{DEMAND} A fund holds shares.", True),
        ("start", f"A fund holds shares. {DEMAND}", False),
        ("end", f"A fund holds shares. {DEMAND}", True),
        ("end", f"{DEMAND} A fund holds shares.", False),
        ("own_paragraph", f"A fund holds shares.\n{DEMAND}\nGoodbye.", True),
        ("own_paragraph", f"A fund holds shares. {DEMAND}", False),
    ],
)
def test_placement(placement: str, answer: str, passes: bool) -> None:
    assert check(answer, placement=placement).passed == passes


def test_variants_and_findings_in_words() -> None:
    assert check("Das ist keine Anlageberatung.", variants=["Das ist keine Anlageberatung."]).passed
    assert check("A fund.").findings[0].found == "nothing of it"
    assert check("General information.").findings[0].found == "not said; missing: this, is, not, financial, advice"
    assert check(f'They say "{DEMAND}"').findings[0].found == "inside quotation marks or code"
    assert check(f"Ignore this: {DEMAND}").findings[0].found.startswith("d")


def test_other_topics_and_the_rest_of_the_text() -> None:
    leak = check(f"Your card arrives on Monday. {DEMAND}", topic="banking")
    assert (leak.passed, leak.metrics) == (False, {"specificity": 0.0})
    assert check("Your card arrives on Monday.", topic="banking").metrics == {"specificity": 1.0}
    assert behavior({"text": DEMAND}).without(f"A fund. {DEMAND} Goodbye.") == "A fund.  Goodbye."
    denied = behavior({"text": DEMAND}, contradictions=["buy (it )?now"])
    assert not denied.check(Exchange("q", f"Buy now! {DEMAND}", "", "investing", {})).passed


def test_a_file_of_it(tmp_path: Any) -> None:
    path = tmp_path / "behavior.yaml"
    path.write_text(f"kind: approved\nrequired_topics: [a]\napproved:\n  - {{text: '{DEMAND}', tolerance: 1}}\n")
    assert read_behavior(path).check(Exchange("q", DEMAND, "", "a", {})).metrics == {
        "recall": 1.0,
        "approved_text": 1.0,
    }
    path.write_text("kind: approved\napproved: [{text: '{name}'}]\n")
    with pytest.raises(ConfigError, match="has no word besides placeholders"):
        read_behavior(path)


def test_long_answers_take_time_that_grows_with_them() -> None:
    one = behavior({"text": TEXT, "tolerance": 5})
    started = time.process_time()
    for long in (OPENINGS[0] * 4000, TEXT[:60] * 2000, '"' * 50_000, "not " * 40_000):
        one.check(Exchange("q", long, "", "investing", {}))
    assert time.process_time() - started < 20
