"""Intervals of proportions, agreement of two raters, and p-values adjusted for several tests."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.stats import beta, binomtest, false_discovery_control

from harness.core.errors import MissingDependency
from harness.stats.checks import require_count, require_open_unit, require_p_values


def cohen_kappa(left: Sequence[Hashable], right: Sequence[Hashable]) -> float:
    """Agreement of two raters beyond chance, 1 at best (Cohen 1960); nan where both give every item the same label.

    Raises ValueError for no items or unequal lengths, MissingDependency without scikit-learn.
    """
    if not left or len(left) != len(right):
        raise ValueError(
            f"both raters need the same number of ratings, and at least one, got {len(left)} and {len(right)}"
        )
    codes = {label: code for code, label in enumerate(dict.fromkeys((*left, *right)))}
    if len(codes) == 1:
        return math.nan
    try:
        from sklearn.metrics import cohen_kappa_score
    except ImportError:
        raise MissingDependency("scikit-learn", "the agreement of two raters (Cohen's kappa)", "data") from None
    return float(cohen_kappa_score([codes[label] for label in left], [codes[label] for label in right]))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given, that bound the chance of any false rejection (Holm 1979).

    Raises ValueError on NaN.
    """
    p = require_p_values(p_values)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(value) for value in adjusted]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given, that bound the expected share of false rejections.

    Benjamini & Hochberg 1995. Raises ValueError on NaN.
    """
    return [float(value) for value in false_discovery_control(require_p_values(p_values), method="bh")]


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Two-sided 95% interval inside [0, 1] (Wilson 1927). Raises ValueError for n = 0 or impossible counts."""
    _require_successes(successes, n)
    found = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


# The Clopper–Pearson bounds are quantiles of the beta distribution. `binomtest(…).proportion_ci(…, "exact")` searches
# for them with a root finder, which agrees to 12 digits and takes 15 to 25 times as long.


def clopper_pearson_lower(successes: int, n: int, alpha: float) -> float:
    """Lower bound that exceeds the true rate with chance at most alpha, whatever n; 0 for no successes."""
    require_open_unit("alpha", alpha)
    _require_successes(successes, n)
    return float(beta.ppf(alpha, successes, n - successes + 1)) if successes else 0.0


def clopper_pearson_upper(successes: int, n: int, alpha: float) -> float:
    """Upper bound that the true rate exceeds with chance at most alpha, whatever n; 1 when all succeeded."""
    require_open_unit("alpha", alpha)
    _require_successes(successes, n)
    return float(beta.isf(alpha, successes + 1, n - successes)) if successes < n else 1.0


def _require_successes(successes: int, n: int) -> None:
    require_count("successes", successes)
    require_count("n", n)
    if n == 0 or successes > n:
        raise ValueError(f"need n >= 1 and successes <= n, got successes={successes}, n={n}")
