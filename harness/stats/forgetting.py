"""Measures what a candidate forgot and gained: flips beyond chance, relative drop, and a summary over a suite.

Items are sorted by their values first, so their order changes nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from harness.stats.checks import FloatArray, require_count, require_open_unit, require_sample
from harness.stats.continuous import interval_continuous
from harness.stats.paired import tango_interval

PSEUDO_ITEMS = 2.0


@dataclass(frozen=True)
class AdjustedFlips:
    """Shares of all items, with intervals: known before but no longer (forgetting), and the reverse (transfer)."""

    forgetting: float
    forgetting_low: float
    forgetting_high: float
    transfer: float
    transfer_low: float
    transfer_high: float


@dataclass(frozen=True)
class RelativeDrop:
    """1 − candidate/baseline of the mean scores: 0.1 = a tenth of the baseline's score lost; negative = a gain."""

    drop: float
    low: float
    high: float


@dataclass(frozen=True)
class SuiteSummary:
    """Forgetting over tasks; a positive Δ favours the candidate. `fell` counts tasks with Δ < 0.

    `worst_low` and `worst_high` bound the smallest true Δ; `fell_low` and `fell_high` bound the number of tasks whose
    true Δ is below 0.
    """

    tasks: int
    worst_index: int
    worst: float
    worst_low: float
    worst_high: float
    mean: float
    mean_low: float
    mean_high: float
    fell: int
    fell_low: int
    fell_high: int


def chance_adjusted_flips(b: int, c: int, both_wrong: int, n: int, choices: int, level: float = 0.95) -> AdjustedFlips:
    """Forgetting (b of n items flipped 1 → 0) and transfer (c items 0 → 1), without the flips that guessing explains.

    Response model of Harmon et al. 2025 (arXiv 2510.17776): an item is known, or guessed uniformly among k choices.
    Items unknown to both models, u = both_wrong/(1 − 1/k)², flip either way with chance (1/k)(1 − 1/k), and
    an item forgotten shows only when the later guess is wrong, so forgetting = (b − both_wrong/(k − 1))/(1 − 1/k)/n.
    (They take u from the two accuracies; item pairs give it without assuming independence.) The interval is
    Wald's after adding half an item to each cell (Agresti & Min 2005); point and limits are not below 0.
    Raises ValueError on impossible counts or fewer than 2 choices.
    """
    for name, value in (("b", b), ("c", c), ("both_wrong", both_wrong), ("n", n), ("choices", choices)):
        require_count(name, value)
    require_open_unit("level", level)
    if n == 0 or b + c + both_wrong > n or choices < 2:
        raise ValueError(f"need n >= 1, b + c + both_wrong <= n and choices >= 2, got {b}, {c}, {both_wrong}, {n}")
    z = float(norm.isf((1 - level) / 2))
    forgotten, gained = (_beyond_chance(flipped, both_wrong, n, choices, z) for flipped in (b, c))
    return AdjustedFlips(*forgotten, *gained)


def _beyond_chance(flipped: int, both_wrong: int, n: int, choices: int, z: float) -> tuple[float, float, float]:
    """Point and limits of the share of items flipped by knowledge, each at least 0."""
    guessed, scale = 1 / (choices - 1), choices / (choices - 1)
    point = (flipped - guessed * both_wrong) / n
    total = n + PSEUDO_ITEMS
    p, q = (flipped + PSEUDO_ITEMS / 4) / total, (both_wrong + PSEUDO_ITEMS / 4) / total
    centre = p - guessed * q
    reach = z * math.sqrt((p + guessed**2 * q - centre**2) / total)
    low, high = min(point, centre - reach), max(point, centre + reach)
    return scale * max(point, 0.0), scale * max(low, 0.0), scale * max(high, 0.0)


