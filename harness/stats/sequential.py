"""Interim looks: a verdict before all items are evaluated, with the error rates of a single look.

A group-sequential test with α-spending (Lan & DeMets 1983). The number of items at each look is fixed beforehand, and
items come in random order; at each look the p-value so far is compared with the level spent there. The p-values are
those of the test without looks, exact with few discordant pairs. The levels come from the joint normal distribution of
score statistics with independent increments (Jennison & Turnbull 2000, chapters 7 and 19).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, norm

from harness.stats.checks import FloatArray, require_count, require_open_unit
from harness.stats.paired import mcnemar_midp_harm, noninferiority_p

LookDecision = Literal["PASS", "FAIL", "INCONCLUSIVE"]
# Spending α·t³ (Kim & DeMets 1987), near O'Brien–Fleming. Earlier spending saves more items, but then 1.1 times the
# planned items decide for fewer than 90% of equal models.
SPENDING_POWER = 3.0
GRID = 801
LOWEST = -9.0


@dataclass(frozen=True)
class LookPlan:
    """Items at each look, rising to all items, and the levels at which each look's p-values reject. Shapes (looks,)."""

    counts: tuple[int, ...]
    pass_levels: tuple[float, ...]
    fail_levels: tuple[float, ...]


def plan_looks(n: int, looks: int, alpha_pass: float, alpha_fail: float) -> LookPlan:
    """Equally spaced looks at up to n items; one look is the test without looks.

    With several guards, pass alpha_fail divided by their number (Bonferroni; Holm's order is unknown before the end).
    There are never more looks than items. Raises ValueError on n < 1, looks < 1, or levels outside (0, 1).
    """
    require_count("n", n)
    require_count("looks", looks)
    require_open_unit("alpha_pass", alpha_pass)
    require_open_unit("alpha_fail", alpha_fail)
    if n < 1 or looks < 1:
        raise ValueError(f"need n >= 1 and looks >= 1, got {n} and {looks}")
    counts = tuple(sorted({math.ceil(n * look / looks) for look in range(1, looks + 1)}))
    shares = tuple(count / n for count in counts)
    return LookPlan(counts, nominal_levels(shares, alpha_pass), nominal_levels(shares, alpha_fail))


@cache
def nominal_levels(shares: tuple[float, ...], alpha: float, power: float = SPENDING_POWER) -> tuple[float, ...]:
    """One-sided level of each look at these shares of all items, so that the total spent by each is α·share^power."""
    spent = [alpha * share**power for share in shares]
    return tuple(float(norm.sf(bound)) for bound in spending_bounds(shares, spent))


def spending_bounds(shares: Sequence[float], spent: Sequence[float]) -> list[float]:
    """Bounds on z at each look, such that under H0 the chance of crossing any by look k is spent[k].

    Recursive integration over the score process S(t), N(0, t) with independent increments
    (Armitage, McPherson & Rowe 1969), by Simpson's rule over the values that have not crossed.
    """
    bounds = [float(norm.isf(spent[0]))]
    points, weights = _continuing(shares[0], bounds[0])
    density = weights * norm.pdf(points, scale=math.sqrt(shares[0]))
    for before, share, goal, already in zip(shares, shares[1:], spent[1:], spent, strict=False):
        step = math.sqrt(share - before)
        crossing = _crossing(points, density, share, step, goal - already)
        bounds.append(float(brentq(crossing, -4.0, 12.0, xtol=1e-10)))
        following, weights = _continuing(share, bounds[-1])
        density = weights * (norm.pdf((following[:, None] - points) / step) / step @ density)
        points = following
    return bounds


def _crossing(
    points: FloatArray, density: FloatArray, share: float, step: float, goal: float
) -> Callable[[float], float]:
    """A function of z: the chance of crossing z first at this look, minus the goal."""

    def excess(z: float) -> float:
        return float(norm.sf((z * math.sqrt(share) - points) / step) @ density) - goal

    return excess


def _continuing(share: float, bound: float) -> tuple[FloatArray, FloatArray]:
    """Points of S below the bound and Simpson's weights."""
    scale = math.sqrt(share)
    points = np.linspace(LOWEST * scale, bound * scale, GRID)
    weights = np.full(GRID, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return points, weights * (points[1] - points[0]) / 3


def decide_look(plan: LookPlan, look: int, p_pass: float, p_fail: float) -> LookDecision | None:
    """PASS, FAIL, INCONCLUSIVE at the last look, or None to continue. `look` counts from 0."""
    if p_pass <= plan.pass_levels[look]:
        return "PASS"
    if p_fail <= plan.fail_levels[look]:
        return "FAIL"
    return "INCONCLUSIVE" if look == len(plan.counts) - 1 else None


def paired_at_look(plan: LookPlan, look: int, b: int, c: int, margin: float) -> LookDecision | None:
    """The verdict of a guard on right/wrong items at this look, or None to continue.

    b and c count the flips among the first plan.counts[look] items. INCONCLUSIVE before the last look where no outcome
    of the remaining items could decide. Raises ValueError on impossible counts.
    """
    p_values = _paired_p(plan, look, b, c, margin)
    decision = decide_look(plan, look, *p_values)
    if decision is not None:
        return decision
    for later in range(look + 1, len(plan.counts)):
        rest = plan.counts[later] - plan.counts[look]
        for lost, won in ((0, rest), (rest, 0)):
            if decide_look(plan, later, *_paired_p(plan, later, b + lost, c + won, margin)) in ("PASS", "FAIL"):
                return None
    return "INCONCLUSIVE"


def floor_at_look(plan: LookPlan, look: int, successes: int, floor: float) -> LookDecision | None:
    """The verdict of a target on right/wrong items at this look, by exact binomial tails, or None to continue.

    PASS rejects H0: rate < floor, as the Clopper–Pearson bound reaches the floor. Raises ValueError on impossible
    counts.
    """
    decision = decide_look(plan, look, *_floor_p(plan, look, successes, floor))
    if decision is not None:
        return decision
    best_and_worst = [
        decide_look(plan, later, *_floor_p(plan, later, successes + won, floor))
        for later in range(look + 1, len(plan.counts))
        for won in (0, plan.counts[later] - plan.counts[look])
    ]
    return None if {"PASS", "FAIL"} & set(best_and_worst) else "INCONCLUSIVE"


def _paired_p(plan: LookPlan, look: int, b: int, c: int, margin: float) -> tuple[float, float]:
    return noninferiority_p(b, c, plan.counts[look], margin), mcnemar_midp_harm(b, c)


def _floor_p(plan: LookPlan, look: int, successes: int, floor: float) -> tuple[float, float]:
    """Exact one-sided p of H0: rate ≤ floor, and of H0: rate ≥ floor."""
    n = plan.counts[look]
    require_count("successes", successes)
    require_open_unit("floor", floor)
    if successes > n:
        raise ValueError(f"need successes <= {n}, got {successes}")
    return float(binom.sf(successes - 1, n, floor)), float(binom.cdf(successes, n, floor))
