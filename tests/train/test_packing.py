"""Which rows share a sequence: all of them, none twice, little room left, another mix for another seed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.prompt.render import Rendered
from harness.train.packing import join, padding_share, plan_sequences


def lengths(count: int, longest: int) -> list[int]:
    """Log-normal with a median of 150 tokens, as conversations are."""
    generator = random.Random(7)
    return [min(longest, max(8, int(generator.lognormvariate(5, 0.7)))) for _ in range(count)]


@given(sizes=st.lists(st.integers(1, 50), max_size=60), room=st.integers(0, 80), seed=st.integers(0, 3))
def test_every_row_once_and_no_sequence_too_long(sizes: list[int], room: int, seed: int) -> None:
    length = max(sizes, default=1) + room
    bins = plan_sequences(sizes, length, seed)
    assert sorted(row for members in bins for row in members) == list(range(len(sizes)))
    assert all(sum(sizes[row] for row in members) <= length for members in bins)


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=60), seed=st.integers(0, 3))
def test_no_two_sequences_could_be_one(sizes: list[int], seed: int) -> None:
    used = sorted(sum(sizes[row] for row in members) for members in plan_sequences(sizes, 64, seed))
    assert len(used) == 1 or used[0] + used[1] > 64


@pytest.mark.parametrize("length", [512, 1024, 2048])
def test_padding_is_under_three_percent(length: int) -> None:
    sizes = lengths(2000, length)
    assert 1 - sum(sizes) / (length * len(plan_sequences(sizes, length, 0))) < 0.03


def test_the_share_of_padding_is_that_of_places_without_a_token() -> None:
    rows = [Rendered([1] * size, [True] * size) for size in (6, 2, 7)]
    assert padding_share([join(rows[:2]), join(rows[2:])], 10) == pytest.approx(5 / 20)


def test_many_rows_are_packed_without_looking_at_every_open_sequence() -> None:
    """Quadratic first-fit takes hours for these."""
    sizes = lengths(200_000, 8192)
    assert sum(map(len, plan_sequences(sizes, 8192, 0))) == 200_000


def test_long_rows_do_not_come_first() -> None:
    sizes = lengths(2000, 512)
    longest = [max(sizes[row] for row in members) for members in plan_sequences(sizes, 512, 0)]
    first, last = longest[: len(longest) // 2], longest[len(longest) // 2 :]
    assert sum(first) / len(first) == pytest.approx(sum(last) / len(last), rel=0.1)


def test_a_seed_gives_one_mix_and_another_seed_another() -> None:
    sizes = lengths(300, 512)
    assert plan_sequences(sizes, 512, 0) == plan_sequences(sizes, 512, 0)
    assert {frozenset(m) for m in plan_sequences(sizes, 512, 0)} != {
        frozenset(m) for m in plan_sequences(sizes, 512, 1)
    }
