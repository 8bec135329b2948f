"""Scores that are not right/wrong: error rates and coverage for differences of several shapes."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from gate_tables import at_most, header, row, within

from harness.stats.continuous import harm_p_continuous, interval_continuous, noninferiority_p_continuous

Sample = npt.NDArray[np.float64]
MARGIN = 0.05


def _rare(generator: np.random.Generator, n: int, size: float) -> Sample:
    """One item in twenty moves by `size` − what balances it; mean 0."""
    return np.where(generator.random(n) < 0.05, 0.95 * size, -0.05 * size) + generator.normal(0, 0.005, n)


SHAPES: dict[str, Callable[[np.random.Generator, int], Sample]] = {
    "normal, spread 0.2": lambda generator, n: generator.normal(0, 0.2, n),
    "rare gains of 0.4": lambda generator, n: _rare(generator, n, 0.4),
    "rare drops of 0.4": lambda generator, n: _rare(generator, n, -0.4),
    "exponential gains": lambda generator, n: generator.exponential(0.1, n) - 0.1,
    "exponential drops": lambda generator, n: 0.1 - generator.exponential(0.1, n),
    "one in five drops, else equal": lambda generator, n: (
        np.where(generator.random(n) < 0.2, -generator.beta(1, 4, n), 0) + 0.04
    ),
}


def continuous(replicates: int, only: str) -> None:
    print(f"Scores that are not right/wrong, {replicates:,} replicates (resampling is slow), δ = {MARGIN}\n")
    header("differences", "n", "PASS at −δ (≤ 5.5%)", "FAIL at 0 (≤ 5.5%)", "PASS at 0", "covered (94–96%)")
    for name, shape in ((name, shape) for name, shape in SHAPES.items() if only in name):
        for n in (30, 100, 250):
            generator = np.random.default_rng(n)
            drawn = [shape(generator, n) for _ in range(replicates)]
            worse = np.mean([noninferiority_p_continuous(d - MARGIN, MARGIN, 0) <= 0.05 for d in drawn])
            equal = np.mean([noninferiority_p_continuous(d, MARGIN, 0) <= 0.05 for d in drawn])
            harmed = np.mean([harm_p_continuous(d, 0) <= 0.05 for d in drawn])
            bounds = np.array([interval_continuous(d, 0.95, 0) for d in drawn])
            held = float(np.mean((bounds[:, 0] <= 0) & (bounds[:, 1] >= 0)))
            row(name, n, at_most(float(worse), 0.055), at_most(float(harmed), 0.055), f"{equal:.1%}",
                within(held, 0.94, 0.96))  # fmt: skip
    print()
