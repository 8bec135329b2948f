"""Clustered items: against statsmodels, closed forms and simulation."""

import numpy as np
import numpy.typing as npt
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from harness.stats.bounded import bounded_mean_p
from harness.stats.checks import FloatArray
from harness.stats.clustered import (
    clustered_interval,
    clustered_lower,
    clustered_mean_p,
    design_effect,
    effective_items,
)


def scores(groups: int, size: int, mean: float, shared: float, seed: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Differences around the mean by 0.8 either way, an item as its cluster with chance `shared`; and the clusters.

    The second half of the clusters mirrors the first, so that nothing is skewed.
    """
    generator = np.random.default_rng(seed)
    half = np.repeat(np.arange(groups // 2), size)
    own, common = generator.choice([-0.8, 0.8], len(half)), generator.choice([-0.8, 0.8], groups // 2)[half]
    around = np.where(generator.random(len(half)) < shared, common, own) + generator.normal(0, 0.01, len(half))
    return mean + np.concatenate([around, -around]), np.repeat(np.arange(groups), size)


def test_interval_equals_statsmodels_cluster_robust_regression() -> None:
    d, clusters = scores(30, 4, 0.1, 0.7, seed=1)
    d, clusters = d[:-3], clusters[:-3]
    fit = sm.OLS(d, np.ones(len(d))).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    assert clustered_interval(d, clusters, 0.95, seed=0) == pytest.approx(tuple(fit.conf_int()[0]))


def test_one_item_a_cluster_is_as_without_clusters() -> None:
    d, _ = scores(40, 1, 0.0, 0.0, seed=2)
    fit = sm.OLS(d, np.ones(len(d))).fit()
    assert clustered_interval(d, np.arange(40), 0.9, seed=0) == pytest.approx(tuple(fit.conf_int(0.1)[0]))
    assert design_effect(d, np.arange(40)) == pytest.approx(1.0)
    assert clustered_mean_p(d, np.arange(40), -0.1) == pytest.approx(bounded_mean_p(d, -0.1, -1.0))


def test_clusters_of_one_answer_count_as_one_item_each() -> None:
    """50 clusters of 4 equal answers, 3 of them wrong: the exact binomial test of 3 in 50, and its limit."""
    clusters = np.arange(200) // 4
    lost = np.where(clusters < 3, -1.0, 0.0)
    assert clustered_mean_p(lost, clusters, -0.2) == pytest.approx(beta.cdf(0.8, 47, 4))
    assert clustered_lower(1 + lost, clusters, 0.05) == pytest.approx(beta.ppf(0.05, 47, 4))


@pytest.mark.parametrize(("groups", "margin", "passes"), [(58, 0.05, False), (59, 0.05, True), (30, 0.05, False),
                                                          (148, 0.02, False), (149, 0.02, True)])  # fmt: skip
def test_without_any_change_the_number_of_clusters_decides(groups: int, margin: float, passes: bool) -> None:
    """Where a share δ of the clusters fails as a whole, G clusters show none with chance (1 − δ)^G."""
    clusters = np.arange(10 * groups) // 10
    p = clustered_mean_p(np.zeros(10 * groups), clusters, -margin)
    assert p == pytest.approx((1 - margin) ** groups)
    assert (p <= 0.05) is passes


def test_a_large_cluster_could_have_failed_as_a_whole() -> None:
    """60 clusters of 1 item and one of 60: nothing but its own answers speaks for the large one."""
    alike, unequal = np.repeat(np.arange(61), 2), np.repeat(np.arange(61), [1] * 60 + [62])
    assert clustered_mean_p(np.zeros(122), alike, -0.05) < 0.05
    assert clustered_mean_p(np.zeros(122), unequal, -0.05) > 0.5


def test_real_harm_is_found_and_a_gain_is_not_harm() -> None:
    d, clusters = scores(30, 10, -0.15, 0.3, seed=6)
    assert clustered_mean_p(-d, clusters, 0.0) < 0.05
    assert clustered_mean_p(d, clusters, 0.0) > 0.95
    assert clustered_mean_p(d, clusters, -0.05) > 0.9
    assert clustered_mean_p(np.zeros(300), clusters, 0.0) == 1.0


def test_no_lower_limit_without_a_success() -> None:
    assert clustered_lower(np.zeros(60), np.arange(60) // 3, 0.05) == 0.0
    assert clustered_lower(np.ones(60), np.arange(60) // 3, 0.05) == pytest.approx(0.05 ** (1 / 20))


def test_interval_without_any_flip_and_of_too_few_clusters() -> None:
    clusters = np.arange(200) // 4
    low, high = clustered_interval(np.zeros(200), clusters, 0.9, seed=0)
    assert (low, high) == pytest.approx((-(1 - 0.05 ** (1 / 50)), 1 - 0.05 ** (1 / 50)))
    d, clusters = scores(4, 50, 0.0, 0.1, seed=5)
    assert clustered_interval(d, clusters, 0.95, seed=0) == (-1.0, 1.0)


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
        clustered_mean_p(d, np.zeros(3), -0.02)
    with pytest.raises(ValueError, match="a cluster for each"):
        clustered_interval(d, np.zeros(2), 0.95, seed=0)
    with pytest.raises(ValueError, match="lowest possible"):
        clustered_mean_p(d - 1.5, np.arange(3), -0.02)


@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 1.0]), st.integers(0, 30)), min_size=4, max_size=60), st.data())
@settings(max_examples=60, deadline=None)
def test_outcomes_are_in_range(items: list[tuple[float, int]], data: st.DataObject) -> None:
    d, clusters = np.array([v for v, _ in items]), np.array([g for _, g in items])
    if len(set(clusters.tolist())) < 2:
        return
    bound = data.draw(st.floats(-0.5, 0.5))
    assert 0 <= clustered_mean_p(d, clusters, bound) <= 1
    assert 0 <= clustered_lower(d + 1, clusters, 0.05) <= d.mean() + 1 + 1e-9
    low, high = clustered_interval(d, clusters, 0.95, seed=0)
    assert low <= d.mean() + 1e-9
    assert high >= d.mean() - 1e-9


def dirichlet(generator: np.random.Generator, groups: int, size: int) -> FloatArray:
    own = np.repeat(generator.dirichlet(np.array([0.05, 1e-9, 0.95]) * (1 / 0.3 - 1), groups), size, axis=0)
    return np.where(generator.random(groups * size) < own[:, 0], -1.0, 0.0)


def one_draw(generator: np.random.Generator, groups: int, size: int) -> FloatArray:
    return np.repeat(np.where(generator.random(groups) < 0.05, -1.0, 0.0), size)


def some_share_a_draw(generator: np.random.Generator, groups: int, size: int) -> FloatArray:
    own = np.where(generator.random(groups * size) < 0.05, -1.0, 0.0)
    return np.where(np.repeat(generator.random(groups) < 0.3, size), one_draw(generator, groups, size), own)


@pytest.mark.parametrize("model", [dirichlet, one_draw, some_share_a_draw])
@pytest.mark.parametrize("groups", [5, 25, 30, 60, 100])
def test_a_model_at_the_margin_passes_in_at_most_one_of_twenty_evaluations(model: object, groups: int) -> None:
    """Δ = −δ = −0.05 by losses alone; with 30 clusters that share a draw, t passed 17%."""
    assert callable(model)
    generator, clusters = np.random.default_rng(12), np.arange(10 * groups) // 10
    passed = [clustered_mean_p(model(generator, groups, 10), clusters, -0.05) <= 0.05 for _ in range(300)]
    assert np.mean(passed) <= 0.075


def test_losses_in_few_heavy_clusters_pass_in_at_most_one_of_twenty_models_at_the_margin() -> None:
    """10 clusters of a small task count what 100 of a large one do, Δ = −δ = −0.2."""
    generator = np.random.default_rng(12)
    weights, clusters = np.repeat([330 / 60, 330 / 600], [30, 300]), np.arange(330) // 3
    passed = 0
    for _ in range(1000):
        d = weights * np.where(np.arange(330) < 30, generator.choice([-1.0, 0.0], 330, p=[0.4, 0.6]), 0.0)
        passed += clustered_mean_p(d, clusters, -0.2, weights) <= 0.05
    assert 0 < passed / 1000 <= 0.065
