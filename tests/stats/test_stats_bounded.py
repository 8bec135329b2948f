"""The test of bounded means: against the exact binomial test, simulation of its definition, and enumeration."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from harness.stats.bounded import MOST_DISTINCT, bounded_mean_p
from harness.stats.checks import FloatArray

SAMPLES = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=2, max_size=40).map(np.array)


@pytest.mark.parametrize(("right", "n"), [(59, 59), (48, 50), (0, 20), (97, 100), (970, 1000), (3, 4)])
@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9, 0.95])
def test_right_and_wrong_values_give_the_exact_binomial_test(right: int, n: int, rate: float) -> None:
    values = np.repeat([1.0, 0.0], [right, n - right])
    exact = binom.sf(right - 1, n, rate)
    assert bounded_mean_p(values, rate, 0.0) == pytest.approx(exact, rel=1e-6, abs=1e-14)
    assert exact == pytest.approx(beta.cdf(rate, right, n - right + 1) if right else 1.0)


@pytest.mark.parametrize("n", [2, 5, 30, 300])
def test_it_is_the_chance_that_a_randomly_weighted_mean_is_at_most_the_bound(n: int) -> None:
    generator = np.random.default_rng(n)
    values = generator.beta(0.5, 2, n) - 0.2
    bound = float(values.mean()) - 0.1 / math.sqrt(n)
    weights = generator.dirichlet(np.ones(n + 1), size=40_000)
    drawn = float(np.mean(weights @ np.append(values, -1.0) <= bound))
    assert bounded_mean_p(values, bound, -1.0) == pytest.approx(drawn, abs=0.01)


def test_many_distinct_values_are_judged_like_few() -> None:
    """Above so many they are shared out between the points of a grid."""
    values = np.random.default_rng(0).normal(0, 0.3, MOST_DISTINCT + 500).clip(-1, 1)
    rounded = np.round(values, 3)  # on another grid
    assert len(np.unique(values)) > MOST_DISTINCT > len(np.unique(rounded))
    for bound in (-0.02, -0.01, 0.0, 0.01):
        assert bounded_mean_p(values, bound, -1.0) == pytest.approx(bounded_mean_p(rounded, bound, -1.0), rel=0.02)


@pytest.mark.parametrize(("n", "margin"), [(59, 0.05), (149, 0.02), (1000, 0.05)])
def test_without_any_change_it_is_the_chance_that_total_failures_went_unseen(n: int, margin: float) -> None:
    assert bounded_mean_p(np.zeros(n), -margin, -1.0) == pytest.approx((1 - margin) ** n)


def test_values_on_or_beyond_the_bound() -> None:
    assert bounded_mean_p(np.full(30, -0.05), -0.05, -1.0) == 1.0
    assert bounded_mean_p(np.full(30, -0.1), -0.05, -1.0) == 1.0
    assert bounded_mean_p(np.array([0.1, 0.2]), -2.0, -1.0) == 0.0
    assert bounded_mean_p(np.full(500, 1.0), -0.05, -1.0) < 1e-100


@pytest.mark.parametrize("d", [[], [0.1], [0.1, math.nan], [0.1, math.inf], [[0.1, 0.2]]])
def test_impossible_samples_are_refused(d: list[float]) -> None:
    with pytest.raises(ValueError, match="differences"):
        bounded_mean_p(np.array(d), -0.02, -1.0)
    with pytest.raises(ValueError, match="lowest possible"):
        bounded_mean_p(np.array([0.0, -1.5]), -0.02, -1.0)


@given(SAMPLES, st.floats(-0.9, 0.5), st.floats(0.01, 0.4))
@settings(max_examples=60, deadline=None)
def test_p_is_in_range_and_falls_with_the_bound(d: FloatArray, bound: float, step: float) -> None:
    assert 0 <= bounded_mean_p(d, bound, -1.0) <= bounded_mean_p(d, bound + step, -1.0) + 1e-9 <= 1 + 1e-9


@pytest.mark.parametrize("n", [50, 200])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 0.0), (-1.0, 0.1), (-0.5, 0.01), (-0.25, 0.25), (-1.0, 1.0)])
def test_two_values_at_the_margin_pass_in_at_most_one_of_twenty_evaluations(n: int, low: float, high: float) -> None:
    """By enumeration at Δ = −δ; the sign-flip, t and bootstrap tests passed up to 13.6%."""
    for margin in (0.02, 0.05, 0.1):
        lows = np.arange(n + 1)
        passed = [bounded_mean_p(np.repeat([low, high], [k, n - k]), -margin, -1.0) <= 0.05 for k in lows]
        assert binom.pmf(lows, n, (high + margin) / (high - low))[np.array(passed)].sum() <= 0.05


def test_power_at_equal_models_is_within_reach_of_t() -> None:
    """Spread 0.2, δ = 0.05: t passes 99% of equal models with 250 items."""
    samples = np.random.default_rng(3).normal(0, 0.2, (300, 250)).clip(-1, 1)
    assert np.mean([bounded_mean_p(d, -0.05, -1.0) <= 0.05 for d in samples]) > 0.93
