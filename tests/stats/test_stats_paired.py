import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from harness.stats import paired
from harness.stats.paired import (
    mcnemar_midp_harm,
    noninferiority_p,
    superiority_p,
    tango_interval,
    tango_statistic,
)

FLIPS = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 400)).filter(lambda f: f[0] + f[1] <= f[2])
FEW_FLIPS = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 400)).filter(lambda f: f[0] + f[1] <= f[2])
MARGINS = st.floats(0.005, 0.5)


def chance(b: int, c: int, n: int, lost: float, gained: float) -> float:
    rest = n - b - c
    ways = math.comb(n, b) * math.comb(n - b, c)
    return float(ways * lost**b * gained**c * max(0.0, 1 - lost - gained) ** rest)


def outcomes(n: int) -> list[tuple[int, int]]:
    return [(b, c) for b, c in itertools.product(range(n + 1), repeat=2) if b + c <= n]


@pytest.mark.parametrize(
    ("b", "c", "n", "level", "low", "high"),
    [
        # Bentur et al. 2009, airway hyper-responsiveness (1, 1, 7, 12): Tango interval in Fagerland, Lydersen & Laake.
        (7, 1, 21, 0.95, -0.517, -0.026),
        # Cavo et al. 2012, complete response (59, 6, 16, 80): R's contingencytables 3.
        (16, 6, 161, 0.95, -0.1240, -0.0054),
        # R, PropCIs::scoreci.mp(25, 28, 618, 0.90), as recorded by a public port of it.
        (25, 28, 618, 0.90, -0.0148, 0.0247),
    ],
)
def test_interval_equals_published_values(b: int, c: int, n: int, level: float, low: float, high: float) -> None:
    digits = 3 if n == 21 else 4
    assert tuple(round(bound, digits) for bound in tango_interval(b, c, n, level)) == (low, high)


def test_statistic_at_zero_is_mcnemar() -> None:
    assert tango_statistic(383, 95, 1319, 0.0) == pytest.approx((95 - 383) / math.sqrt(383 + 95))


@pytest.mark.parametrize(
    ("b", "c", "n", "delta0"), [(9, 4, 60, -0.1), (0, 3, 20, -0.2), (5, 0, 30, 0.15), (6, 6, 12, -0.4)]
)
def test_statistic_uses_the_constrained_maximum_of_the_likelihood(b: int, c: int, n: int, delta0: float) -> None:
    lost = np.linspace(max(0.0, -delta0), (1 - delta0) / 2, 400_001)[1:-1]
    gained = lost + delta0
    tiny = 1e-300
    likelihood = (
        b * np.log(np.maximum(lost, tiny))
        + c * np.log(np.maximum(gained, tiny))
        + (n - b - c) * np.log(np.maximum(1 - lost - gained, tiny))
    )
    best = int(np.argmax(likelihood))
    expected = (c - b - n * delta0) / math.sqrt(n * (lost[best] + gained[best] - delta0**2))
    assert tango_statistic(b, c, n, delta0) == pytest.approx(expected, abs=1e-3)


def test_edges_have_no_nan() -> None:
    assert tango_statistic(0, 0, 10, 0.0) == 0.0
    assert tango_statistic(0, 10, 10, 1.0) == 0.0
    assert tango_statistic(0, 9, 10, 1.0) == -math.inf
    assert tango_statistic(0, 9, 10, -1.0) == math.inf
    assert tango_interval(0, 5, 5)[1] == 1.0
    assert tango_interval(1, 0, 1)[0] == -1.0
    assert mcnemar_midp_harm(0, 0) == 0.5


def test_interval_without_discordant_pairs() -> None:
    z = norm.isf(0.025)
    assert tango_interval(0, 0, 44) == pytest.approx((-(z**2) / (44 + z**2), z**2 / (44 + z**2)))


def test_midp_equals_published_value() -> None:
    # Bentur et al. 2009 in Fagerland, Lydersen & Laake 2013: two-sided mid-p 0.039.
    assert round(2 * mcnemar_midp_harm(7, 1), 3) == 0.039
    # Cavo et al. 2012, R's contingencytables 3.
    assert round(2 * mcnemar_midp_harm(16, 6), 6) == 0.034690


@pytest.mark.parametrize(("b", "c"), [(0, 3), (5, 5), (9, 2), (383, 95)])
def test_midp_by_enumeration(b: int, c: int) -> None:
    tail = sum(math.comb(b + c, k) for k in range(b + 1, b + c + 1)) + math.comb(b + c, b) / 2
    assert mcnemar_midp_harm(b, c) == pytest.approx(tail / 2 ** (b + c), rel=1e-9)
    assert mcnemar_midp_harm(b, c) + mcnemar_midp_harm(c, b) == pytest.approx(1)


