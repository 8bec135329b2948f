"""Looks: boundaries as published, error rates by exact enumeration, and what stops early."""

import functools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve
from scipy.stats import binom, multivariate_normal, norm

from harness.stats.paired import mcnemar_midp_harm, noninferiority_p
from harness.stats.sequential import (
    LookPlan,
    decide_look,
    floor_at_look,
    nominal_levels,
    paired_at_look,
    plan_looks,
    spending_bounds,
)


def obrien_fleming(alpha: float, share: float) -> float:
    return float(2 * norm.sf(norm.isf(alpha / 2) / math.sqrt(share)))


def pocock(alpha: float, share: float) -> float:
    return alpha * math.log(1 + (math.e - 1) * share)


@pytest.mark.parametrize(
    ("shares", "spending", "alpha", "published"),
    [
        # Published tables of the Lan–DeMets program (Reboussin, DeMets, Kim & Lan 2000); R's ldbounds and gsDesign.
        ([0.2, 0.4, 0.6, 0.8, 1], obrien_fleming, 0.025, [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]),
        ([0.2, 0.4, 0.6, 0.8, 1], pocock, 0.025, [2.4380, 2.4268, 2.4102, 2.3966, 2.3860]),
        # SeqBounds.jl's read-me; its grid is coarser.
        ([0.25, 0.5, 0.75, 1], obrien_fleming, 0.05, [3.7496, 2.5399, 2.0160, 1.7201]),
    ],
)
def test_bounds_equal_published_tables(
    shares: list[float], spending: Callable[[float, float], float], alpha: float, published: list[float]
) -> None:
    bounds = spending_bounds(shares, [spending(alpha, share) for share in shares])
    assert bounds == pytest.approx(published, abs=1.5e-4)


def test_bounds_equal_the_multivariate_normal() -> None:
    """Not crossing any of three looks has chance 1 − α: scipy's integral of the joint distribution."""
    shares = np.array([0.3, 0.5, 1.0])
    bounds = [float(norm.isf(level)) for level in nominal_levels(tuple(shares.tolist()), 0.05, 2.0)]
    correlation = np.sqrt(np.minimum.outer(shares, shares) / np.maximum.outer(shares, shares))
    assert multivariate_normal(cov=correlation).cdf(bounds, rng=np.random.default_rng(0)) == pytest.approx(
        0.95, abs=1e-4
    )


def test_one_look_is_the_plain_test() -> None:
    plan = plan_looks(100, 1, 0.05, 0.01)
    assert plan.counts == (100,)
    assert (*plan.pass_levels, *plan.fail_levels) == pytest.approx((0.05, 0.01))


def test_looks_rise_to_all_items_and_levels_to_less_than_alpha() -> None:
    plan = plan_looks(377, 5, 0.05, 0.05)
    assert plan.counts == (76, 151, 227, 302, 377)
    assert all(np.diff(plan.pass_levels) > 0)
    assert plan.pass_levels[-1] < 0.05
    assert plan_looks(3, 5, 0.05, 0.05).counts == (1, 2, 3)


def replay(plan: LookPlan, rates: tuple[float, float], margin: float) -> dict[str | None, float]:
    """Chance of each verdict, and under None the mean share of items evaluated, by enumeration of the flips."""
    found: dict[str | None, float] = {"PASS": 0.0, "FAIL": 0.0, "INCONCLUSIVE": 0.0, None: 0.0}
    alive, before = np.ones((1, 1)), 0
    for look, count in enumerate(plan.counts):
        alive = _grow(alive, count - before, rates)
        before = count
        for b, c in np.argwhere(alive > 1e-12).tolist():
            decision = paired_at_look(plan, look, b, c, margin)
            if decision is not None:
                found[decision] += alive[b, c]
                found[None] += alive[b, c] * count / plan.counts[-1]
                alive[b, c] = 0
        alive[alive <= 1e-12] = 0
    return found


