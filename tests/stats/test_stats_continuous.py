"""Intervals of scores that are not right/wrong: against scipy and published formulas."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm, skew, t, ttest_1samp

from harness.stats.checks import FloatArray
from harness.stats.continuous import hall_interval, interval_continuous, t_interval
from harness.stats.resampling import bca_interval

SAMPLES = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=2, max_size=30).map(np.array)


def normal(n: int, mean: float, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(mean, 0.2, n)


def test_t_equals_scipy() -> None:
    d = normal(250, 0.0)
    bounds = ttest_1samp(d, 0).confidence_interval(0.9)
    assert interval_continuous(d, 0.9, seed=1) == pytest.approx((bounds.low, bounds.high))


def test_equal_answers_are_judged_like_right_and_wrong_ones() -> None:
    low, high = interval_continuous(np.zeros(149), 0.9, seed=0)
    assert low == pytest.approx(-(1 - 0.05 ** (1 / 149)))
    assert high == -low


@pytest.mark.parametrize("n", [2, 30, 500])
def test_equal_drops_leave_room_for_what_was_not_seen(n: int) -> None:
    low, high = interval_continuous(np.full(n, -0.1), 0.95, seed=0)
    assert low < -0.1 < high


def test_no_standard_error_without_spread() -> None:
    with pytest.raises(ValueError, match="no standard error"):
        t_interval(np.full(30, 0.1), 0.9)
    with pytest.raises(ValueError, match="no standard error"):
        bca_interval(np.full(30, 0.1), 0.9, seed=0)


@pytest.mark.parametrize("d", [[], [0.1], [0.1, math.nan], [0.1, math.inf], [[0.1, 0.2]]])
def test_impossible_samples_are_refused(d: list[float]) -> None:
    with pytest.raises(ValueError, match="differences"):
        interval_continuous(np.array(d), 0.95, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, math.nan])
def test_impossible_levels_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="level"):
        interval_continuous(normal(30, 0), fraction, seed=0)


def test_bca_leans_towards_the_long_tail_and_is_repeatable() -> None:
    d = np.random.default_rng(0).exponential(0.2, 80) - 0.2
    low, high = interval_continuous(d, 0.95, seed=4)
    assert (low, high) == bca_interval(d, 0.95, seed=4)
    assert high - d.mean() > d.mean() - low
    plain = t_interval(d, 0.95)
    assert high - low == pytest.approx(plain[1] - plain[0], rel=0.15)


def test_bca_equals_scipy_at_the_widened_level() -> None:
    d = np.random.default_rng(1).exponential(0.2, 150) - 0.2
    reach = math.sqrt(150 / 149) * float(t.isf(0.05, 149))
    level = 1 - 2 * float(norm.sf(reach))
    generator = np.random.default_rng(2)
    drawn = bootstrap((d,), np.mean, confidence_level=level, n_resamples=20_000, method="BCa", rng=generator)
    expected = drawn.confidence_interval
    assert bca_interval(d, 0.9, seed=3) == pytest.approx((expected.low, expected.high), abs=0.004)


@pytest.mark.parametrize("shape", ["exponential", "normal"])
def test_bca_of_the_same_resamples_is_scipys(shape: str) -> None:
    """Both draw the same items from the same generator: all but rounding has to agree."""
    d = np.sort(getattr(np.random.default_rng(5), shape)(size=80) - 0.4)
    reach = math.sqrt(80 / 79) * float(t.isf(0.025, 79))
    level = 1 - 2 * float(norm.sf(reach))
    drawn = bootstrap(
        (d,), np.mean, confidence_level=level, n_resamples=2000, method="BCa", rng=np.random.default_rng(6), batch=2000
    )
    expected = drawn.confidence_interval
    assert bca_interval(d, 0.95, seed=6) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("turn", [-1.0, 1.0])
def test_limits_of_hall_are_where_his_transformation_is_the_quantile_of_t(turn: float) -> None:
    """Hall (1992), with T = √n(mean − μ)/s: T + aT²/3 + a²T³/27 + a/6, a the skewness over √n."""
    d = turn * (np.random.default_rng(1).exponential(0.2, 30) - 0.2)
    reach = float(t.isf(0.025, 29))
    a = float(skew(d)) / math.sqrt(30)
    for mu, expected in zip(hall_interval(d, 0.95), (reach, -reach), strict=True):
        moved = (d.mean() - mu) / (d.std(ddof=1) / math.sqrt(30))
        assert moved + a * moved**2 / 3 + a**2 * moved**3 / 27 + a / 6 == pytest.approx(expected)


def test_hall_of_a_symmetric_sample_is_t() -> None:
    d = np.linspace(-0.2, 0.3, 30)
    assert hall_interval(d, 0.9) == pytest.approx(t_interval(d, 0.9))


def test_the_interval_of_few_scores_is_the_wider_of_both() -> None:
    d = np.random.default_rng(3).exponential(0.2, 30) - 0.2
    plain, corrected = t_interval(d, 0.95), hall_interval(d, 0.95)
    assert interval_continuous(d, 0.95, seed=0) == (min(plain[0], corrected[0]), max(plain[1], corrected[1]))
    assert corrected[1] > plain[1]


@given(SAMPLES)
@settings(max_examples=40, deadline=None)
def test_intervals_hold_the_mean(d: FloatArray) -> None:
    low, high = interval_continuous(d, 0.95, seed=0)
    assert low <= d.mean() + 1e-12
    assert high >= d.mean() - 1e-12
