"""Tests of the mean of bounded values that assume nothing of their distribution, and no order of the items.

A sample shows nothing of what is rare: a score that one item in fifty loses entirely is not among 30 items in more
than half of all samples. The tests add what the sample may lack, one value at the worst end of the range
(Gaffke 2005; Learned-Miller & Thomas 2019; Phan, Thomas & Learned-Miller 2021). For right/wrong values they are the
exact test of Clopper & Pearson. For others the bound is proved only for some distributions, and no counter-example is
known; docs/gate.md lists the families for which it is enumerated.
"""

import math
from typing import Any

import numpy as np
from scipy.optimize import brentq

from harness.stats.checks import FloatArray, require_sample

# More distinct values are shared out between the points of a grid of so many, which keeps their mean.
MOST_DISTINCT = 4000
EQUAL = 1e-12  # closer to the bound than this share of the range is at the bound
NEGLIGIBLE = 1e-12
BLOCK = 2_000_000


def bounded_mean_p(values: FloatArray, bound: float, lowest: float) -> float:
    """One-sided p of H0: mean ≤ bound, for independent values of at least `lowest`; small when the mean is larger.

    p is the chance that a random mean of the n values and `lowest` is at most the bound, with weights uniform over the
    simplex (Dirichlet with all parameters 1). Equal values above the bound give (1 − share)ⁿ, the chance that n items
    show none of the total failures that would bring the mean down to the bound. Computed from the sorted values: any
    order of them gives the same bits.
    Raises ValueError on n < 2, non-finite values, or a value below `lowest`.
    """
    sample = require_sample(values)
    if sample.min() < lowest - EQUAL * max(1.0, abs(lowest)):
        raise ValueError(f"a value lies below the lowest possible, {lowest}: {sample.min()}")
    distances, counts = np.unique(np.append(sample, lowest) - bound, return_counts=True)
    apart = np.abs(distances) > EQUAL * max(1.0, abs(lowest - bound))
    distances, counts = distances[apart], counts[apart]
    if not len(distances) or distances[-1] < 0:
        return 1.0
    if distances[0] > 0:
        return 0.0
    shares = counts.astype(np.float64)
    if len(distances) > MOST_DISTINCT:
        distances, shares = _on_grid(distances, shares)
    if distances @ shares >= 0:
        return min(1.0, _tail(distances, shares))
    return max(0.0, 1 - _tail(-distances[::-1], shares[::-1]))


def _on_grid(distances: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The points of an even grid and how many values each counts: a value counts for its two neighbours by nearness."""
    grid, step = np.linspace(distances[0], distances[-1], MOST_DISTINCT, retstep=True)
    place = np.clip((distances - grid[0]) // step, 0, MOST_DISTINCT - 2).astype(np.int64)
    above = np.clip((distances - grid[place]) / step, 0, 1)
    shares = np.bincount(place, weights=counts * (1 - above), minlength=MOST_DISTINCT)
    shares += np.bincount(place + 1, weights=counts * above, minlength=MOST_DISTINCT)
    held = (shares > 0) & (grid != 0)
    return grid[held], shares[held]


def _tail(distances: FloatArray, counts: FloatArray) -> float:
    """P(Σ distance·E ≤ 0), E independent and gamma-distributed of shape `count`, where the sum's mean is at least 0.

    The inversion of the cumulant function K on a vertical line left of 0, by the trapezoid rule, whose error falls
    exponentially as its step shrinks (Trefethen & Weideman 2014).
    """
    saddle = _saddle(distances, counts)
    left, right = 1 / float(distances[0]), 1 / float(distances[-1])
    spread = math.sqrt(float(distances**2 @ counts))
    line = min(saddle, max(-0.5 / spread, 0.5 * left))
    step = 2 * math.pi * min(-line, line - left, right - line) / 24
    height = _cumulant(np.array([complex(line)]), distances, counts)[0].real
    total, start = 0.5 / line, 1
    size = 64
    while True:
        points = line + 1j * step * np.arange(start, start + size)
        terms = np.exp(_cumulant(points, distances, counts) - height) / points
        total += float(terms.real.sum())
        start += size
        size = max(64, min(start, BLOCK // len(distances)))
        if abs(terms[-1]) * start < NEGLIGIBLE * abs(total):
            return -math.exp(height) * total * step / math.pi


def _cumulant(points: Any, distances: FloatArray, counts: FloatArray) -> Any:
    """K = −Σ count·log(1 − distance·s) at complex points s, shape (points,)."""
    return -(np.log(1 - points[:, None] * distances) @ counts)


def _saddle(distances: FloatArray, counts: FloatArray) -> float:
    """Where K is smallest, between its poles; at most 0."""
    left = 1 / float(distances[0])

    def slope(point: float) -> float:
        return float((distances / (1 - distances * point)) @ counts)

    return float(brentq(slope, left * (1 - 1e-12), 0.0, xtol=1e-300, rtol=1e-12)) if slope(0.0) > 0 else 0.0
