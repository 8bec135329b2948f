"""One proportion: successes in n independent items."""

import math

from scipy.stats import beta, norm

from harness.stats.checks import require_count, require_open_unit


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Two-sided interval inside [0, 1] (Wilson 1927). Raises ValueError for n = 0 or impossible counts."""
    require_open_unit("level", level)
    tail = (1 - level) / 2
    return wilson_lower(successes, n, tail), wilson_upper(successes, n, tail)


def wilson_lower(successes: int, n: int, alpha: float) -> float:
    """Lower bound that exceeds the true rate with chance alpha (Wilson 1927); 0 for no successes.

    It lies above a floor exactly when the one-sided score test rejects "rate <= floor" at alpha (alpha < 0.5).
    """
    return 1 - wilson_upper(n - successes, n, alpha)


def wilson_upper(successes: int, n: int, alpha: float) -> float:
    """Upper bound that the true rate exceeds with chance alpha (Wilson 1927); 1 when all succeeded."""
    _require_successes(successes, n, alpha)
    z = float(norm.isf(alpha))
    if successes == n and z > 0:
        return 1.0
    rate = successes / n
    centre = rate + z * z / (2 * n)
    reach = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return (centre + reach) / (1 + z * z / n)


def clopper_pearson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Two-sided exact interval: it covers the true rate at least as often as `level` (Clopper & Pearson 1934)."""
    require_open_unit("level", level)
    tail = (1 - level) / 2
    return clopper_pearson_lower(successes, n, tail), clopper_pearson_upper(successes, n, tail)


def clopper_pearson_lower(successes: int, n: int, alpha: float) -> float:
    """Lower bound that exceeds the true rate with chance at most alpha, whatever n; 0 for no successes."""
    _require_successes(successes, n, alpha)
    return float(beta.ppf(alpha, successes, n - successes + 1)) if successes else 0.0


def clopper_pearson_upper(successes: int, n: int, alpha: float) -> float:
    """Upper bound that the true rate exceeds with chance at most alpha, whatever n; 1 when all succeeded."""
    _require_successes(successes, n, alpha)
    return float(beta.isf(alpha, successes + 1, n - successes)) if successes < n else 1.0


def _require_successes(successes: int, n: int, alpha: float) -> None:
    require_count("successes", successes)
    require_count("n", n)
    require_open_unit("alpha", alpha)
    if n == 0 or successes > n:
        raise ValueError(f"need n >= 1 and successes <= n, got successes={successes}, n={n}")
