"""Clustered items: against statsmodels, enumeration and simulation."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.stats.checks import FloatArray
from harness.stats.clustered import (
    clustered_harm_p,
    clustered_interval,
    clustered_noninferiority_p,
    design_effect,
    effective_freedom,
    effective_items,
)
from harness.stats.paired import mcnemar_midp_harm, noninferiority_p


def scores(groups: int, size: int, mean: float, shared: float, seed: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Differences around the mean by 0.8 either way, an item as its cluster with chance `shared`; and the clusters.

    The second half of the clusters mirrors the first, so that nothing is skewed.
    """
    generator = np.random.default_rng(seed)
    half = np.repeat(np.arange(groups // 2), size)
    own, common = generator.choice([-0.8, 0.8], len(half)), generator.choice([-0.8, 0.8], groups // 2)[half]
    around = np.where(generator.random(len(half)) < shared, common, own) + generator.normal(0, 0.01, len(half))
    return mean + np.concatenate([around, -around]), np.repeat(np.arange(groups), size)


def test_p_and_interval_equal_statsmodels_cluster_robust_regression() -> None:
    d, clusters = scores(30, 4, 0.1, 0.7, seed=1)
    d, clusters = d[:-3], clusters[:-3]
    fit = sm.OLS(d, np.ones(len(d))).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    assert clustered_interval(d, clusters, 0.95, seed=0) == pytest.approx(tuple(fit.conf_int()[0]))
    two_sided = float(fit.t_test("const = -0.02").pvalue)
    assert clustered_noninferiority_p(d, clusters, 0.02, seed=0) == pytest.approx(two_sided / 2)


def test_one_item_a_cluster_is_the_plain_t_interval() -> None:
    d, _ = scores(40, 1, 0.0, 0.0, seed=2)
    fit = sm.OLS(d, np.ones(len(d))).fit()
    assert clustered_interval(d, np.arange(40), 0.9, seed=0) == pytest.approx(tuple(fit.conf_int(0.1)[0]))
    assert design_effect(d, np.arange(40)) == pytest.approx(1.0)


def test_few_clusters_flip_the_signs_of_cluster_sums() -> None:
    d, clusters = scores(8, 5, 0.3, 0.5, seed=3)
    sums = np.array([(d + 0.05)[clusters == g].sum() for g in range(8)])
    flipped = [float(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=8)]
    expected = np.mean([total >= sums.sum() - 1e-12 for total in flipped])
    assert clustered_noninferiority_p(d, clusters, 0.05, seed=0) == pytest.approx(expected)


def test_interval_of_few_clusters_inverts_the_test() -> None:
    d, clusters = scores(10, 6, -0.03, 0.5, seed=4)
    low, _ = clustered_interval(d, clusters, 0.9, seed=0)
    assert clustered_noninferiority_p(d, clusters, -low + 1e-6, seed=0) > 0.05 - 2**-10
    assert clustered_noninferiority_p(d, clusters, -low + 1e-6, seed=0) <= 0.05 + 2**-10
    assert clustered_noninferiority_p(d, clusters, -low - 1e-6, seed=0) > 0.05


def test_too_few_clusters_leave_everything_open() -> None:
    d, clusters = scores(4, 50, 0.0, 0.1, seed=5)
    assert clustered_interval(d, clusters, 0.95, seed=0) == (-1.0, 1.0)
    assert clustered_noninferiority_p(d, clusters, 0.05, seed=0) >= 1 / 16


def test_clusters_never_make_right_and_wrong_answers_more_certain() -> None:
    flips = np.repeat([-1.0, 1.0, 0.0], [9, 12, 379])
    for clusters in (np.arange(400) % 80, np.arange(400) // 5, np.arange(400) % 10):
        assert clustered_noninferiority_p(flips, clusters, 0.03, seed=0) >= noninferiority_p(9, 12, 400, 0.03)
        assert clustered_harm_p(flips, clusters, seed=0) >= mcnemar_midp_harm(9, 12)


def test_without_any_flip_only_clusters_count() -> None:
    clusters = np.arange(200) // 4
    assert clustered_noninferiority_p(np.zeros(200), clusters, 0.05, seed=0) == pytest.approx(0.95**50)
    assert clustered_harm_p(np.zeros(200), clusters, seed=0) == 1.0
    low, high = clustered_interval(np.zeros(200), clusters, 0.9, seed=0)
    assert (low, high) == pytest.approx((-(1 - 0.05 ** (1 / 50)), 1 - 0.05 ** (1 / 50)))


def test_real_harm_is_found_and_a_gain_is_not_harm() -> None:
    d, clusters = scores(30, 10, -0.5, 0.3, seed=6)
    assert clustered_harm_p(d, clusters, seed=0) < 0.001
    assert clustered_harm_p(-d, clusters, seed=0) > 0.99
    assert clustered_noninferiority_p(d, clusters, 0.05, seed=0) > 0.99


def test_design_effect_follows_from_the_correlation() -> None:
    d, clusters = scores(500, 4, 0.0, 0.7, seed=8)
    fit = sm.MixedLM(d, np.ones(len(d)), groups=clusters).fit(reml=True)
    between = float(np.asarray(fit.cov_re)[0, 0])
    icc = between / (between + float(fit.scale))
    assert icc == pytest.approx(0.7**2, abs=0.08)
    assert design_effect(d, clusters) == pytest.approx(1 + 3 * icc, rel=0.02)
    assert effective_items(d, clusters) == pytest.approx(2000 / design_effect(d, clusters))


def test_identical_items_of_a_cluster_tell_no_more_than_one() -> None:
    d = np.repeat(np.random.default_rng(9).normal(0, 0.1, 50), 6)
    assert effective_items(d, np.arange(300) // 6) == pytest.approx(50, rel=0.05)


def test_impossible_clusters_are_refused() -> None:
    d = np.array([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="2 clusters"):
        clustered_noninferiority_p(d, np.zeros(3), 0.02, seed=0)
    with pytest.raises(ValueError, match="a cluster for each"):
        clustered_interval(d, np.zeros(2), 0.95, seed=0)
    with pytest.raises(ValueError, match="margin"):
        clustered_noninferiority_p(d, np.arange(3), 0.0, seed=0)


@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 1.0]), st.integers(0, 30)), min_size=4, max_size=60), st.data())
@settings(max_examples=60, deadline=None)
def test_outcomes_are_in_range(items: list[tuple[float, int]], data: st.DataObject) -> None:
    d, clusters = np.array([v for v, _ in items]), np.array([g for _, g in items])
    if len(set(clusters.tolist())) < 2:
        return
    margin = data.draw(st.floats(0.01, 0.5))
    assert 0 <= clustered_noninferiority_p(d, clusters, margin, seed=0) <= 1
    assert 0 <= clustered_harm_p(d, clusters, seed=0) <= 1
    low, high = clustered_interval(d, clusters, 0.95, seed=0)
    assert low <= d.mean() + 1e-9
    assert high >= d.mean() - 1e-9


def test_degrees_of_freedom_are_those_of_normal_clusters_or_fewer() -> None:
    sizes = np.full(40, 10.0)
    even = np.tile([-1.0, 1.0], 20)
    assert effective_freedom(even, sizes) == 39
    assert effective_freedom(np.zeros(40), sizes) == 39
    normal = [effective_freedom(np.random.default_rng(seed).normal(0, 1, 40), sizes) for seed in range(50)]
    assert 25 < np.mean(normal) <= 39


def test_spread_that_one_cluster_holds_is_worth_little() -> None:
    """With kurtosis κ = (G² − 3G + 3)/(G − 1) of a single odd cluster: 2/((κ − 3)/G + 2/(G − 1))."""
    groups = 30
    kurtosis = (groups**2 - 3 * groups + 3) / (groups - 1)
    sums = np.zeros(groups)
    sums[4] = -6.0
    expected = 2 / ((kurtosis - 3) / groups + 2 / (groups - 1))
    assert effective_freedom(sums, np.full(groups, 10.0)) == pytest.approx(expected)
    assert expected < 3


def test_losses_in_few_clusters_pass_in_at_most_one_of_twenty_models_at_the_margin() -> None:
    """30 clusters of 10, ψ = 0.10, correlation 0.3, Δ = −δ: 5.8% passed with G − 1 degrees of freedom."""
    generator = np.random.default_rng(12)
    rates, clusters = np.array([0.075, 0.025, 0.9]), np.repeat(np.arange(30), 10)
    passed = 0
    for _ in range(2000):
        own = np.repeat(generator.dirichlet(rates * (1 / 0.3 - 1), 30), 10, axis=0)
        luck = generator.random(300)
        d = np.where(luck < own[:, 0], -1.0, np.where(luck < own[:, 0] + own[:, 1], 1.0, 0.0))
        passed += clustered_noninferiority_p(d, clusters, 0.05, seed=0) <= 0.05
    assert passed / 2000 <= 0.055


def test_losses_in_few_heavy_clusters_pass_in_at_most_one_of_twenty_models_at_the_margin() -> None:
    """10 clusters of a small task count what 100 of a large one do, Δ = −δ: 6.4% passed with G − 1 degrees."""
    generator = np.random.default_rng(12)
    weights, clusters = np.repeat([330 / 60, 330 / 600], [30, 300]), np.arange(330) // 3
    passed = 0
    for _ in range(2000):
        d = weights * generator.choice([-1.0, 0.0, 1.0], 330, p=[0.125, 0.8, 0.075])
        passed += clustered_noninferiority_p(d, clusters, 0.05, seed=0) <= 0.05
    assert passed / 2000 <= 0.055


def test_where_few_clusters_hold_the_spread_the_test_is_more_cautious_than_the_interval() -> None:
    d, clusters = scores(30, 4, 0.1, 0.7, seed=10)
    d[:8] *= 9
    d[60:68] *= 9
    assert effective_freedom(np.bincount(clusters, weights=d).astype(np.float64), np.full(30, 4.0)) < 20
    low, _ = clustered_interval(d, clusters, 0.9, seed=0)
    assert 0.05 < clustered_noninferiority_p(d, clusters, -low, seed=0) < 0.1
