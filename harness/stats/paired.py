"""Tests and intervals for paired right/wrong answers: two models on the same n items.

Only the baseline got b items right (1 → 0), only the candidate c items (0 → 1). Δ = (c − b)/n, larger is better.
The other n − b − c items say nothing about the sign of Δ.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, binom, norm

from harness.stats.checks import FloatArray, require_count, require_open_unit

FEW_DISCORDANT = 20
MOST_ENUMERATED = 2000
# The chance that the restriction of the nuisance parameter is wrong; it is added to p (Berger & Boos 1994).
NUISANCE_ALPHA = 1e-6
NEGLIGIBLE = 1e-12
TIE = 1e-9
EDGE = 1e-12


def tango_statistic(b: int, c: int, n: int, delta0: float) -> float:
    """Score statistic of H0: Δ = delta0, standard normal under H0 (Tango 1998); decreases in delta0.

    0 where data and hypothesis agree without any variance (b = c = 0 at delta0 = 0); infinite only at
    delta0 = ±1 when the data say otherwise. Raises ValueError on impossible counts or delta0 outside [−1, 1].
    """
    _require_counts(b, c, n)
    if not -1 <= delta0 <= 1:
        raise ValueError(f"delta0 must lie between -1 and 1, got {delta0}")
    return float(_score(np.array([b], dtype=np.float64), np.array([c], dtype=np.float64), n, delta0)[0])


def noninferiority_p(b: int, c: int, n: int, margin: float) -> float:
    """One-sided p of H0: Δ ≤ −margin; small when the candidate is not worse by the margin.

    Tango's score test; with fewer than 20 discordant pairs, the exact unconditional test that orders
    outcomes by his statistic. The score test's p falls as the margin grows; the exact one's may rise a little
    between two margins, as the order of outcomes changes with the margin.
    Raises ValueError on impossible counts or a margin outside (0, 1).
    """
    _require_counts(b, c, n)
    require_open_unit("margin", margin)
    if b + c < FEW_DISCORDANT:
        return _exact_noninferiority_p(b, c, n, margin)
    return float(norm.sf(tango_statistic(b, c, n, -margin)))


def superiority_p(b: int, c: int, n: int, margin: float) -> float:
    """One-sided p of H0: Δ ≤ +margin; small when the candidate is better by more than the margin.

    Tango's score test; with fewer than 20 losses or unchanged answers (and up to 2,000 discordant pairs) the exact
    test, since there the gains alone decide and the score test errs in up to 7%. 1 where the observed gain is at most
    the margin.
    Raises ValueError on impossible counts or a margin outside (0, 1).
    """
    _require_counts(b, c, n)
    require_open_unit("margin", margin)
    if c - b <= n * margin:
        return 1.0
    # Under H0 many answers change: the normal distribution is wrong where losses, or unchanged answers, are few.
    if min(b, n - b - c) < FEW_DISCORDANT and b + c <= MOST_ENUMERATED:
        return _exact_noninferiority_p(b, c, n, -margin)
    return float(norm.sf(tango_statistic(b, c, n, margin)))


def mcnemar_midp_harm(b: int, c: int) -> float:
    """One-sided mid-p of McNemar's H0: Δ ≥ 0, small when b is much larger than c (Fagerland et al. 2013).

    0.5 for b = c, including b = c = 0. Raises ValueError on negative counts.
    """
    require_count("b", b)
    require_count("c", c)
    return float(binom.sf(b, b + c, 0.5) + binom.pmf(b, b + c, 0.5) / 2)


def tango_interval(b: int, c: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Two-sided interval for Δ, the delta0 that the score test does not reject (Tango 1998).

    Contains (c − b)/n and lies inside [−1, 1]; for b = c = 0 it is ±z²/(n + z²). Raises ValueError as above.
    """
    _require_counts(b, c, n)
    require_open_unit("level", level)
    z = float(norm.isf((1 - level) / 2))
    return -_upper_bound(c, b, n, z), _upper_bound(b, c, n, z)


def _require_counts(b: int, c: int, n: int) -> None:
    for name, value in (("b", b), ("c", c), ("n", n)):
        require_count(name, value)
    if n == 0 or b + c > n:
        raise ValueError(f"need n >= 1 and b + c <= n, got b={b}, c={c}, n={n}")