def test_mixtral_against_gpt4_on_gsm8k() -> None:
    """Both right 747, only Mixtral 95, only GPT-4 383, neither 94."""
    n = 747 + 95 + 383 + 94
    low, high = tango_interval(383, 95, n)
    assert (round(low, 3), round(high, 3)) == (-0.249, -0.188)
    assert mcnemar_midp_harm(383, 95) < 1e-40
    assert noninferiority_p(383, 95, n, 0.02) > 0.999
    assert noninferiority_p(95, 383, n, 0.02) < 1e-40


@pytest.mark.parametrize(("b", "c", "n", "margin"), [(3, 2, 5, 0.2), (6, 8, 14, 0.3), (10, 9, 19, 0.1)])
def test_exact_p_equals_brute_force_when_every_discordance_is_searched(b: int, c: int, n: int, margin: float) -> None:
    observed = tango_statistic(b, c, n, -margin)
    tail = [(x, y) for x, y in outcomes(n) if tango_statistic(x, y, n, -margin) >= observed - 1e-9]
    grid = np.linspace(0, (1 - margin) / 2, 300)
    brute = max(sum(chance(x, y, n, q + margin, q) for x, y in tail) for q in grid)
    assert noninferiority_p(b, c, n, margin) == pytest.approx(brute, abs=2e-4)


@pytest.mark.parametrize(("n", "margin"), [(18, 0.2), (40, 0.1)])
def test_size_by_enumeration(n: int, margin: float) -> None:
    """PASS when Δ = −δ in at most 5.5% of samples, whatever the discordance; exact below 20 discordant pairs."""
    passing = [(b, c) for b, c in outcomes(n) if noninferiority_p(b, c, n, margin) <= 0.05]
    limit = 0.05 if n < 20 else 0.055
    sizes = [sum(chance(b, c, n, q + margin, q) for b, c in passing) for q in np.linspace(0, (1 - margin) / 2, 25)]
    assert 0.01 < max(sizes) <= limit


def test_without_discordant_pairs_149_items_show_a_margin_of_2_percent() -> None:
    assert noninferiority_p(0, 0, 149, 0.02) == pytest.approx(0.98**149, abs=2e-6)
    assert noninferiority_p(0, 0, 148, 0.02) > 0.05


