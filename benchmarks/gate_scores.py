"""Scores that are not right/wrong: error rates, power and coverage for differences of several shapes.

`continuous` holds the gate's tests to their targets, beside Student's t. All replicates are decided at once: bootstrap
samples are seeded, so those of one size are the same for all, and a matrix product resamples them. The first replicates
are asked of `harness.stats` too, and must agree.

`intervals` compares the published intervals that the gate's was chosen from, on few scores: t; Johnson (1978) and Hall
(1992), which correct t by the sample's skewness; the studentized bootstrap (Efron 1981); BCa (Efron 1987); the wider of
two.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
from common import at_most, header, row, within
from gate_bounded import ALPHA, Floats, rejected
from scipy.stats import norm, t

from harness.stats.bounded import bounded_mean_p
from harness.stats.continuous import FEW_FOR_BOOTSTRAP, FEW_ITEMS, SKEWED, interval_continuous

Limits = tuple[Floats, Floats]
MARGIN = 0.05
SIZES = (30, 50, 100, 250, 500, 1000)
FEW_SIZES = (20, 30, 50)
RESAMPLES, BATCH, CHECKED = 2000, 1000, 20
STUDENTIZED_DRAWS, STUDENTIZED_SEED = 999, 9
METHODS = ("t", "Johnson", "Hall", "studentized", "BCa", "t or Hall", "t or studentized")


def _rare(generator: np.random.Generator, shape: tuple[int, int], size: float) -> Floats:
    """One item in twenty moves by `size` − what balances it; mean 0."""
    return np.where(generator.random(shape) < 0.05, 0.95 * size, -0.05 * size) + generator.normal(0, 0.005, shape)


SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "normal, spread 0.2": lambda generator, shape: np.clip(generator.normal(0, 0.2, shape), -0.94, 0.94),
    "rare gains of 0.4": lambda generator, shape: _rare(generator, shape, 0.4),
    "rare drops of 0.4": lambda generator, shape: _rare(generator, shape, -0.4),
    "exponential gains": lambda generator, shape: np.minimum(generator.exponential(0.1, shape) - 0.1, 0.95),
    "exponential drops": lambda generator, shape: np.maximum(0.1 - generator.exponential(0.1, shape), -0.94),
    "one in five drops, else equal": lambda generator, shape: (
        np.where(generator.random(shape) < 0.2, -generator.beta(1, 4, shape), 0) + 0.04
    ),
}


def continuous(replicates: int, only: str) -> None:
    print(f"Scores that are not right/wrong, {replicates:,} replicates, δ = {MARGIN}\n")
    header("differences", "n", "PASS at −δ (≤ 5.5%)", "by t", "FAIL at 0 (≤ 5.5%)", "by t", "PASS at 0", "by t",
           "covered (94–96%)")  # fmt: skip
    for name, shape in ((name, shape) for name, shape in SHAPES.items() if only in name):
        for n in SIZES:
            generator = np.random.default_rng(n)
            drawn = [
                _decided(shape(generator, (min(BATCH, replicates - start), n)), start == 0)
                for start in range(0, replicates, BATCH)
            ]
            worse, worse_t, harmed, harmed_t, equal, equal_t, held = (float(np.mean(part)) for part in np.hstack(drawn))
            row(name, n, at_most(worse, 0.055), f"{worse_t:.1%}", at_most(harmed, 0.055), f"{harmed_t:.1%}",
                f"{equal:.1%}", f"{equal_t:.1%}", within(held, 0.94, 0.96))  # fmt: skip
    print()


def _decided(d: Floats, check: bool) -> npt.NDArray[np.bool_]:
    """PASS at −δ, FAIL at 0 and PASS at 0, each also by t, and 0 within the interval of each row: shape (7, rows)."""
    asked = [(d - MARGIN, -MARGIN), (-d, 0.0), (d, -MARGIN)]
    found = [rejected(sample - bound, -1.0 - bound) for sample, bound in asked]
    low, high = _gate_interval(d)
    if check:
        for (sample, bound), own in zip(asked, found, strict=True):
            if [bounded_mean_p(one, bound, -1.0) <= ALPHA for one in sample[:CHECKED]] != own[:CHECKED].tolist():
                raise SystemExit("the vectorised test differs from harness.stats.bounded")
        bounds = np.array([interval_continuous(one, 0.95, 0) for one in d[:CHECKED]])
        if not np.allclose(bounds, np.column_stack([low, high])[:CHECKED], atol=1e-6):
            raise SystemExit("the vectorised interval differs from harness.stats.continuous")
    by_t = [_student_p(sample, bound) <= ALPHA for sample, bound in asked]
    decided = [part for pair in zip(found, by_t, strict=True) for part in pair]
    return np.stack([*decided, (low <= 0) & (high >= 0)])


def _gate_interval(d: Floats) -> Limits:
    n = d.shape[1]
    low, high = _student(d)
    if n < FEW_FOR_BOOTSTRAP:
        return _wider((low, high), _hall(d))
    resampled = _skewed(d) | (n < FEW_ITEMS)
    if resampled.any():
        low[resampled], high[resampled] = _bca(d[resampled])
    return low, high


def _student_p(d: Floats, bound: float) -> Floats:
    n = d.shape[1]
    return np.asarray(t.sf((d.mean(axis=1) - bound) / (d.std(axis=1, ddof=1) / np.sqrt(n)), n - 1))


def _skewed(d: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(_skewness(d)) > SKEWED * np.sqrt(d.shape[1]))


def _skewness(d: Floats) -> Floats:
    centred = d - d.mean(axis=1, keepdims=True)
    return np.asarray((centred**3).mean(axis=1) / (centred**2).mean(axis=1) ** 1.5)


@cache
def _weights(n: int, draws: int, seed: int) -> Floats:
    """How often each value is in each bootstrap sample, over n: shape (n, draws)."""
    picked = np.random.default_rng(seed).integers(0, n, size=(draws, n))
    counts = np.zeros((draws, n))
    np.add.at(counts, (np.arange(draws)[:, None], picked), 1.0)
    return counts.T / n


def _bootstrap(d: Floats) -> tuple[Floats, Floats, Floats]:
    """Bootstrap means, bias and acceleration, of each row."""
    d = np.sort(d, axis=1)
    means, centred = d @ _weights(d.shape[1], RESAMPLES, 0), d - d.mean(axis=1, keepdims=True)
    acceleration = (centred**3).sum(axis=1) / (6 * (centred**2).sum(axis=1) ** 1.5)
    return means, _quantile(means, d.mean(axis=1)), acceleration


def _quantile(means: Floats, bound: Floats) -> Floats:
    """The normal quantile of the share of means below the bound."""
    bound = bound[:, None]
    below = np.mean(means < bound - 1e-12, axis=1) + np.mean(np.abs(means - bound) <= 1e-12, axis=1) / 2
    return np.asarray(norm.ppf(np.clip(below, 0.5 / RESAMPLES, 1 - 0.5 / RESAMPLES)))


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
