"""Scores that are not right/wrong: error rates and coverage for differences of several shapes.

`continuous` holds the gate's tests to their targets. All replicates are decided at once: signs and bootstrap samples
are seeded, so those of one size are the same for all, and a matrix product flips or resamples them. The first
replicates are asked of `harness.stats.continuous` too, and must agree.

`intervals` compares the published intervals that the gate's was chosen from, on few scores: t; Johnson (1978) and Hall
(1992), which correct t by the sample's skewness; the studentized bootstrap (Efron 1981); BCa (Efron 1987); the wider of
two.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
from common import at_most, header, row, within
from scipy.stats import norm, t

from harness.stats.continuous import (
    FEW_FOR_BOOTSTRAP,
    FEW_ITEMS,
    SKEWED,
    harm_p_continuous,
    interval_continuous,
    noninferiority_p_continuous,
)

Floats = npt.NDArray[np.float64]
Limits = tuple[Floats, Floats]
MARGIN = 0.05
SIZES = (30, 100, 250)
FEW_SIZES = (20, 30, 50)
FLIPS, RESAMPLES, BATCH, CHECKED = 10_000, 2000, 1000, 20
STUDENTIZED_DRAWS, STUDENTIZED_SEED = 999, 9
METHODS = ("t", "Johnson", "Hall", "studentized", "BCa", "t or Hall", "t or studentized")


def _rare(generator: np.random.Generator, shape: tuple[int, int], size: float) -> Floats:
    """One item in twenty moves by `size` − what balances it; mean 0."""
    return np.where(generator.random(shape) < 0.05, 0.95 * size, -0.05 * size) + generator.normal(0, 0.005, shape)


SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "normal, spread 0.2": lambda generator, shape: generator.normal(0, 0.2, shape),
    "rare gains of 0.4": lambda generator, shape: _rare(generator, shape, 0.4),
    "rare drops of 0.4": lambda generator, shape: _rare(generator, shape, -0.4),
    "exponential gains": lambda generator, shape: generator.exponential(0.1, shape) - 0.1,
    "exponential drops": lambda generator, shape: 0.1 - generator.exponential(0.1, shape),
    "one in five drops, else equal": lambda generator, shape: (
        np.where(generator.random(shape) < 0.2, -generator.beta(1, 4, shape), 0) + 0.04
    ),
}


def continuous(replicates: int, only: str) -> None:
    print(f"Scores that are not right/wrong, {replicates:,} replicates, δ = {MARGIN}\n")
    header("differences", "n", "PASS at −δ (≤ 5.5%)", "FAIL at 0 (≤ 5.5%)", "PASS at 0", "covered (94–96%)")
    for name, shape in ((name, shape) for name, shape in SHAPES.items() if only in name):
        for n in SIZES:
            generator = np.random.default_rng(n)
            drawn = [
                _decided(shape(generator, (min(BATCH, replicates - start), n)), start == 0)
                for start in range(0, replicates, BATCH)
            ]
            worse, harmed, equal, held = (float(np.mean(part)) for part in np.hstack(drawn))
            row(name, n, at_most(worse, 0.055), at_most(harmed, 0.055), f"{equal:.1%}", within(held, 0.94, 0.96))
    print()


def _decided(d: Floats, check: bool) -> npt.NDArray[np.bool_]:
    """PASS at −δ, FAIL at 0, PASS at 0, and 0 within the interval of each row of d: shape (4, rows)."""
    p = [_noninferiority(d - MARGIN), _harm(d), _noninferiority(d)]
    low, high = _gate_interval(d)
    if check:
        few = d[:CHECKED]
        own = [
            [noninferiority_p_continuous(one - MARGIN, MARGIN, 0) for one in few],
            [harm_p_continuous(one, 0) for one in few],
            [noninferiority_p_continuous(one, MARGIN, 0) for one in few],
        ]
        bounds = np.array([interval_continuous(one, 0.95, 0) for one in few])
        found = np.column_stack([low, high])[:CHECKED]
        if not np.allclose(own, [part[:CHECKED] for part in p], atol=2e-4) or not np.allclose(bounds, found, atol=1e-6):
            raise SystemExit("the vectorised tests differ from harness.stats.continuous")
    return np.stack([*(part <= 0.05 for part in p), (low <= 0) & (high >= 0)])


def _noninferiority(d: Floats) -> Floats:
    skewed, p = _skewed(d), _unseen(d, MARGIN)
    if d.shape[1] < FEW_ITEMS:
        p = np.maximum(p, _sign_flip(d + MARGIN))
    else:
        p[~skewed] = np.maximum(p, _student_p(d))[~skewed]
    p[skewed] = np.maximum(p[skewed], _bca_p(d[skewed], -MARGIN))
    return p


def _harm(d: Floats) -> Floats:
    gains = -d
    skewed, p = _skewed(gains), np.maximum(_unseen(gains, 0.0), _sign_flip(gains))
    p[skewed] = np.maximum(p[skewed], _bca_p(gains[skewed], 0.0))
    return p


def _gate_interval(d: Floats) -> Limits:
    n = d.shape[1]
    low, high = _student(d)
    if n < FEW_FOR_BOOTSTRAP:
        return _wider((low, high), _hall(d))
    resampled = _skewed(d) | (n < FEW_ITEMS)
    if resampled.any():
        low[resampled], high[resampled] = _bca(d[resampled])
    return low, high


def _student_p(d: Floats) -> Floats:
    n = d.shape[1]
    return np.asarray(t.sf((d.mean(axis=1) + MARGIN) / (d.std(axis=1, ddof=1) / np.sqrt(n)), n - 1))


def _unseen(d: Floats, margin: float) -> Floats:
    mean = d.mean(axis=1)
    share = (mean + margin) / (np.maximum(1.0, np.abs(d).max(axis=1)) + np.abs(mean))
    return np.asarray(np.where(share < 1, (1 - np.clip(share, 0, 1)) ** d.shape[1], 0.0))


def _skewed(d: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(_skewness(d)) > SKEWED * np.sqrt(d.shape[1]))


def _skewness(d: Floats) -> Floats:
    centred = d - d.mean(axis=1, keepdims=True)
    return np.asarray((centred**3).mean(axis=1) / (centred**2).mean(axis=1) ** 1.5)


@cache
def _signs(n: int) -> Floats:
    """Which values keep their sign in each draw, as `sign_flip_p` draws them: shape (n, draws)."""
    octets = np.random.default_rng(0).integers(0, 256, size=(FLIPS, -(-n // 8)), dtype=np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little")[:, :n].T.astype(np.float64)


def _sign_flip(values: Floats) -> Floats:
    threshold = values.sum(axis=1) - 1e-12 * np.abs(values).sum(axis=1)
    hits = np.count_nonzero(values @ _signs(values.shape[1]) >= threshold[:, None], axis=1)
    return np.asarray((1 + hits) / (1 + FLIPS))


@cache
def _weights(n: int, draws: int, seed: int) -> Floats:
    """How often each value is in each bootstrap sample, over n: shape (n, draws)."""
    picked = np.random.default_rng(seed).integers(0, n, size=(draws, n))
    counts = np.zeros((draws, n))
    np.add.at(counts, (np.arange(draws)[:, None], picked), 1.0)
    return counts.T / n


def _bootstrap(d: Floats) -> tuple[Floats, Floats, Floats]:
    """Bootstrap means, bias and acceleration, of each row."""
    means, centred = d @ _weights(d.shape[1], RESAMPLES, 0), d - d.mean(axis=1, keepdims=True)
    acceleration = (centred**3).sum(axis=1) / (6 * (centred**2).sum(axis=1) ** 1.5)
    return means, _quantile(means, d.mean(axis=1)), acceleration


def _quantile(means: Floats, bound: Floats) -> Floats:
    """The normal quantile of the share of means below the bound."""
    bound = bound[:, None]
    below = np.mean(means < bound - 1e-15, axis=1) + np.mean(np.abs(means - bound) <= 1e-15, axis=1) / 2
    return np.asarray(norm.ppf(np.clip(below, 0.5 / RESAMPLES, 1 - 0.5 / RESAMPLES)))


def _bca_p(d: Floats, bound: float) -> Floats:
    n = d.shape[1]
    means, bias, acceleration = _bootstrap(d)
    moved = _quantile(means, np.full(len(d), bound)) - bias
    scale = 1 + acceleration * moved
    z = moved / np.where(scale > 0, scale, 1) - bias
    return np.where(scale > 0, t.cdf(z / np.sqrt(n / (n - 1)), n - 1), np.where(moved < 0, 0.0, 1.0))


def _bca(d: Floats) -> Limits:
    n = d.shape[1]
    means, bias, acceleration = _bootstrap(d)
    ordered, bounds = np.sort(means, axis=1), []
    for z in np.array([-1, 1]) * np.sqrt(n / (n - 1)) * t.isf(0.025, n - 1):
        moved = bias + z
        scale = 1 - acceleration * moved
        share = np.where(scale > 0, norm.cdf(bias + moved / np.where(scale > 0, scale, 1)), moved > 0)
        place = share * (RESAMPLES - 1)
        first = np.minimum(place.astype(int), RESAMPLES - 2)
        pair = np.take_along_axis(ordered, np.column_stack([first, first + 1]), axis=1)
        bounds.append(pair[:, 0] + (place - first) * (pair[:, 1] - pair[:, 0]))
    return bounds[0], bounds[1]


def intervals(replicates: int, only: str) -> None:
    print(f"Coverage of 95% intervals of few scores, {replicates:,} replicates (target 94–96%)\n")
    header("differences", "n", *METHODS)
    for name, shape in ((name, shape) for name, shape in SHAPES.items() if only in name):
        for n in FEW_SIZES:
            generator, held = np.random.default_rng(n), np.zeros(len(METHODS))
            for start in range(0, replicates, BATCH):
                found = _limits(shape(generator, (min(BATCH, replicates - start), n)))
                held += [float(np.sum((low <= 0) & (high >= 0))) for low, high in found]
            row(name, n, *(within(share, 0.94, 0.96) for share in held / replicates))
    print()


def _limits(d: Floats) -> list[Limits]:
    """The limits of each method for each row of d, in the order of METHODS."""
    n = d.shape[1]
    student, hall, studentized = _student(d), _hall(d), _studentized(d)
    shift = _skewness(d) * d.std(axis=1, ddof=1) / (6 * n)
    johnson = student[0] + shift, student[1] + shift
    return [student, johnson, hall, studentized, _bca(d), _wider(student, hall), _wider(student, studentized)]


def _student(d: Floats) -> Limits:
    n = d.shape[1]
    reach = t.isf(0.025, n - 1) * d.std(axis=1, ddof=1) / np.sqrt(n)
    return d.mean(axis=1) - reach, d.mean(axis=1) + reach


def _hall(d: Floats) -> Limits:
    """Student's quantiles through the inverse of Hall's cubic transformation of t."""
    n, skewness = d.shape[1], _skewness(d)
    lean = np.where(np.abs(skewness) < 1e-6, 1e-6, skewness) / np.sqrt(n)
    quantiles = t.isf(0.025, n - 1) * np.array([[1], [-1]])
    moved = 3 / lean * (np.cbrt(1 + lean * (quantiles - lean / 6)) - 1)
    low, high = d.mean(axis=1) - d.std(axis=1, ddof=1) / np.sqrt(n) * moved
    return low, high


def _studentized(d: Floats) -> Limits:
    n, mean = d.shape[1], d.mean(axis=1)
    picked = _weights(n, STUDENTIZED_DRAWS, STUDENTIZED_SEED)
    means = d @ picked
    errors = np.sqrt(np.maximum((d**2) @ picked - means**2, 1e-18) / (n - 1))
    low, high = np.quantile((means - mean[:, None]) / errors, [0.025, 0.975], axis=1)
    error = d.std(axis=1, ddof=1) / np.sqrt(n)
    return mean - high * error, mean - low * error


def _wider(one: Limits, other: Limits) -> Limits:
    return np.minimum(one[0], other[0]), np.maximum(one[1], other[1])
