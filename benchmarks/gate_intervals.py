"""Coverage of published intervals of the mean on few, skewed scores: what the gate's interval is chosen from.

t; Johnson (1978) and Hall (1992), which correct t by the sample's skewness; the studentized bootstrap (Efron 1981);
BCa (Efron 1987); the wider of two. All replicates of a size share their bootstrap samples.
"""

import numpy as np
import numpy.typing as npt
from gate_scores import BATCH, SHAPES, bca_interval
from gate_tables import header, row, within
from scipy.stats import t

Floats = npt.NDArray[np.float64]
Limits = tuple[Floats, Floats]
SIZES = (20, 30, 50)
DRAWS = 999
METHODS = ("t", "Johnson", "Hall", "studentized", "BCa", "t or Hall", "t or studentized")


def intervals(replicates: int, only: str) -> None:
    print(f"Coverage of 95% intervals of few scores, {replicates:,} replicates (target 94–96%)\n")
    header("differences", "n", *METHODS)
    for name, shape in ((name, shape) for name, shape in SHAPES.items() if only in name):
        for n in SIZES:
            generator, picked = np.random.default_rng(n), _resampled(n)
            held = np.zeros(len(METHODS))
            for start in range(0, replicates, BATCH):
                found = _limits(shape(generator, (min(BATCH, replicates - start), n)), picked)
                held += [float(np.sum((low <= 0) & (high >= 0))) for low, high in found]
            row(name, n, *(within(share, 0.94, 0.96) for share in held / replicates))
    print()


def _resampled(n: int) -> Floats:
    """How often each value is in each bootstrap sample, over n: shape (n, draws)."""
    picked = np.random.default_rng(9).integers(0, n, size=(DRAWS, n))
    counts = np.zeros((DRAWS, n))
    np.add.at(counts, (np.arange(DRAWS)[:, None], picked), 1.0)
    return counts.T / n


def _limits(d: Floats, picked: Floats) -> list[Limits]:
    """The limits of each method for each row of d, in the order of METHODS."""
    n = d.shape[1]
    mean, error = d.mean(axis=1), d.std(axis=1, ddof=1) / np.sqrt(n)
    centred = d - mean[:, None]
    skewness = (centred**3).mean(axis=1) / (centred**2).mean(axis=1) ** 1.5
    reach = float(t.isf(0.025, n - 1))
    student = mean - reach * error, mean + reach * error
    shift = skewness * error / (6 * np.sqrt(n))
    hall = mean - error * _hall(reach, skewness, n), mean - error * _hall(-reach, skewness, n)
    studentized = _studentized(d, picked, mean, error)
    return [
        student, (student[0] + shift, student[1] + shift), hall, studentized, bca_interval(d),
        _wider(student, hall), _wider(student, studentized),
    ]  # fmt: skip


def _hall(quantile: float, skewness: Floats, n: int) -> Floats:
    """The inverse of Hall's cubic transformation of t, at a quantile of Student's."""
    a = np.where(np.abs(skewness) < 1e-6, 1e-6, skewness) / np.sqrt(n)
    return np.asarray(3 / a * (np.cbrt(1 + a * (quantile - a / 6)) - 1))


def _studentized(d: Floats, picked: Floats, mean: Floats, error: Floats) -> Limits:
    n = d.shape[1]
    means = d @ picked
    errors = np.sqrt(np.maximum((d**2) @ picked - means**2, 1e-18) / (n - 1))
    low, high = np.quantile((means - mean[:, None]) / errors, [0.025, 0.975], axis=1)
    return mean - high * error, mean - low * error


def _wider(one: Limits, other: Limits) -> Limits:
    return np.minimum(one[0], other[0]), np.maximum(one[1], other[1])
