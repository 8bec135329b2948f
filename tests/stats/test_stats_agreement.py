"""Cohen's kappa against hand calculation and another implementation."""

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa

from harness.core.errors import MissingDependency
from harness.stats.proportion import cohen_kappa


def test_by_hand() -> None:
    left = ["yes"] * 25 + ["no"] * 25
    right = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(left, right) == pytest.approx((0.7 - 0.5) / (1 - 0.5))


@pytest.mark.parametrize(
    ("left", "right", "kappa"),
    [
        ([1, 2, 3, 1, 2, None], [1, 2, 2, None, 2, None], 0.5384615384615384),
        ([True, True, False, False, True, True, None], [True, False, False, None, True, True, True], 0.25),
        ([1, 1, 1], [1, 1, 2], 0.0),
        (["a", "a"], ["b", "b"], 0.0),
    ],
)
def test_any_labels_can_be_compared(left: list[object], right: list[object], kappa: float) -> None:
    """(observed − chance)/(1 − chance), computed once; None is the judge that gave no verdict."""
    assert cohen_kappa(left, right) == pytest.approx(kappa, abs=1e-12)


def test_no_chance_to_disagree() -> None:
    assert math.isnan(cohen_kappa([1, 1], [1, 1]))


def test_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="at least one"):
        cohen_kappa([], [])
    with pytest.raises(ValueError, match="1 and 2"):
        cohen_kappa([1], [1, 2])


def test_without_scikit_learn_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(MissingDependency, match=r"scikit-learn.*pip install 'tuning-harness\[data\]'"):
        cohen_kappa([1, 2], [1, 1])


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_as_statsmodels_has_it(pairs: list[tuple[int, int]]) -> None:
    table = [[pairs.count((i, j)) for j in range(3)] for i in range(3)]
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    mine = cohen_kappa(left, right)
    if not math.isnan(mine):
        assert mine == pytest.approx(cohens_kappa(table, return_results=False))
    assert cohen_kappa(left, right) <= 1 or math.isnan(mine)
