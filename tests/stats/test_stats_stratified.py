"""Group metrics: against t for one stratum, weighted regression, and the pooled score test."""

import numpy as np
import numpy.typing as npt
import pytest
import statsmodels.api as sm
from scipy.stats import binom, ttest_1samp, ttest_ind

from harness.stats.checks import FloatArray
from harness.stats.paired import noninferiority_p, tango_interval, tango_lower
from harness.stats.stratified import (
    stratified_harm_p,
    stratified_interval,
    stratified_noninferiority_p,
)


def items(sizes: list[int], means: list[float], seed: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    strata = np.repeat(np.arange(len(sizes)), sizes)
    return generator.normal(np.array(means)[strata], 0.2), strata


def test_one_stratum_is_the_t_test() -> None:
    d, strata = items([80], [0.0], seed=1)
    expected = ttest_1samp(d, -0.03, alternative="greater").pvalue
    assert stratified_noninferiority_p(d, strata, 0.03) == pytest.approx(max(expected, (1 - 0.03 - d.mean()) ** 80))
    bounds = ttest_1samp(d, 0).confidence_interval(0.9)
    assert stratified_interval(d, strata, 0.9) == pytest.approx((bounds.low, bounds.high))


def test_two_strata_of_equal_weight_are_welchs_test() -> None:
    """The sum of two means is 0 when one is the negative of the other: Welch's test of d₁ against −d₂."""
    d, strata = items([300, 700], [-0.02, -0.01], seed=2)
    expected = ttest_ind(-d[strata == 0], d[strata == 1], equal_var=False, alternative="greater").pvalue
    assert stratified_harm_p(d, strata, equal_weights=True) == pytest.approx(expected)


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
    low, high = stratified_interval(flips, strata, 0.95)
    pooled_low, pooled_high = tango_interval(70, 70, 1000, 0.95)
    ratio = (high - low) / (pooled_high - pooled_low)
    assert ratio == pytest.approx(np.sqrt(1 - 0.1**2 / 0.14), rel=0.01)


def test_no_spread_is_no_certainty() -> None:
    d, strata = np.zeros(100), np.repeat([0, 1], 50)
    assert stratified_noninferiority_p(d, strata, 0.02) == pytest.approx(0.98**100)
    assert stratified_harm_p(d, strata) == 1.0
    assert stratified_interval(d, strata, 0.9) == pytest.approx((0.05**0.01 - 1, 1 - 0.05**0.01))
    assert stratified_noninferiority_p(d - 0.5, strata, 0.02) == 1.0


def test_impossible_strata_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 items"):
        stratified_interval(np.zeros(3), np.array([0, 0, 1]), 0.95)
    with pytest.raises(ValueError, match="a stratum for each"):
        stratified_interval(np.zeros(3), np.zeros(2), 0.95)


def right_wrong(lost: list[int], gained: list[int], sizes: list[int]) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    cells = zip(lost, gained, sizes, strict=True)
    d = np.concatenate([np.repeat([-1.0, 1.0, 0.0], [b, c, n - b - c]) for b, c, n in cells])
    return d, np.repeat(np.arange(len(sizes)), sizes)


def test_lower_limits_of_many_samples_are_those_of_each() -> None:
    cells = np.array([(7, 1, 21), (16, 6, 161), (25, 28, 618), (0, 9, 40), (0, 0, 30)], dtype=np.float64)
    found = tango_lower(cells[:, 0], cells[:, 1], cells[:, 2], 1.959963984540054)
    assert found == pytest.approx([tango_interval(int(b), int(c), int(n))[0] for b, c, n in cells], abs=1e-9)


def test_one_stratum_of_right_and_wrong_is_tangos_test() -> None:
    d, strata = right_wrong([30], [25], [600])
    p = stratified_noninferiority_p(d, strata, 0.05, equal_weights=True)
    assert p == pytest.approx(noninferiority_p(30, 25, 600, 0.05), rel=0.05)


@pytest.mark.parametrize("small", [30, 50, 100])
def test_losses_of_a_small_stratum_pass_in_at_most_one_of_twenty_models_at_the_margin(small: int) -> None:
    """By enumeration of the small stratum, whose Δ of −0.2 comes from losses alone, where t passes too often."""
    lost = np.arange(small + 1)
    p = [
        stratified_noninferiority_p(*right_wrong([int(b), 1], [0, 1], [small, 400]), 0.1, equal_weights=True)
        for b in lost
    ]
    assert 0.01 < binom.pmf(lost, small, 0.2)[np.array(p) <= 0.05].sum() <= 0.05


def test_what_a_small_stratum_may_hide_counts_by_its_weight() -> None:
    d, strata = right_wrong([0, 0], [0, 0], [40, 400])
    assert stratified_noninferiority_p(d, strata, 0.02, equal_weights=True) == pytest.approx(0.96**40)
    assert stratified_noninferiority_p(d, strata, 0.02) == pytest.approx(0.98**440)
    low, _ = stratified_interval(d, strata, 0.95, equal_weights=True)
    assert (1 + 2 * low) ** 40 == pytest.approx(0.025, rel=1e-6)


@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_every_layout_of_strata_has_p_and_limits(seed: int, equal: bool) -> None:
    """Better, worse, equal, all lost and all won candidates, whatever the rounding of the weights."""
    generator = np.random.default_rng(seed)
    for sizes in ([51, 40, 33, 19, 21, 7, 9], generator.integers(2, 60, generator.integers(2, 60)).tolist()):
        d, strata = items(sizes, [0.5] * len(sizes), seed)
        assert stratified_harm_p(d, strata, equal) == 1.0
        assert stratified_harm_p(np.full(len(d), -1.0), strata, equal) == 0.0
        assert stratified_noninferiority_p(np.full(len(d), 1.0), strata, 0.02, equal) < 0.05
        assert stratified_noninferiority_p(d - 0.5, strata, 0.02, equal) <= 1
        low, high = stratified_interval(np.zeros(len(d)), strata, 0.95, equal)
        assert -1 <= low < 0 < high <= 1
