import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm

from harness.stats.clustered import clustered_mean_p
from harness.stats.paired import noninferiority_p
from harness.stats.power import (
    detectable_margin,
    n_for_bounded_mean,
    n_for_floor,
    n_for_noninferiority,
    power_noninferiority,
)
from harness.stats.proportion import (
    benjamini_hochberg,
    clopper_pearson_lower,
    clopper_pearson_upper,
    holm,
    wilson_interval,
)

P_VALUES = st.lists(st.floats(0, 1), max_size=20)


@pytest.mark.parametrize(
    ("successes", "n", "limits"),
    [
        (0, 10, (0.0, 0.2775327998628892)),
        (10, 10, (0.7224672001371109, 1.0)),
        (3, 17, (0.06191126637620992, 0.4102945856883412)),
    ],
)
def test_wilson_by_its_formula(successes: int, n: int, limits: tuple[float, float]) -> None:
    """(p + z²/2n ± z√(p(1 − p)/n + z²/4n²)) / (1 + z²/n), computed once."""
    assert wilson_interval(successes, n) == pytest.approx(limits, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 17), (842, 1319)])
def test_clopper_pearson_equals_scipy(successes: int, n: int) -> None:
    expected = binomtest(successes, n).proportion_ci(0.95, method="exact")
    assert _clopper_pearson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_clopper_pearson_equals_published_values() -> None:
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29; 95% limits of method 5."""
    published = {
        (81, 263): (0.2527, 0.3676),
        (15, 148): (0.0578, 0.1617),
        (0, 20): (0, 0.1684),
        (1, 29): (0.0009, 0.1776),
    }
    for (successes, n), limits in published.items():
        assert _clopper_pearson(successes, n) == pytest.approx(limits, abs=5.1e-5)


def _clopper_pearson(successes: int, n: int) -> tuple[float, float]:
    """The two-sided 95% interval."""
    return clopper_pearson_lower(successes, n, 0.025), clopper_pearson_upper(successes, n, 0.025)


def test_wilson_equals_published_values() -> None:
    """Newcombe 1998, table I, method 3."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, n), limits in published.items():
        assert wilson_interval(successes, n) == pytest.approx(limits, abs=5.1e-5)


@pytest.mark.parametrize("n", [20, 101, 300])
@pytest.mark.parametrize("floor", [0.5, 0.8, 0.9, 0.97])
def test_exact_bounds_never_err_more_often_than_alpha(n: int, floor: float) -> None:
    passing = [k for k in range(n + 1) if clopper_pearson_lower(k, n, 0.05) >= floor]
    failing = [k for k in range(n + 1) if clopper_pearson_upper(k, n, 0.05) < floor]
    assert binom.pmf(passing, n, floor).sum() <= 0.05
    assert binom.pmf(failing, n, floor).sum() <= 0.05


@given(st.integers(1, 500), st.floats(0.05, 0.95), st.data())
def test_lower_bound_above_the_floor_means_the_score_test_rejects(n: int, floor: float, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    z = (successes / n - floor) / math.sqrt(floor * (1 - floor) / n)
    if abs(z - norm.isf(0.025)) > 1e-6:
        assert (wilson_interval(successes, n)[0] > floor) == (z > norm.isf(0.025))


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5), (math.nan, 5)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, n)


@pytest.mark.parametrize(
    ("margin", "discordance", "n"),
    # The first is often quoted as 2,142, which comes from z rounded to 1.645 + 1.282.
    [(0.02, 0.10, 2141), (0.03, 0.10, 952), (0.03, 0.20, 1904), (0.05, 0.10, 343)],
)
def test_sample_size_for_noninferiority(margin: float, discordance: float, n: int) -> None:
    assert n_for_noninferiority(margin, discordance, alpha=0.05, power=0.9) == n


def test_sample_size_without_discordance_is_what_the_exact_test_needs() -> None:
    assert n_for_noninferiority(0.02, 0.0, alpha=0.05, power=0.9) == 149


def test_a_gain_needs_fewer_items_and_a_drop_more() -> None:
    equal, gain, drop = (n_for_noninferiority(0.03, 0.1, 0.05, 0.9, delta) for delta in (0.0, 0.01, -0.01))
    assert gain < equal < drop
    with pytest.raises(ValueError, match="no sample size"):
        n_for_noninferiority(0.03, 0.1, 0.05, 0.9, delta=-0.03)


