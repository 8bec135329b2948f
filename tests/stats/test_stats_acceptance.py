"""The acceptance targets of the gate's statistics, by seeded Monte Carlo with 5,000 replicates."""

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from harness.stats.continuous import interval_continuous, noninferiority_p_continuous
from harness.stats.multiple import holm
from harness.stats.paired import mcnemar_midp_harm, noninferiority_p, tango_interval
from harness.stats.power import n_for_noninferiority

REPLICATES = 5000
Flips = npt.NDArray[np.int64]


def draw(n: int, discordance: float, delta: float, seed: int, replicates: int = REPLICATES) -> Flips:
    """Flips (b, c) of each replicate, shape (replicates, 2)."""
    lost, gained = (discordance - delta) / 2, (discordance + delta) / 2
    generator = np.random.default_rng(seed)
    return generator.multinomial(n, [lost, gained, 1 - discordance], size=replicates)[:, :2]


def share(flips: Flips, holds: Callable[[int, int], bool]) -> float:
    """Share of replicates for which it holds, asked once for each distinct (b, c)."""
    distinct, counts = np.unique(flips, axis=0, return_counts=True)
    held = np.array([holds(int(b), int(c)) for b, c in distinct])
    return float(counts[held].sum() / counts.sum())


def passes(flips: Flips, n: int, margin: float) -> float:
    return share(flips, lambda b, c: noninferiority_p(b, c, n, margin) <= 0.05)


@pytest.mark.parametrize(("n", "discordance"), [(164, 0.2), (1000, 0.1), (2141, 0.1)])
def test_equal_models_rarely_fail(n: int, discordance: float) -> None:
    assert share(draw(n, discordance, 0.0, seed=1), lambda b, c: mcnemar_midp_harm(b, c) <= 0.05) <= 0.055


def test_equal_models_rarely_fail_over_ten_guards() -> None:
    flips = draw(500, 0.15, 0.0, seed=2, replicates=10 * REPLICATES)
    harm_p = functools.cache(mcnemar_midp_harm)
    p = [harm_p(b, c) for b, c in flips.tolist()]
    failed = [min(holm(row)) <= 0.05 for row in np.reshape(p, (REPLICATES, 10)).tolist()]
    assert np.mean(failed) <= 0.055


@pytest.mark.parametrize(("n", "discordance", "margin"), [(164, 0.08, 0.05), (1000, 0.1, 0.03), (2141, 0.1, 0.02)])
def test_a_drop_of_the_margin_rarely_passes(n: int, discordance: float, margin: float) -> None:
    assert passes(draw(n, discordance, -margin, seed=3), n, margin) <= 0.055


@pytest.mark.parametrize(("margin", "discordance"), [(0.02, 0.1), (0.05, 0.1)])
def test_planned_size_decides(margin: float, discordance: float) -> None:
    planned = n_for_noninferiority(margin, discordance, alpha=0.05, power=0.9)
    n = round(1.1 * planned)
    assert passes(draw(n, discordance, 0.0, seed=4), n, margin) >= 0.9
    assert passes(draw(planned, discordance, -1.5 * margin, seed=5), planned, margin) <= 0.005


@pytest.mark.parametrize(("n", "discordance", "delta"), [(200, 0.2, -0.05), (500, 0.1, 0.0)])
def test_interval_covers_the_truth(n: int, discordance: float, delta: float) -> None:
    def covers(b: int, c: int) -> bool:
        low, high = tango_interval(b, c, n)
        return low <= delta <= high

    assert 0.94 <= share(draw(n, discordance, delta, seed=6), covers) <= 0.96


def test_continuous_interval_covers_the_truth() -> None:
    samples = np.random.default_rng(7).normal(-0.01, 0.2, size=(REPLICATES, 250))
    bounds = np.array([interval_continuous(d, 0.95, seed=0) for d in samples])
    assert 0.94 <= np.mean((bounds[:, 0] <= -0.01) & (bounds[:, 1] >= -0.01)) <= 0.96


@pytest.mark.parametrize("n", [50, 100])
def test_rare_large_drops_do_not_pass(n: int) -> None:
    """One item in twenty loses 0.4: Δ = −0.02, which a sign-flip test alone would pass in over 10% of samples."""
    dropped = np.random.default_rng(8).random((300, n)) < 0.05
    passed = [noninferiority_p_continuous(-0.4 * row, 0.02, seed=0) <= 0.05 for row in dropped]
    assert np.mean(passed) <= 0.055