def relative_drop(baseline: FloatArray, candidate: FloatArray, level: float = 0.95) -> RelativeDrop | None:
    """Relative drop of the mean score with Fieller's interval for a ratio of paired means (Fieller 1954).

    Arrays of scores ≥ 0 on the same items, shape (n,), n ≥ 2. None when the baseline's mean is 0. Where the baseline's
    mean is not significantly above 0, the ratio has no upper limit and `low` is −inf; `high` is at most 1.
    Raises ValueError on unequal lengths or non-finite scores.
    """
    x, y = require_sample(baseline), require_sample(candidate)
    require_open_unit("level", level)
    if x.shape != y.shape or min(x.min(), y.min()) < 0:
        raise ValueError(f"need non-negative scores of the same items, got shapes {x.shape} and {y.shape}")
    if x.mean() == 0:
        return None
    order = np.lexsort((y, x))
    x, y = x[order], y[order]
    ratio = float(y.mean() / x.mean())
    low, high = _fieller(x, y, float(t.isf((1 - level) / 2, len(x) - 1)))
    return RelativeDrop(drop=1 - ratio, low=1 - high, high=min(1 - low, 1.0))


def _fieller(x: FloatArray, y: FloatArray, quantile: float) -> tuple[float, float]:
    """The ratios r for which mean(y − r·x) is within `quantile` standard errors of 0."""
    n, (mx, my) = len(x), (float(x.mean()), float(y.mean()))
    (vx, vxy), (_, vy) = np.cov(x, y) / n
    q2 = quantile**2
    a, half, c = mx**2 - q2 * float(vx), mx * my - q2 * float(vxy), my**2 - q2 * float(vy)
    if a <= 0:
        return 0.0, math.inf
    root = math.sqrt(max(half**2 - a * c, 0.0))
    return (half - root) / a, (half + root) / a


def suite_summary(differences: Sequence[FloatArray], level: float, seed: int) -> SuiteSummary:
    """Worst, mean and number of falls over tasks from their item differences (candidate − baseline), shape (n_task,).

    Items of different tasks are independent, so intervals at level^(1/tasks) hold all at once (Šidák 1967): the
    smallest true Δ lies between the smallest lower and the smallest upper limit, and tasks whose upper limit is
    below 0 fell for certain at that level. The observed worst is biased downwards, as it is the worst of many. In the
    mean, tasks weigh equally and standard errors add in squares. Items of one task are taken as independent: average
    clusters first.
    Raises ValueError for no task, or a task of fewer than 2 items.
    """
    require_open_unit("level", level)
    samples = [np.sort(require_sample(d)) for d in differences]
    if not samples:
        raise ValueError("need at least one task")
    limits = np.array([_interval(d, level ** (1 / len(samples)), seed) for d in samples])
    deltas = np.array([d.mean() for d in samples])
    error = math.sqrt(sum(_variance_of_mean(d) for d in samples)) / len(samples)
    reach = float(norm.isf((1 - level) / 2)) * error
    mean, worst = float(deltas.mean()), int(np.argmin(deltas))
    return SuiteSummary(
        tasks=len(samples),
        worst_index=worst,
        worst=float(deltas[worst]),
        worst_low=float(limits[:, 0].min()),
        worst_high=float(limits[:, 1].min()),
        mean=mean,
        mean_low=mean - reach,
        mean_high=mean + reach,
        fell=int((deltas < 0).sum()),
        fell_low=int((limits[:, 1] < 0).sum()),
        fell_high=int((limits[:, 0] < 0).sum()),
    )


def _interval(d: FloatArray, level: float, seed: int) -> tuple[float, float]:
    if np.isin(d, (-1.0, 0.0, 1.0)).all():
        return tango_interval(int((d < 0).sum()), int((d > 0).sum()), len(d), level)
    return interval_continuous(d, level, seed)


def _variance_of_mean(d: FloatArray) -> float:
    """The variance of the mean; for right/wrong differences Agresti & Min's, half a flip added each way."""
    if np.isin(d, (-1.0, 0.0, 1.0)).all():
        n, lost, gained = len(d) + 2, float((d < 0).sum()) + 0.5, float((d > 0).sum()) + 0.5
        return (lost + gained - (gained - lost) ** 2 / n) / n**2
    return float(d.var(ddof=1)) / len(d)
