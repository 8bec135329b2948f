"""Tests and intervals for paired continuous scores: differences d = candidate − baseline, larger is better.

Scores are assumed to lie in [0, 1], so an item can lose at most 1 (or the largest |d| in the sample, where that is
more). This bounds what a sample may hide: with few items or little spread, rare large drops may be missing from it, and
neither the sign-flip test nor t allows for them.
"""

import math

import numpy as np
from scipy.stats import t

from harness.stats.checks import FloatArray, require_open_unit, require_sample
from harness.stats.resampling import bca_interval, bca_p, sign_flip_p

FEW_ITEMS = 200
FEW_FOR_BOOTSTRAP = 50
# With fewer items, where one item in twenty moves, a sample often has none of them: 21% of samples of 30, 8% of 50.
FEW_FOR_INTERVAL = 100
# With more skewness, t's one-sided 5% is off by more than about 0.5 points: 0.11·skewness/√n (Edgeworth expansion,
# Hall 1992).
SKEWED = 0.05


def noninferiority_p_continuous(d: FloatArray, margin: float, seed: int) -> float:
    """One-sided p of H0: mean ≤ −margin: sign-flip on d + margin under 200 items, else t; BCa bootstrap if skewed.

    d has shape (n,), n ≥ 2. p is never below the chance that n items show none of the total failures that would
    pull the mean down to −margin. With equal differences p is that chance; for d = 0 it is (1 − margin)^n, as for
    right/wrong answers without discordant pairs.
    Raises ValueError on n < 2, non-finite differences, or a margin outside (0, 1).
    """
    sample = require_sample(d)
    require_open_unit("margin", margin)
    unseen = unseen_drop_p(sample, margin, len(sample))
    if without_spread(sample):
        return unseen
    leaning = skewed(sample)
    if len(sample) < FEW_ITEMS:
        p = sign_flip_p(sample, margin, seed)
        return max(unseen, p, bca_p(sample, -margin, seed)) if leaning else max(unseen, p)
    return max(unseen, bca_p(sample, -margin, seed) if leaning else t_p(sample, -margin))


def harm_p_continuous(d: FloatArray, seed: int) -> float:
    """One-sided p of H0: mean ≥ 0, small when the candidate is worse; 1 when all differences are 0.

    The sign-flip test; where the differences are skewed, the larger p of it and the BCa bootstrap, as sign-flip relies
    on symmetry. p is never below the chance that n items show none of the total gains that would lift the mean to 0.
    Raises ValueError on n < 2 or non-finite differences.
    """
    gains = -require_sample(d)
    if not np.any(gains):
        return 1.0
    p = max(unseen_drop_p(gains, 0.0, len(gains)), sign_flip_p(gains, 0.0, seed))
    return max(p, bca_p(gains, 0.0, seed)) if skewed(gains) else p


def interval_continuous(d: FloatArray, level: float, seed: int) -> tuple[float, float]:
    """Two-sided interval for the mean: t for 200 items or more, BCa bootstrap for 50 to 199 items.

    Where d is skewed, BCa for more items too. With fewer than 50 items, the wider limits of t and Hall's. BCa limits
    of fewer than 50 items cover too rarely. With equal differences there is no standard error: the interval is the
    mean ± the share of items that could differ without one in the sample, times the most they could differ.
    Raises ValueError on n < 2, non-finite differences, or a level outside (0, 1).
    """
    sample = require_sample(d)
    require_open_unit("level", level)
    if without_spread(sample):
        # The Clopper–Pearson limit of 0 in n for the items that differ, times the most they can move the mean
        mean = float(sample.mean())
        reach = (1 - ((1 - level) / 2) ** (1 / len(sample))) * _farthest(sample)
        return mean - reach, mean + reach
    student = t_interval(sample, level)
    if len(sample) < FEW_FOR_BOOTSTRAP:
        corrected = hall_interval(sample, level)
        return min(student[0], corrected[0]), max(student[1], corrected[1])
    return bca_interval(sample, level, seed) if len(sample) < FEW_ITEMS or skewed(sample) else student


def t_p(d: FloatArray, bound: float) -> float:
    """One-sided p of H0: mean ≤ bound by Student's t. Raises ValueError on n < 2 or equal differences."""
    sample = _require_spread(d)
    return float(t.sf((sample.mean() - bound) / _standard_error(sample), len(sample) - 1))


def t_interval(d: FloatArray, level: float) -> tuple[float, float]:
    """Student's interval for the mean. Raises ValueError on n < 2 or equal differences."""
    sample = _require_spread(d)
    require_open_unit("level", level)
    reach = float(t.isf((1 - level) / 2, len(sample) - 1)) * _standard_error(sample)
    return float(sample.mean()) - reach, float(sample.mean()) + reach


def hall_interval(d: FloatArray, level: float) -> tuple[float, float]:
    """Interval for the mean by Hall's (1992) cubic transformation of t, which corrects for the sample's skewness.

    Quantiles are Student's. Raises ValueError on n < 2 or equal differences.
    """
    sample = _require_spread(d)
    require_open_unit("level", level)
    reach, lean = float(t.isf((1 - level) / 2, len(sample) - 1)), _skewness(sample) / math.sqrt(len(sample))
    low, high = (float(sample.mean()) - _standard_error(sample) * _untransformed(q, lean) for q in (reach, -reach))
    return low, high


def _untransformed(q: float, lean: float) -> float:
    """The T for which T + lean·T²/3 + lean²·T³/27 + lean/6 is q; `lean` is skewness over √n."""
    if abs(lean) < 1e-6:
        return q
    return 3 / lean * (math.cbrt(1 + lean * (q - lean / 6)) - 1)


def _standard_error(sample: FloatArray) -> float:
    return float(sample.std(ddof=1)) / math.sqrt(len(sample))


def without_spread(sample: FloatArray) -> bool:
    return bool(np.ptp(sample) <= 1e-12 * max(1.0, float(np.abs(sample).max())))


def unseen_drop_p(sample: FloatArray, margin: float, items: float) -> float:
    """Chance that `items` items show none of the total failures that would bring the sample's mean down to −margin."""
    share = (float(sample.mean()) + margin) / _farthest(sample)
    return float((1 - max(share, 0.0)) ** items) if share < 1 else 0.0


def skewed(sample: FloatArray) -> bool:
    """Whether the sample is too skewed for Student's t at its size."""
    if without_spread(sample):
        return False
    return abs(_skewness(sample)) > SKEWED * math.sqrt(len(sample))


def _skewness(sample: FloatArray) -> float:
    centred = sample - sample.mean()
    return float((centred**3).mean() / (centred**2).mean() ** 1.5)


def _require_spread(d: FloatArray) -> FloatArray:
    sample = require_sample(d)
    if without_spread(sample):
        raise ValueError("all differences are equal: the sample has no standard error")
    return sample


def _farthest(sample: FloatArray) -> float:
    """How far an item outside the sample could lie from the mean."""
    return max(1.0, float(np.abs(sample).max())) + abs(float(sample.mean()))
