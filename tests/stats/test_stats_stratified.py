"""Intervals of group metrics: against t for one stratum, weighted regression, and the pooled score test."""

import numpy as np
import numpy.typing as npt
import pytest
import statsmodels.api as sm
from scipy.stats import ttest_1samp

from harness.stats.checks import FloatArray
from harness.stats.paired import tango_interval
from harness.stats.stratified import stratified_interval


def items(sizes: list[int], means: list[float], seed: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    strata = np.repeat(np.arange(len(sizes)), sizes)
    return generator.normal(np.array(means)[strata], 0.2), strata


def test_one_stratum_is_the_t_test() -> None:
    d, strata = items([80], [0.0], seed=1)
    bounds = ttest_1samp(d, 0).confidence_interval(0.9)
    assert stratified_interval(d, strata, 0.9, equal_weights=False) == pytest.approx((bounds.low, bounds.high))


def test_mean_and_error_equal_a_regression_on_the_strata() -> None:
    """White's HC2 is the variance within each stratum over its size (MacKinnon & White 1985)."""
    d, strata = items([200, 400, 300], [0.1, -0.1, 0.0], seed=3)
    for equal, weights in ((True, np.full(3, 1 / 3)), (False, np.array([200, 400, 300]) / 900)):
        fit = sm.OLS(d, np.eye(3)[strata]).fit(cov_type="HC2")
        contrast = fit.t_test(weights)
        low, high = stratified_interval(d, strata, 0.95, equal)
        assert (low + high) / 2 == pytest.approx(float(contrast.effect[0]))
        assert high - low == pytest.approx(2 * 1.96 * float(contrast.sd[0, 0]), rel=0.01)


def test_strata_shrink_the_pooled_interval_by_their_differences_only() -> None:
    flips = np.concatenate([np.repeat([-1.0, 1.0, 0.0], counts) for counts in ([60, 10, 430], [10, 60, 430])])
    strata = np.repeat([0, 1], 500)
    low, high = stratified_interval(flips, strata, 0.95, equal_weights=False)
    pooled_low, pooled_high = tango_interval(70, 70, 1000, 0.95)
    ratio = (high - low) / (pooled_high - pooled_low)
    assert ratio == pytest.approx(np.sqrt(1 - 0.1**2 / 0.14), rel=0.01)


def test_no_spread_is_no_certainty() -> None:
    low, high = stratified_interval(np.zeros(100), np.repeat([0, 1], 50), 0.9, equal_weights=False)
    assert (low, high) == pytest.approx((0.05**0.01 - 1, 1 - 0.05**0.01))


def test_impossible_strata_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 items"):
        stratified_interval(np.zeros(3), np.array([0, 0, 1]), 0.95, equal_weights=True)
    with pytest.raises(ValueError, match="a stratum for each"):
        stratified_interval(np.zeros(3), np.zeros(2), 0.95, equal_weights=True)


def test_what_a_small_stratum_may_hide_counts_by_its_weight() -> None:
    low, _ = stratified_interval(np.zeros(440), np.repeat([0, 1], [40, 400]), 0.95, equal_weights=True)
    assert (1 + 2 * low) ** 40 == pytest.approx(0.025, rel=1e-6)


@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_every_layout_of_strata_has_limits(seed: int, equal: bool) -> None:
    """Whatever the rounding of the weights."""
    generator = np.random.default_rng(seed)
    for sizes in ([51, 40, 33, 19, 21, 7, 9], generator.integers(2, 60, generator.integers(2, 60)).tolist()):
        low, high = stratified_interval(np.zeros(sum(sizes)), np.repeat(np.arange(len(sizes)), sizes), 0.95, equal)
        assert -1 <= low < 0 < high <= 1
