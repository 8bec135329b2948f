"""Intervals of the mean of paired continuous scores: differences d = candidate − baseline, larger is better.

The tests are those of `harness.stats.bounded`. An interval describes the sample: under 100 items it may not cover what
the sample lacks, and the gate says so. All functions sort the differences, so their order changes nothing.
"""

import math

import numpy as np
from scipy.stats import t

from harness.stats.checks import FloatArray, require_open_unit, require_sample
from harness.stats.resampling import bca_interval

FEW_ITEMS = 200
FEW_FOR_BOOTSTRAP = 50
# With fewer items, where one item in twenty moves, a sample often has none of them: 21% of samples of 30, 8% of 50.
FEW_FOR_INTERVAL = 100
# With more skewness, t's one-sided 5% is off by more than about 0.5 points: 0.11·skewness/√n (Edgeworth expansion,
# Hall 1992).
SKEWED = 0.05


def interval_continuous(d: FloatArray, level: float, seed: int) -> tuple[float, float]:
    """Two-sided interval for the mean: t for 200 items or more, BCa bootstrap for 50 to 199 items.

    Where d is skewed, BCa for more items too. With fewer than 50 items, the wider limits of t and Hall's. BCa limits
    of fewer than 50 items cover too rarely. With equal differences there is no standard error: the interval is the
    mean ± the share of items that could differ without one in the sample, times the most they could differ.
    Raises ValueError on n < 2, non-finite differences, or a level outside (0, 1).
    """
    sample = np.sort(require_sample(d))
    require_open_unit("level", level)
    if without_spread(sample):
        # The Clopper–Pearson limit of 0 in n for the items that differ, times the most they can move the mean
        mean = float(sample.mean())
        reach = (1 - ((1 - level) / 2) ** (1 / len(sample))) * (max(1.0, float(np.abs(sample).max())) + abs(mean))
        return mean - reach, mean + reach
    student = t_interval(sample, level)
    if len(sample) < FEW_FOR_BOOTSTRAP:
        corrected = hall_interval(sample, level)
        return min(student[0], corrected[0]), max(student[1], corrected[1])
    return bca_interval(sample, level, seed) if len(sample) < FEW_ITEMS or skewed(sample) else student


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
    """Whether all values are equal but for rounding."""
    return bool(np.ptp(sample) <= 1e-12 * max(1.0, float(np.abs(sample).max())))


def skewed(d: FloatArray) -> bool:
    """Whether the sample is too skewed for Student's t at its size."""
    sample = np.sort(d)
    return not without_spread(sample) and abs(_skewness(sample)) > SKEWED * math.sqrt(len(sample))


def _skewness(sample: FloatArray) -> float:
    centred = sample - sample.mean()
    return float((centred**3).mean() / (centred**2).mean() ** 1.5)


def _require_spread(d: FloatArray) -> FloatArray:
    """The sorted sample."""
    sample = np.sort(require_sample(d))
    if without_spread(sample):
        raise ValueError("all differences are equal: the sample has no standard error")
    return sample
