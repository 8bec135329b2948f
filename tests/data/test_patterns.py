"""The pattern report: a person sees the one bad pattern, and which source it comes from."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.experiment import validate
from harness.data.patterns import ALL, Pattern, PatternConfig, PatternCounter

WORDS = [f"word{number}" for number in range(3000)]


def answer(seed: int, count: int = 30) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count)) + "."


def rows(source: str, count: int, texts: Any = answer, start: int = 0) -> list[dict[str, str]]:
    return [{"id": f"{n}", "source": source, "output": texts(n)} for n in range(start, start + count)]


def report(data: list[dict[str, str]], **values: Any) -> list[Pattern]:
    counter = PatternCounter(validate(PatternConfig, values))
    counter.update(data)
    return counter.report()


def of_kind(patterns: list[Pattern], kind: str) -> dict[tuple[str, str], Pattern]:
    return {(p.source, p.text): p for p in patterns if p.kind == kind}


def test_an_opening_of_14_percent_is_said_so() -> None:
    data = rows("a", 86) + rows("a", 14, lambda n: f"Sure, here is {answer(n)}", start=100)
    found = of_kind(report(data), "opening")
    assert set(found) == {(ALL, "sure here is")}
    pattern = found[ALL, "sure here is"]
    assert (pattern.share, pattern.rows, pattern.low, pattern.high) == (0.14, 100, 0.14, 0.14)
    assert pattern.sentence() == "14% of answers start with 'sure here is'"
    assert set(pattern.examples) <= {f"a/{n}" for n in range(100, 114)}
    assert len(pattern.examples) == 3


def test_the_deviating_source_is_pointed_out() -> None:
    data = [row for name in "abcd" for row in rows(name, 200, lambda n, name=name: answer(ord(name) + 1000 * n))]
    data += rows("bad", 60, lambda n: f"- {answer(n)}\n- {answer(n + 1)} I hope this helps you a lot today!")
    apart = [p for p in report(data) if p.apart]
    assert {p.source for p in apart} == {"bad"}
    assert {p.kind for p in apart} >= {"closing", "phrase", "format", "length"}
    assert ("bad", "i hope this helps you a lot today") in of_kind(apart, "phrase")
    formats = of_kind(apart, "format")
    assert formats["bad", "a bulleted list"].sentence() == "100% of answers of bad have a bulleted list, elsewhere 0.0%"


def test_a_phrase_counts_once_an_answer() -> None:
    data = rows("a", 90) + rows("a", 10, lambda n: "as it was said in the house. " * 5, start=200)
    phrases = [p for p in report(data) if p.kind == "phrase"]
    assert max(p.share for p in phrases) == pytest.approx(0.1)


def test_ordinary_answers_make_no_pattern() -> None:
    data = rows("a", 300) + rows("b", 300, start=5000)
    assert {p.kind for p in report(data)} == {"length"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("# Title\nText", "a heading"),
        ("```\ncode\n```", "a code block"),
        ('{"a": [1, 2]}', "JSON and nothing else"),
        ("1. one\n2. two", "a numbered list"),
        ("| a | b |\n| - | - |\n| 1 | 2 |", "a table"),
        ("It is **bold**.", "bold text"),
        ("Well done 🎉", "an emoji"),
        ("Shall I go on?", "a question at the end"),
    ],
)
def test_formats(text: str, name: str) -> None:
    assert (ALL, name) in of_kind(report(rows("a", 20, lambda n: text)), "format")


def test_lengths_of_a_source_and_of_all() -> None:
    data = rows("short", 50, lambda n: answer(n, 10)) + rows("long", 50, lambda n: answer(n, 100))
    lengths = of_kind(report(data), "length")
    assert (
        lengths["long", "words"].sentence()
        == "answers of long have 100 words (median; nine in ten 100 to 100), elsewhere 10"
    )
    assert lengths[ALL, "words"].apart is False


def test_a_sample_gives_the_share_with_its_interval() -> None:
    data = rows("a", 4000) + rows("a", 1000, lambda n: f"Sure, here is {answer(n)}", start=10_000)
    pattern = of_kind(report(data, rows_per_source=1000), "opening")[ALL, "sure here is"]
    assert pattern.rows == 5000
    assert pattern.low < 0.2 < pattern.high
    assert 0.02 < pattern.high - pattern.low < 0.06


def test_sources_weigh_by_their_rows_not_by_their_samples() -> None:
    data = rows("big", 900) + rows("small", 100, lambda n: f"Sure, here is {answer(n)}", start=10_000)
    found = of_kind(report(data, rows_per_source=50), "opening")
    assert found[ALL, "sure here is"].share == pytest.approx(0.1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_order_and_parts_do_not_matter(seed: int, parts: int) -> None:
    data = rows("a", 60, lambda n: f"Sure {answer(n % 40, 8)}") + rows("b", 25, start=500)
    config = PatternConfig(rows_per_source=30, min_rows=2)
    whole = PatternCounter(config)
    whole.update(data)
    random.Random(seed).shuffle(data)
    counter = PatternCounter(config)
    for part in range(parts):
        counter.update(data[part::parts])
    assert counter.report() == whole.report()


def test_no_rows_make_an_empty_report() -> None:
    assert report([]) == []
    assert report([{"id": "1", "source": "a", "output": ""}])
