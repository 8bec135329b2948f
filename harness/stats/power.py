"""How many items a decision needs."""

import math

from scipy.stats import norm

from harness.stats.checks import require_open_unit, require_unit


def n_for_noninferiority(margin: float, discordance: float, alpha: float, power: float, delta: float = 0.0) -> int:
    """Paired right/wrong items for which non-inferiority at alpha is found with the given power.

    n = (z₁₋α + z₁₋β)²·ψ/(margin + delta)², ψ the expected share of discordant pairs and delta the true Δ
    (Miller 2024). For a continuous metric, pass the variance of the differences as ψ (at most 1 for scores in
    [0, 1]). Never below the n at which no discordant pair at all would suffice, (1 − margin − delta)^n ≤ alpha, so
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
