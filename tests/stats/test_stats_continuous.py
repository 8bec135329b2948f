import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm, skew, t, ttest_1samp

from harness.stats.checks import FloatArray
from harness.stats.continuous import (
    hall_interval,
    harm_p_continuous,
    interval_continuous,
    noninferiority_p_continuous,
    t_interval,
    t_p,
)
from harness.stats.resampling import bca_interval, bca_p, sign_flip_p

SAMPLES = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=2, max_size=30).map(np.array)


def normal(n: int, mean: float, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(mean, 0.2, n)


def test_t_equals_scipy() -> None:
    d = normal(250, 0.0)
    expected = ttest_1samp(d, -0.03, alternative="greater")
    assert t_p(d, -0.03) == pytest.approx(expected.pvalue)
    assert noninferiority_p_continuous(d, 0.03, seed=1) == t_p(d, -0.03)
    bounds = ttest_1samp(d, 0).confidence_interval(0.9)
    assert interval_continuous(d, 0.9, seed=1) == pytest.approx((bounds.low, bounds.high))


def test_sign_flip_of_few_values_is_exact() -> None:
    d = np.array([0.3, -0.1, 0.2, 0.25, -0.05, 0.4])
    sums = [float(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=6)]
    expected = np.mean([total >= d.sum() - 1e-12 for total in sums])
    assert sign_flip_p(d, 0.0, seed=1) == expected
    assert sign_flip_p(d, 0.0, seed=2) == expected


def test_sign_flip_by_drawing_is_near_the_exact_value_and_repeatable() -> None:
    d = normal(12, 0.08)
    exact = sign_flip_p(d, 0.0, seed=0)
    drawn = sign_flip_p(np.append(d, 1e-9), 0.0, seed=3)
    assert drawn == pytest.approx(exact, abs=0.02)
    assert drawn == sign_flip_p(np.append(d, 1e-9), 0.0, seed=3)


def test_sign_flip_p_is_never_zero() -> None:
    assert sign_flip_p(np.full(500, 0.5), 0.0, seed=0, draws=999) == 0.001


def test_harm_is_small_when_the_candidate_is_worse() -> None:
    assert harm_p_continuous(normal(100, -0.2), seed=0) < 0.001
    assert harm_p_continuous(normal(100, 0.2), seed=0) > 0.99
    assert harm_p_continuous(np.zeros(50), seed=0) == 1.0


def test_equal_answers_are_judged_like_right_and_wrong_ones() -> None:
    assert noninferiority_p_continuous(np.zeros(149), 0.02, seed=0) == pytest.approx(0.98**149)
    assert noninferiority_p_continuous(np.zeros(20), 0.02, seed=0) > 0.5
    low, high = interval_continuous(np.zeros(149), 0.9, seed=0)
    assert low == pytest.approx(-(1 - 0.05 ** (1 / 149)))
    assert high == -low


@pytest.mark.parametrize("n", [2, 30, 500])
def test_equal_drops_beyond_the_margin_never_pass(n: int) -> None:
    assert noninferiority_p_continuous(np.full(n, -0.1), 0.02, seed=0) == 1.0
    low, high = interval_continuous(np.full(n, -0.1), 0.95, seed=0)
    assert low < -0.1 < high


def test_no_standard_error_without_spread() -> None:
    for function in (
        lambda d: t_p(d, 0.1),
        lambda d: t_interval(d, 0.9),
        lambda d: bca_interval(d, 0.9, 0),
    ):
        with pytest.raises(ValueError, match="no standard error"):
            function(np.full(30, 0.1))


@pytest.mark.parametrize("d", [[], [0.1], [0.1, math.nan], [0.1, math.inf], [[0.1, 0.2]]])
def test_impossible_samples_are_refused(d: list[float]) -> None:
    sample = np.array(d)
    with pytest.raises(ValueError, match="differences"):
        noninferiority_p_continuous(sample, 0.02, seed=0)
    with pytest.raises(ValueError, match="differences"):
        harm_p_continuous(sample, seed=0)
    with pytest.raises(ValueError, match="differences"):
        interval_continuous(sample, 0.95, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, math.nan])
def test_impossible_margins_and_levels_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        noninferiority_p_continuous(normal(30, 0), fraction, seed=0)
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
    assert bca_interval(d, 0.9, seed=3, draws=20_000) == pytest.approx((expected.low, expected.high), abs=0.0015)


@pytest.mark.parametrize("shape", ["exponential", "normal"])
def test_bca_of_the_same_resamples_is_scipys(shape: str) -> None:
    """Both draw the same items from the same generator: all but rounding has to agree."""
    d = getattr(np.random.default_rng(5), shape)(size=80) - 0.4
    reach = math.sqrt(80 / 79) * float(t.isf(0.025, 79))
    level = 1 - 2 * float(norm.sf(reach))
    drawn = bootstrap(
        (d,), np.mean, confidence_level=level, n_resamples=2000, method="BCa", rng=np.random.default_rng(6), batch=2000
    )
    expected = drawn.confidence_interval
    assert bca_interval(d, 0.95, seed=6, draws=2000) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_bca_p_is_the_level_whose_limit_is_the_bound() -> None:
    d = np.random.default_rng(4).exponential(0.2, 150) - 0.2
    low, _ = bca_interval(d, 0.9, seed=5)
    assert bca_p(d, low, seed=5) == pytest.approx(0.05, abs=0.002)
    assert bca_p(d, d.min() - 1, seed=5) < 0.01
    assert bca_p(d, d.max() + 1, seed=5) > 0.99


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


def test_sign_flip_of_thousands_is_its_normal_limit() -> None:
    d = normal(2500, 0.006)
    drawn = sign_flip_p(d[:2000], 0.0, seed=1, draws=20_000)
    assert drawn == pytest.approx(norm.sf(d[:2000].sum() / math.sqrt(float(d[:2000] @ d[:2000]))), abs=0.01)
    assert sign_flip_p(d, 0.0, seed=1) == sign_flip_p(d, 0.0, seed=2)


@given(SAMPLES, st.floats(0.01, 0.5))
@settings(max_examples=40, deadline=None)
def test_outcomes_are_in_range(d: FloatArray, margin: float) -> None:
    assert 0 <= noninferiority_p_continuous(d, margin, seed=0) <= 1
    assert 0 <= harm_p_continuous(d, seed=0) <= 1
    low, high = interval_continuous(d, 0.95, seed=0)
    assert low <= d.mean() + 1e-12
    assert high >= d.mean() - 1e-12


@given(SAMPLES, st.floats(0.01, 0.4), st.floats(0.01, 0.4))
@settings(max_examples=40, deadline=None)
def test_a_wider_margin_is_easier(d: FloatArray, margin: float, step: float) -> None:
    wide = noninferiority_p_continuous(d, margin + step, seed=0)
    assert wide <= noninferiority_p_continuous(d, margin, seed=0) + 0.03
