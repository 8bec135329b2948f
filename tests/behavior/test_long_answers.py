"""No grader's time grows with the square of an answer: answers of 60,000 characters of any kind take a second or so."""

import time

import pytest

from harness.behavior.exchange import Exchange
from harness.behavior.registry import behavior_folders, load_behavior

LENGTH = 60_000
PIECES = [
    "1",
    "a",
    " ",
    "a ",
    "not ",
    "~~",
    "<s>",
    "<!--",
    '"',
    "'",
    "(",
    "`",
    "*",
    "a-",
    "a.",
    "1.",
    "@",
    "\n",
    "- a\n",
    "é",
    "> a\n",
]


@pytest.mark.parametrize("name", sorted(behavior_folders()))
@pytest.mark.parametrize("piece", PIECES)
def test_a_long_answer_is_graded_in_time(name: str, piece: str) -> None:
    """In a process of its own a try takes under a second; the limit only tells a square from a line."""
    behavior = load_behavior(name)
    text = (piece * (LENGTH // len(piece) + 1))[:LENGTH]
    before = time.process_time()
    behavior.check(Exchange(instruction="Should I buy shares?", input="", response=text, topic="investing"))
    assert time.process_time() - before < 20