@pytest.mark.parametrize(
    "arguments", [(0, 0.1, 0.05, 0.9), (0.02, 1.1, 0.05, 0.9), (0.02, 0.1, 1, 0.9), (0.02, 0.1, 0.05, math.nan)]
)
def test_impossible_plans_are_refused(arguments: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        n_for_noninferiority(*arguments)


@pytest.mark.parametrize(
    "arguments", [(1.1, 0.9, 0.05, 0.9), (0.95, 1, 0.05, 0.9), (0.95, 0.9, 0, 0.9), (math.nan, 0.9, 0.05, 0.9)]
)
def test_impossible_floor_plans_are_refused(arguments: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        n_for_floor(*arguments)


@pytest.mark.parametrize(("rate", "floor"), [(0.95, 0.9), (0.7, 0.6), (0.99, 0.95)])
def test_planned_size_reaches_the_floor(rate: float, floor: float) -> None:
    n = n_for_floor(rate, floor, alpha=0.05, power=0.9)
    assert n is not None
    scores = (np.arange(n + 1) - n * floor) / math.sqrt(n * floor * (1 - floor))
    enough = np.flatnonzero(scores > norm.isf(0.05))
    assert 0.88 <= binom.pmf(enough, n, rate).sum() <= 0.95


def test_no_size_reaches_a_floor_that_the_model_does_not_exceed() -> None:
    assert n_for_floor(0.9, 0.9, 0.05, 0.9) is None
    assert n_for_floor(0.5, 0.9, 0.05, 0.9) is None
    assert n_for_floor(1.0, 0.9, 0.05, 0.9) == 25


@pytest.mark.parametrize(("n", "discordance"), [(343, 0.1), (2141, 0.1), (100, 0.0), (1904, 0.2)])
def test_detectable_margin_inverts_the_sample_size(n: int, discordance: float) -> None:
    margin = detectable_margin(n, discordance, 0.05, 0.9)
    assert n_for_noninferiority(margin + 1e-9, discordance, 0.05, 0.9) <= n
    assert n_for_noninferiority(margin - 1e-4, discordance, 0.05, 0.9) > n


def test_detectable_margin_of_nothing_is_everything() -> None:
    assert detectable_margin(0, 0.1, 0.05, 0.9) == detectable_margin(1, 1.0, 0.05, 0.9) == 1.0


@pytest.mark.parametrize(("n", "margin", "discordance", "delta"), [(40, 0.1, 0.15, 0.0), (40, 0.15, 0.1, -0.05)])
def test_power_by_enumerating_every_outcome(n: int, margin: float, discordance: float, delta: float) -> None:
    lost, gained = (discordance - delta) / 2, (discordance + delta) / 2
    total = 0.0
    for c in range(n + 1):
        for b in range(n - c + 1):
            chance = binom.pmf(c, n, gained) * binom.pmf(b, n - c, lost / (1 - gained))
            total += chance if chance > 1e-9 and noninferiority_p(b, c, n, margin) <= 0.05 else 0.0
    assert power_noninferiority(n, margin, discordance, 0.05, delta) == pytest.approx(total, abs=1e-6)


def test_planned_power_is_reached_at_a_tenth_more() -> None:
    assert power_noninferiority(377, 0.05, 0.1, 0.05, delta=0.0) >= 0.9
    assert power_noninferiority(377, 0.05, 0.1, 0.05, delta=-0.05) <= 0.055


@pytest.mark.parametrize(("variance", "heaviest"), [(0.0, 1.0), (0.0, 3.0), (0.04, 1.0), (0.3, 2.0)])
def test_planned_clusters_pass_with_the_power_asked_for(variance: float, heaviest: float) -> None:
    """Clusters whose means are normal, or all 0; one has `heaviest` times the items of the average one."""
    n = n_for_bounded_mean(0.1, variance, heaviest, 0.05, 0.9)
    sizes = np.ones(n)
    sizes[0] = heaviest
    generator, passed = np.random.default_rng(1), 0
    for _ in range(300):
        means = np.clip(generator.normal(0, math.sqrt(variance), n), -1, 1)
        passed += clustered_mean_p(sizes * means, np.arange(n), -0.1, sizes) <= 0.05
    assert (passed == 300) if variance == 0 else (0.86 <= passed / 300 <= 0.96)


def test_no_clusters_show_what_is_not_so() -> None:
    with pytest.raises(ValueError, match="delta"):
        n_for_bounded_mean(0.05, 0.1, 1.0, 0.05, 0.9, delta=-0.05)


def test_impossible_power_is_refused() -> None:
    with pytest.raises(ValueError, match="discordance"):
        power_noninferiority(100, 0.05, 0.02, 0.05, delta=0.03)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(P_VALUES)
def test_adjustments_never_lower_a_p_value_and_keep_the_order(p: list[float]) -> None:
    for adjusted in (holm(p), benjamini_hochberg(p)):
        assert all(before <= after + 1e-15 and after <= 1 for before, after in zip(p, adjusted, strict=True))
        order = np.argsort(p, kind="stable")
        assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


@given(P_VALUES)
def test_benjamini_hochberg_by_its_definition(p: list[float]) -> None:
    """The smallest m·q/rank(q) of the p-values q ≥ p."""
    ranked = [(q, len(p) * q / rank) for rank, q in enumerate(sorted(p), 1)]
    expected = [min(1.0, min(scaled for q, scaled in ranked if q >= one)) for one in p]
    assert benjamini_hochberg(p) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("p", [[math.nan], [0.5, 1.2], [-0.1]])
def test_impossible_p_values_are_refused(p: list[float]) -> None:
    for adjust in (holm, benjamini_hochberg):
        with pytest.raises(ValueError, match="between 0 and 1"):
            adjust(p)
