"""Paired continuous scores: differences d = candidate − baseline on the same items, larger is better.

Scores are taken to lie in [0, 1], so an item can lose at most 1 (or the largest |d| seen, where that is more).
This bounds what a sample may hide: with few items or little spread, rare large drops go unseen, and neither
sign-flip nor t knows about them.
"""

import itertools
import math

import numpy as np
from scipy.stats import norm, t

from harness.stats.checks import FloatArray, require_open_unit, require_sample

FEW_ITEMS = 200
FEW_FOR_BOOTSTRAP = 50
ENUMERATED = 12
BLOCK = 2_000_000


def noninferiority_p_continuous(d: FloatArray, margin: float, seed: int) -> float:
    """One-sided p of H0: mean ≤ −margin: sign-flip on d + margin under 200 items, else t.

    d has shape (n,), n ≥ 2. Never below the chance that n items show none of the total failures that would
    pull the mean down to −margin; this alone is p when all differences are equal, and for d = 0 it is
    (1 − margin)^n, as for right/wrong answers without discordant pairs.
    Raises ValueError on n < 2, non-finite differences, or a margin outside (0, 1).
    """
    sample = require_sample(d)
    require_open_unit("margin", margin)
    unseen = _unseen_drop_p(sample, margin)
    if _without_spread(sample):
        return unseen
    few = len(sample) < FEW_ITEMS
    return max(unseen, sign_flip_p(sample, margin, seed) if few else t_noninferiority_p(sample, margin))


def harm_p_continuous(d: FloatArray, seed: int) -> float:
    """One-sided sign-flip p of H0: mean ≥ 0, small when the candidate is worse; 1 when all differences are 0.

    Relies on symmetry under H0: when rare large gains balance many small losses, p is too small (in a simulation
    of 5% gains of 0.38 against 95% losses of 0.02, p ≤ 0.05 in 12% of samples of 100 items, 7% of 200).
    Raises ValueError on n < 2 or non-finite differences.
    """
    return sign_flip_p(-require_sample(d), 0.0, seed)


def interval_continuous(d: FloatArray, level: float, seed: int) -> tuple[float, float]:
    """Two-sided interval for the mean: BCa bootstrap for 50 to 199 items, else t.

    BCa limits of fewer items cover too rarely. With equal differences there is no standard error: the interval
    is the mean ± the share of items that could differ unseen, times the most that they could differ.
    Raises ValueError on n < 2, non-finite differences, or a level outside (0, 1).
    """
    sample = require_sample(d)
    require_open_unit("level", level)
    if _without_spread(sample):
        return _unseen_interval(sample, level)
    if FEW_FOR_BOOTSTRAP <= len(sample) < FEW_ITEMS:
        return bca_interval(sample, level, seed)
    return t_interval(sample, level)


def t_noninferiority_p(d: FloatArray, margin: float) -> float:
    """One-sided p of H0: mean ≤ −margin by Student's t with n − 1 degrees of freedom.

    Raises ValueError on n < 2 or equal differences.
    """
    sample = _require_spread(d)
    require_open_unit("margin", margin)
    return float(t.sf((sample.mean() + margin) / _standard_error(sample), len(sample) - 1))


def t_interval(d: FloatArray, level: float) -> tuple[float, float]:
    """Student's interval for the mean. Raises ValueError on n < 2 or equal differences."""
    sample = _require_spread(d)
    require_open_unit("level", level)
    reach = float(t.isf((1 - level) / 2, len(sample) - 1)) * _standard_error(sample)
    return float(sample.mean()) - reach, float(sample.mean()) + reach


def sign_flip_p(d: FloatArray, shift: float, seed: int, draws: int = 10_000) -> float:
    """One-sided p of H0: d + shift is symmetric about 0, small when its mean is large (Fisher 1935).

    Exact when at most 12 values differ from 0; else (1 + hits)/(1 + draws), never 0 (Phipson & Smyth 2010).
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
    return (1 + _hits(values, threshold, seed, draws)) / (1 + draws)


def bca_interval(d: FloatArray, level: float, seed: int, draws: int = 2000) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval for the mean (Efron 1987).

    Quantiles are widened for small n by √(n/(n−1))·t instead of z (Hesterberg 2015).
    Raises ValueError on n < 2 or equal differences.
    """
    sample = _require_spread(d)
    require_open_unit("level", level)
    means = _bootstrap_means(sample, seed, draws)
    centred = sample - sample.mean()
    acceleration = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))
    below = float(np.mean(means < sample.mean()) + np.mean(means == sample.mean()) / 2)
    bias = float(norm.ppf(min(max(below, 0.5 / draws), 1 - 0.5 / draws)))
    n = len(sample)
    reach = math.sqrt(n / (n - 1)) * float(t.isf((1 - level) / 2, n - 1))
    shares = [_bca_share(bias, acceleration, z) for z in (-reach, reach)]
    low, high = np.quantile(means, shares)
    return float(low), float(high)


def _bca_share(bias: float, acceleration: float, z: float) -> float:
    """The share of bootstrap means below the limit that belongs to the normal quantile z."""
    moved = bias + z
    scale = 1 - acceleration * moved
    # Past its pole the correction turns round; the limit is then the extreme of the bootstrap means.
    if scale <= 0:
        return 1.0 if moved > 0 else 0.0
    return float(norm.cdf(bias + moved / scale))


def _bootstrap_means(sample: FloatArray, seed: int, draws: int) -> FloatArray:
    generator = np.random.default_rng(seed)
    blocks = []
    for size in _blocks(draws, len(sample)):
        picked = generator.integers(0, len(sample), size=(size, len(sample)))
        blocks.append(sample[picked].mean(axis=1))
    return np.concatenate(blocks)


def _hits(values: FloatArray, threshold: float, seed: int, draws: int) -> int:
    generator = np.random.default_rng(seed)
    hits = 0
    for size in _blocks(draws, len(values)):
        kept = generator.integers(0, 2, size=(size, len(values)), dtype=np.int8)
        hits += int(np.count_nonzero(kept @ values >= threshold))
    return hits


def _blocks(draws: int, n: int) -> list[int]:
    """Sizes that sum to draws, so that no block holds many more than BLOCK numbers."""
    size = max(1, min(draws, BLOCK // n))
    full, rest = divmod(draws, size)
    return [size] * full + [rest] * (rest > 0)


def _standard_error(sample: FloatArray) -> float:
    return float(sample.std(ddof=1)) / math.sqrt(len(sample))


def _without_spread(sample: FloatArray) -> bool:
    return bool(np.ptp(sample) <= 1e-12 * max(1.0, float(np.abs(sample).max())))


def _require_spread(d: FloatArray) -> FloatArray:
    sample = require_sample(d)
    if _without_spread(sample):
        raise ValueError("all differences are equal: the sample has no standard error")
    return sample


def _farthest(sample: FloatArray) -> float:
    """How far an unseen item could lie from the mean."""
    return max(1.0, float(np.abs(sample).max())) + abs(float(sample.mean()))


def _unseen_drop_p(sample: FloatArray, margin: float) -> float:
    """Chance of drawing none of the total failures whose share would bring this mean down to −margin."""
    share = (float(sample.mean()) + margin) / _farthest(sample)
    return float((1 - max(share, 0.0)) ** len(sample)) if share < 1 else 0.0


def _unseen_interval(sample: FloatArray, level: float) -> tuple[float, float]:
    """Clopper–Pearson limit of 0 in n for the items that differ, times the most they can move the mean."""
    mean = float(sample.mean())
    reach = (1 - ((1 - level) / 2) ** (1 / len(sample))) * _farthest(sample)
    return mean - reach, mean + reach
