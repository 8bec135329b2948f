"""One proportion: successes in n independent items."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.stats import beta, norm

from harness.stats.checks import require_count, require_open_unit, require_p_values

# Agreement of two raters on the same items.


def cohen_kappa(left: Sequence[Hashable], right: Sequence[Hashable]) -> float:
    """Agreement beyond chance, 1 at best (Cohen 1960); nan where chance alone agrees on everything.

    Raises ValueError for no items or unequal lengths.
    """
    n = len(left)
    if n == 0 or n != len(right):
        raise ValueError(f"need as many ratings of each rater and at least one, got {n} and {len(right)}")
    observed = sum(a == b for a, b in zip(left, right, strict=True)) / n
    counts, others = Counter(left), Counter(right)
    chance = sum(counts[label] * others[label] for label in counts) / (n * n)
    return math.nan if chance == 1 else (observed - chance) / (1 - chance)


# Adjusted p-values for several tests at once, in the order given; an empty list stays empty.


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that bound the chance of any false rejection (Holm 1979). Raises ValueError on NaN."""
    p = require_p_values(p_values)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(value) for value in adjusted]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that bound the expected share of false rejections (Benjamini & Hochberg 1995)."""
    p = require_p_values(p_values)
    order = np.argsort(p, kind="stable")[::-1]
    scaled = p[order] * len(p) / np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1)
    return [float(value) for value in adjusted]


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