def _lost_rate(b: FloatArray, c: FloatArray, n: FloatArray | int, delta0: FloatArray | float) -> FloatArray:
    """P(only baseline right) that maximises the likelihood under H0: Δ = delta0 ≥ 0.

    It is the larger root of 2n·q² − linear·q − b·drift = 0; the roots are real and have opposite signs.
    """
    drift = delta0 * (1 - delta0)
    linear = b * (1 - delta0) + c * (1 + delta0) - 2 * n * delta0
    return np.asarray(np.maximum((linear + np.sqrt(linear**2 + 8 * n * b * drift)) / (4 * n), 0), dtype=np.float64)


def _score(b: FloatArray, c: FloatArray, n: int, delta0: float) -> FloatArray:
    """Tango's statistic for arrays of counts, all of one shape."""
    if delta0 < 0:
        return -_score(c, b, n, -delta0)
    variance = n * (2 * _lost_rate(b, c, n, delta0) + delta0 * (1 - delta0))
    surplus = c - b - n * delta0
    statistic = np.where(surplus == 0, 0.0, np.copysign(np.inf, surplus))
    np.divide(surplus, np.sqrt(variance), out=statistic, where=variance > 0)
    return statistic


def _upper_bound(b: int, c: int, n: int, z: float) -> float:
    """The delta0 above the estimate at which the statistic is −z."""
    estimate = (c - b) / n
    if c == n:
        return 1.0
    return float(brentq(lambda delta0: tango_statistic(b, c, n, delta0) + z, estimate, 1 - EDGE, xtol=1e-12))


def _exact_noninferiority_p(b: int, c: int, n: int, margin: float) -> float:
    """Largest chance, under Δ = −margin, of a statistic at least as large as the observed one.

    The unknown discordance is searched up to its exact upper confidence limit, and the limit's error is
    added (Berger & Boos 1994). Δ < −margin need not be searched: at equal discordance it makes large
    statistics rarer (Hsueh, Liu & Chen 2001). A negative margin demands a gain: where too few answers change for
    it, H0 allows at most that all of them are gains.
    """
    discordance_limit = float(beta.isf(NUISANCE_ALPHA, b + c + 1, n - b - c)) if b + c < n else 1.0
    if discordance_limit <= margin:
        return NUISANCE_ALPHA
    highest = (discordance_limit - margin) / 2 if discordance_limit >= -margin else discordance_limit
    gained = np.arange(int(binom.isf(NEGLIGIBLE, n, highest)) + 1, dtype=np.float64)
    lost_limit = _largest_b(gained, n, margin, tango_statistic(b, c, n, -margin) - TIE)

    def tail(q: FloatArray) -> FloatArray:
        """Chance of the tail for each P(only candidate right) in q, shape (points,)."""
        column = q[:, None]
        lost_rate = np.clip((column + margin) / (1 - column), 0, 1)
        terms = binom.pmf(gained, n, column) * binom.cdf(lost_limit, n - gained, lost_rate)
        ignored = binom.sf(gained[-1], n, q)
        return np.asarray(terms.sum(axis=1) + ignored, dtype=np.float64)

    return min(1.0, _maximum(tail, 0.0, highest) + NUISANCE_ALPHA)


def _largest_b(c: FloatArray, n: int, margin: float, threshold: float) -> FloatArray:
    """For each c the largest b whose statistic at −margin reaches the threshold, or −1; bisection, as it falls in b."""
    low, high = np.full_like(c, -1), n - c
    for _ in range(math.ceil(math.log2(n + 2))):
        middle = np.ceil((low + high) / 2)
        # middle is −1 only where low = high = −1, which then stays.
        reached = _score(np.maximum(middle, 0), c, n, -margin) >= threshold
        low = np.where(reached, np.maximum(middle, low), low)
        high = np.where(reached, high, np.maximum(middle - 1, low))
    return low


def _maximum(function: Callable[[FloatArray], FloatArray], low: float, high: float) -> float:
    """Largest value on a grid over [low, high], refined twice around its best point."""
    best = 0.0
    for points in (201, 41, 41):
        grid = np.linspace(low, high, points)
        values = function(grid)
        peak = int(np.argmax(values))
        best = max(best, float(values[peak]))
        low, high = float(grid[max(peak - 1, 0)]), float(grid[min(peak + 1, points - 1)])
    return best