def test_exact_p_for_a_million_items_enumerates_what_can_happen_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few changes are likely under H0, so few counts are looked at; more items change the p little."""
    seen: list[int] = []
    largest_b = paired._largest_b

    def counting(c: Any, *others: Any) -> Any:
        seen.append(len(c))
        return largest_b(c, *others)

    monkeypatch.setattr(paired, "_largest_b", counting)
    few, many = (noninferiority_p(9, 10, n, 10 / n) for n in (2000, 1_000_000))
    assert len(seen) == 2
    assert max(seen) < 200
    assert many == pytest.approx(few, rel=1e-2)


def test_exact_and_score_test_agree_where_both_hold() -> None:
    exact = noninferiority_p(9, 10, 2000, 0.004)
    score = norm.sf(tango_statistic(9, 10, 2000, -0.004))
    assert exact == pytest.approx(score, abs=0.01)


@given(FLIPS, MARGINS)
@settings(max_examples=60, deadline=None)
def test_p_values_are_probabilities(flips: tuple[int, int, int], margin: float) -> None:
    b, c, n = flips
    assert 0 <= noninferiority_p(b, c, n, margin) <= 1
    assert 0 <= mcnemar_midp_harm(b, c) <= 1


@given(FLIPS, st.floats(-0.99, 0.98), st.floats(0.001, 0.5))
def test_statistic_falls_in_delta0(flips: tuple[int, int, int], delta0: float, step: float) -> None:
    b, c, n = flips
    higher = min(delta0 + step, 0.99)
    assert tango_statistic(b, c, n, higher) <= tango_statistic(b, c, n, delta0) + 1e-9


@given(FLIPS, MARGINS)
def test_statistic_falls_in_b_and_rises_in_c(flips: tuple[int, int, int], margin: float) -> None:
    """The exact test rests on it: at given c it looks for the largest b."""
    b, c, n = flips
    assume(b + c < n)
    here = tango_statistic(b, c, n, -margin)
    assert tango_statistic(b + 1, c, n, -margin) <= here + 1e-9
    assert tango_statistic(b, c + 1, n, -margin) >= here - 1e-9


@given(FEW_FLIPS, MARGINS)
@settings(max_examples=40, deadline=None)
def test_one_more_lost_item_never_helps(flips: tuple[int, int, int], margin: float) -> None:
    b, c, n = flips
    assume(b + c < n)
    assert noninferiority_p(b + 1, c, n, margin) >= noninferiority_p(b, c, n, margin) - 1e-3


@given(st.integers(20, 60), st.integers(0, 60), st.integers(120, 2000), MARGINS, st.floats(0.001, 0.4))
def test_score_p_falls_as_the_margin_grows(b: int, c: int, n: int, margin: float, step: float) -> None:
    assert noninferiority_p(b, c, n, margin + step) <= noninferiority_p(b, c, n, margin) + 1e-12


@given(FLIPS, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
@settings(max_examples=60, deadline=None)
def test_interval_contains_the_estimate_and_inverts_the_test(flips: tuple[int, int, int], level: float) -> None:
    b, c, n = flips
    low, high = tango_interval(b, c, n, level)
    z = norm.isf((1 - level) / 2)
    assert -1 <= low <= (c - b) / n <= high <= 1
    assert low == -1 or tango_statistic(b, c, n, low) == pytest.approx(z, abs=1e-5)
    assert high == 1 or tango_statistic(b, c, n, high) == pytest.approx(-z, abs=1e-5)


@given(st.integers(10, 60), st.integers(10, 60), st.integers(120, 2000), MARGINS)
@settings(max_examples=60, deadline=None)
def test_interval_and_score_test_agree(b: int, c: int, n: int, margin: float) -> None:
    low, _ = tango_interval(b, c, n, 0.9)
    p = noninferiority_p(b, c, n, margin)
    assume(abs(p - 0.05) > 1e-6)
    assert (low > -margin) == (p < 0.05)


def test_swapping_the_models_mirrors_the_interval() -> None:
    low, high = tango_interval(9, 4, 60)
    assert tango_interval(4, 9, 60) == (-high, -low)


@pytest.mark.parametrize(("b", "c", "n"), [(-1, 0, 5), (0, -1, 5), (3, 3, 5), (0, 0, 0), (math.nan, 0, 5), (1.5, 0, 5)])
def test_impossible_counts_are_refused(b: int, c: int, n: int) -> None:
    with pytest.raises(ValueError, match=r"whole number|n >= 1"):
        tango_interval(b, c, n)
    with pytest.raises(ValueError, match=r"whole number|n >= 1"):
        noninferiority_p(b, c, n, 0.02)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.02, 2.0, math.nan])
def test_impossible_margins_and_levels_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        noninferiority_p(1, 1, 50, fraction)
    with pytest.raises(ValueError, match="level"):
        tango_interval(1, 1, 50, fraction)


def test_other_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="b must"):
        mcnemar_midp_harm(-1, 3)
    with pytest.raises(ValueError, match="delta0"):
        tango_statistic(1, 1, 5, math.nan)


@pytest.mark.parametrize("n", [25, 100, 400])
def test_midp_keeps_its_level_whatever_the_discordance(n: int) -> None:
    """FAIL when Δ = 0 in at most 5.5% of samples, by enumeration."""
    given_k = [0.0]
    for k in range(1, n + 1):
        losses = np.arange(k + 1)
        midp = binom.sf(losses, k, 0.5) + binom.pmf(losses, k, 0.5) / 2
        assert mcnemar_midp_harm(k // 2, k - k // 2) == pytest.approx(midp[k // 2])
        given_k.append(float(binom.pmf(losses[midp <= 0.05], k, 0.5).sum()))
    sizes = [float(binom.pmf(np.arange(n + 1), n, psi) @ np.array(given_k)) for psi in np.linspace(0.01, 1, 100)[:-1]]
    assert max(sizes) <= 0.055


@pytest.mark.parametrize(("n", "margin"), [(25, 0.02), (25, 0.1), (60, 0.3), (80, 0.2)])
def test_a_gain_no_larger_than_demanded_is_found_in_at_most_one_of_twenty(n: int, margin: float) -> None:
    """By enumeration; where only gains or hardly any items without a flip remain, the score test errs in up to 6.6%."""
    won = np.arange(n + 1)
    limits = np.array([most_lost(int(c), n, margin) for c in won])
    for discordance in np.linspace(margin, 1, 15):
        lost, gained = (discordance - margin) / 2, (discordance + margin) / 2
        rate = min(1.0, lost / (1 - gained)) if gained < 1 else 0.0
        found = binom.pmf(won, n, gained) * binom.cdf(limits, n - won, rate)
        assert found.sum() <= 0.055


def most_lost(c: int, n: int, margin: float) -> int:
    """The most losses with which c wins still show the gain, or −1."""
    low, high = -1, n - c
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if superiority_p(middle, c, n, margin) <= 0.05 else (low, middle - 1)
    return low


def test_a_clear_gain_is_found_on_few_and_on_many_items() -> None:
    assert superiority_p(1, 20, 30, 0.1) < 0.001
    assert superiority_p(0, 500, 3000, 0.1) < 1e-5
    assert superiority_p(30, 30000, 100_000, 0.2) < 1e-5
    assert superiority_p(2, 7, 50, 0.1) == 1.0
