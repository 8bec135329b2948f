"""Sample size and power: how many items a decision needs."""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, norm

from harness.stats.checks import require_count, require_open_unit, require_unit
from harness.stats.paired import noninferiority_p

NEGLIGIBLE = 1e-7


def n_for_noninferiority(margin: float, discordance: float, alpha: float, power: float, delta: float = 0.0) -> int:
    """Paired right/wrong items with which the test shows non-inferiority at alpha with the given power.

    n = (z₁₋α + z₁₋β)²·ψ/(margin + delta)², ψ the expected share of discordant pairs and delta the true Δ
    (Miller 2024). For a continuous metric, pass the variance of the differences as ψ (at most 1 for scores in
    [0, 1]). Never below the n that suffices without any discordant pair, (1 − margin − delta)^n ≤ alpha, so
    ψ = 0 has an answer. Raises ValueError when delta ≤ −margin: then no n suffices.
    """
    for name, value in (("margin", margin), ("alpha", alpha), ("power", power)):
        require_open_unit(name, value)
    require_unit("discordance", discordance)
    distance = margin + delta
    if not distance > 0:
        raise ValueError(f"no sample size shows non-inferiority: delta {delta} is not above -{margin}")
    quantiles = float(norm.isf(alpha) + norm.ppf(power))
    planned = quantiles**2 * discordance / distance**2
    at_least = math.log(alpha) / math.log(1 - distance) if distance < 1 else 1.0
    return math.ceil(max(planned, at_least))


def n_for_bounded_mean(
    margin: float, variance: float, heaviest: float, alpha: float, power: float, delta: float = 0.0
) -> int:
    """Items (or clusters) with which `bounded_mean_p` shows non-inferiority at alpha with the given power.

    By the normal approximation: the value that the test adds, −heaviest, lowers the sum and adds to its variance.
    `variance` is that of the items' differences or of the clusters' values, `heaviest` the largest weight or size over
    the average one (1 for equal items), `delta` the true Δ. Never below the n that suffices without any change.
    Raises ValueError when delta ≤ −margin: then no n suffices.
    """
    for name, value in (("margin", margin), ("alpha", alpha), ("power", power)):
        require_open_unit(name, value)
    distance = margin + delta
    if not distance > 0 or variance < 0 or heaviest < 1 - 1e-9:
        raise ValueError(f"need delta > -{margin}, variance >= 0 and heaviest >= 1: {delta}, {variance}, {heaviest}")
    low, high = float(norm.isf(alpha)), float(norm.ppf(power))

    def reached(n: float) -> float:
        return distance * n - heaviest - low * math.sqrt(variance * n + heaviest**2) - high * math.sqrt(variance * n)

    most = 16 * (heaviest / distance + ((low + abs(high)) / distance) ** 2 * max(variance, 1e-6)) + 16
    planned = float(brentq(reached, 0.0, most))
    share = distance / (heaviest * (1 - margin) + distance)
    return math.ceil(max(planned, math.log(alpha) / math.log1p(-share)))


def detectable_margin(n: int, discordance: float, alpha: float, power: float) -> float:
    """The smallest margin for which n items show non-inferiority of an equal model with the given power.

    Inverse of `n_for_noninferiority`. Clustered items: pass n divided by their design effect. At most 1.
    """
    require_count("n", n)
    for name, value in (("alpha", alpha), ("power", power)):
        require_open_unit(name, value)
    require_unit("discordance", discordance)
    if n == 0:
        return 1.0
    quantiles = float(norm.isf(alpha) + norm.ppf(power))
    return min(1.0, max(quantiles * math.sqrt(discordance / n), 1 - math.pow(alpha, 1 / n)))


def power_noninferiority(n: int, margin: float, discordance: float, alpha: float, delta: float) -> float:
    """Chance that `noninferiority_p` ≤ alpha on n right/wrong items at the true Δ = delta, by enumeration.

    For each number of gains, bisection gives the largest number of losses that still passes. Raises ValueError unless
    |delta| ≤ discordance ≤ 1.
    """
    require_count("n", n)
    require_unit("discordance", discordance)
    if n == 0 or not abs(delta) <= discordance:
        raise ValueError(f"need n >= 1 and |delta| <= discordance, got n={n}, {delta} and {discordance}")
    lost, gained = (discordance - delta) / 2, (discordance + delta) / 2
    first, last = (int(binom.ppf(share, n, gained)) for share in (NEGLIGIBLE, 1 - NEGLIGIBLE))
    won = np.arange(first, last + 1)
    limits = np.array([_max_lost(int(c), n, margin, alpha) for c in won])
    rate = min(lost / (1 - gained), 1.0) if gained < 1 else 0.0
    return float(np.sum(binom.pmf(won, n, gained) * binom.cdf(limits, n - won, rate)))


def _max_lost(c: int, n: int, margin: float, alpha: float) -> int:
    """The largest b at which b losses and c gains still show non-inferiority, or −1."""
    low, high = -1, n - c
    while low < high:
        middle = (low + high + 1) // 2
        if noninferiority_p(middle, c, n, margin) <= alpha:
            low = middle
        else:
            high = middle - 1
    return low


def n_for_floor(rate: float, floor: float, alpha: float, power: float) -> int | None:
    """Items for which the Wilson lower bound at alpha exceeds the floor with the given power.

    Normal approximation of the one-sample score test (Fleiss 1981) at the true rate. None when the rate does
    not exceed the floor: then no n suffices. Raises ValueError unless rate in [0, 1], the others in (0, 1).
    """
    require_unit("rate", rate)
    for name, value in (("floor", floor), ("alpha", alpha), ("power", power)):
        require_open_unit(name, value)
    if rate <= floor:
        return None
    under_floor = float(norm.isf(alpha)) * math.sqrt(floor * (1 - floor))
    under_rate = float(norm.ppf(power)) * math.sqrt(rate * (1 - rate))
    return max(1, math.ceil(((under_floor + under_rate) / (rate - floor)) ** 2))
