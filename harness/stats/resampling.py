"""Resamples differences: sign-flip test and BCa bootstrap of the mean, seeded and repeatable."""

import itertools
import math

import numpy as np
from scipy.stats import norm, t

from harness.stats.checks import FloatArray, require_open_unit, require_sample

ENUMERATED = 12
DRAWN = 2000
BLOCK = 2_000_000


def sign_flip_p(d: FloatArray, shift: float, seed: int, draws: int = 10_000) -> float:
    """One-sided p of H0: d + shift is symmetric about 0, small when its mean is large (Fisher 1935).

    Exact when at most 12 values differ from 0; else (1 + hits)/(1 + draws), never 0 (Phipson & Smyth 2010). With more
    than 2,000 such values the flipped sums are taken as normal with variance Σx² (Lehmann & Romano 2005, section 15.2).
    1 when all values are 0. Raises ValueError on n < 2, non-finite values, or draws < 1.
    """
    shifted = require_sample(d) + shift
    values = shifted[shifted != 0]
    if draws < 1 or not math.isfinite(shift):
        raise ValueError(f"need draws >= 1 and a finite shift, got {draws} and {shift}")
    # Σ sᵢxᵢ ≥ Σ xᵢ exactly when the values that keep their sign sum to at least Σ xᵢ.
    threshold = float(values.sum()) - 1e-12 * float(np.abs(values).sum())
    if len(values) <= ENUMERATED:
        signs = np.array(list(itertools.product((0.0, 1.0), repeat=len(values))))
        return float(np.mean(signs @ values >= threshold))
    if len(values) > DRAWN:
        return float(norm.sf(values.sum() / math.sqrt(float(values @ values))))
    return (1 + _hits(values, threshold, seed, draws)) / (1 + draws)


def bca_interval(d: FloatArray, level: float, seed: int, draws: int = 2000) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval for the mean (Efron 1987).

    Quantiles are widened for small n by √(n/(n−1))·t instead of z (Hesterberg 2015).
    Raises ValueError on n < 2 or equal differences.
    """
    require_open_unit("level", level)
    sample, means, bias, acceleration = _bootstrap(d, seed, draws)
    n = len(sample)
    reach = math.sqrt(n / (n - 1)) * float(t.isf((1 - level) / 2, n - 1))
    shares = [_bca_share(bias, acceleration, z) for z in (-reach, reach)]
    low, high = np.quantile(means, shares)
    return float(low), float(high)


def bca_p(d: FloatArray, bound: float, seed: int, draws: int = 2000) -> float:
    """One-sided p of H0: mean ≤ bound: the level whose lower BCa limit is the bound, widened as in `bca_interval`.

    Raises ValueError on n < 2 or equal differences.
    """
    sample, means, bias, acceleration = _bootstrap(d, seed, draws)
    n = len(sample)
    below = float(np.mean(means < bound) + np.mean(means == bound) / 2)
    moved = _quantile(below, draws) - bias
    scale = 1 + acceleration * moved
    if scale <= 0:
        return 0.0 if moved < 0 else 1.0
    z = moved / scale - bias
    return float(t.cdf(z / math.sqrt(n / (n - 1)), n - 1))


def _bootstrap(d: FloatArray, seed: int, draws: int) -> tuple[FloatArray, FloatArray, float, float]:
    """The sample, its bootstrap means, the bias and the acceleration of the mean."""
    sample = require_sample(d)
    if np.ptp(sample) <= 1e-12 * max(1.0, float(np.abs(sample).max())):
        raise ValueError("all differences are equal: the sample has no standard error")
    generator = np.random.default_rng(seed)
    blocks = []
    for size in _blocks(draws, len(sample)):
        picked = generator.integers(0, len(sample), size=(size, len(sample)))
        blocks.append(sample[picked].mean(axis=1))
    means = np.concatenate(blocks)
    centred = sample - sample.mean()
    acceleration = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))
    below = float(np.mean(means < sample.mean()) + np.mean(means == sample.mean()) / 2)
    return sample, means, _quantile(below, draws), acceleration


def _quantile(share: float, draws: int) -> float:
    return float(norm.ppf(min(max(share, 0.5 / draws), 1 - 0.5 / draws)))


def _bca_share(bias: float, acceleration: float, z: float) -> float:
    """The share of bootstrap means below the limit that belongs to the normal quantile z."""
    moved = bias + z
    scale = 1 - acceleration * moved
    # Past its pole the correction turns round; the limit is then the extreme of the bootstrap means.
    if scale <= 0:
        return 1.0 if moved > 0 else 0.0
    return float(norm.cdf(bias + moved / scale))


def _hits(values: FloatArray, threshold: float, seed: int, draws: int) -> int:
    """Draws whose kept values sum to at least the threshold.

    A random byte keeps or drops eight values at once; a table holds their 256 possible sums.
    """
    generator = np.random.default_rng(seed)
    octets = np.append(values, np.zeros(-len(values) % 8)).reshape(-1, 8)
    kept = (np.arange(256)[:, None] >> np.arange(8)) & 1
    sums = kept @ octets.T
    places = np.arange(len(octets))
    hits = 0
    for size in _blocks(draws, len(octets)):
        drawn = generator.integers(0, 256, size=(size, len(octets)), dtype=np.uint8)
        hits += int(np.count_nonzero(sums[drawn, places].sum(axis=1) >= threshold))
    return hits


def _blocks(draws: int, n: int) -> list[int]:
    """Sizes that sum to draws, so that no block holds many more than BLOCK numbers."""
    size = max(1, min(draws, BLOCK // n))
    full, rest = divmod(draws, size)
    return [size] * full + [rest] * (rest > 0)