def _grow(alive: npt.NDArray[np.float64], items: int, rates: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Chances of flips (b, c) after that many items more: convolution with the multinomial."""
    most = int(binom.isf(1e-13, items, max(rates))) + 1
    b, c = np.meshgrid(np.arange(most + 1), np.arange(most + 1), indexing="ij")
    step = binom.pmf(b, items, rates[0]) * binom.pmf(c, items - b, rates[1] / (1 - rates[0]))
    return np.asarray(np.maximum(fftconvolve(alive, np.nan_to_num(step)), 0), dtype=np.float64)


@pytest.mark.parametrize(("n", "discordance", "margin"), [(80, 0.06, 0.05), (60, 0.2, 0.1)])
def test_error_rates_by_enumeration(n: int, discordance: float, margin: float) -> None:
    plan = plan_looks(n, 4, 0.05, 0.05)
    at_margin = replay(plan, ((discordance + margin) / 2, (discordance - margin) / 2), margin)
    equal = replay(plan, (discordance / 2, discordance / 2), margin)
    assert sum(at_margin[v] for v in ("PASS", "FAIL", "INCONCLUSIVE")) == pytest.approx(1, abs=1e-6)
    assert at_margin["PASS"] <= 0.055
    assert equal["FAIL"] <= 0.055
    assert 0 < equal[None] < 1


def test_a_clear_case_stops_at_the_first_look() -> None:
    plan = plan_looks(1000, 5, 0.05, 0.05)
    assert paired_at_look(plan, 0, 40, 2, 0.03) == "FAIL"
    assert paired_at_look(plan, 0, 2, 40, 0.03) == "PASS"
    assert paired_at_look(plan, 0, 11, 10, 0.03) is None
    assert paired_at_look(plan, 4, 70, 65, 0.03) in ("PASS", "INCONCLUSIVE")


def test_what_can_no_longer_be_decided_stops() -> None:
    """With two items to come neither verdict can be reached; with ten, PASS still can."""
    assert paired_at_look(LookPlan((998, 1000), (0.0, 0.04), (0.0, 0.04)), 0, 50, 42, 0.01) == "INCONCLUSIVE"
    assert noninferiority_p(60, 50, 1000, 0.03) <= 0.04
    assert paired_at_look(LookPlan((990, 1000), (0.0, 0.04), (0.0, 0.04)), 0, 60, 40, 0.03) is None


def test_floor_stops_when_sure() -> None:
    plan = plan_looks(200, 4, 0.05, 0.05)
    assert floor_at_look(plan, 0, 50, 0.9) in ("PASS", None)
    assert floor_at_look(plan, 1, 100, 0.9) == "PASS"
    assert floor_at_look(plan, 0, 30, 0.9) == "FAIL"
    assert floor_at_look(plan, 1, 93, 0.9) is None
    assert floor_at_look(plan, 3, 185, 0.9) == "INCONCLUSIVE"


@pytest.mark.parametrize("floor", [0.8, 0.9, 0.95])
def test_error_rates_of_a_floor_by_enumeration(floor: float) -> None:
    plan, before = plan_looks(150, 5, 0.05, 0.05), 0
    alive, found = np.ones(1), {"PASS": 0.0, "FAIL": 0.0, "INCONCLUSIVE": 0.0}
    for look, count in enumerate(plan.counts):
        step = count - before
        alive, before = np.convolve(alive, binom.pmf(np.arange(step + 1), step, floor)), count
        for successes in range(count + 1):
            decision = floor_at_look(plan, look, successes, floor)
            if decision is not None:
                found[decision] += alive[successes]
                alive[successes] = 0
    assert sum(found.values()) == pytest.approx(1)
    assert 0.01 < found["PASS"] <= 0.05
    assert 0.01 < found["FAIL"] <= 0.05


@pytest.mark.parametrize("arguments", [(0, 5, 0.05, 0.05), (10, 0, 0.05, 0.05), (10, 5, 0, 0.05), (10, 5, 0.05, 1.0)])
def test_impossible_plans_are_refused(arguments: tuple[int, int, float, float]) -> None:
    with pytest.raises(ValueError, match=r"need n|between 0 and 1"):
        plan_looks(*arguments)


@functools.cache
def _plan() -> LookPlan:
    return plan_looks(60, 3, 0.05, 0.05)


@given(st.integers(0, 2), st.integers(0, 20), st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_a_look_decides_as_its_p_values_do(look: int, b: int, c: int) -> None:
    if b + c > _plan().counts[look]:
        return
    decided = paired_at_look(_plan(), look, b, c, 0.1)
    p = noninferiority_p(b, c, _plan().counts[look], 0.1), mcnemar_midp_harm(b, c)
    expected = decide_look(_plan(), look, *p)
    assert decided == expected or (expected is None and decided == "INCONCLUSIVE")
    assert (look == 2) <= (decided is not None)
