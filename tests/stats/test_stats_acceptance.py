"""The acceptance targets of the gate's statistics, by seeded Monte Carlo with 5,000 replicates."""

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from harness.stats.bounded import bounded_mean_p
from harness.stats.clustered import clustered_interval, clustered_mean_p
from harness.stats.continuous import interval_continuous, t_interval
from harness.stats.paired import mcnemar_midp_harm, noninferiority_p, tango_interval
from harness.stats.power import n_for_noninferiority
from harness.stats.proportion import holm
from harness.stats.sequential import paired_at_look, plan_looks

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


@pytest.mark.parametrize("turn", [-1.0, 1.0])
def test_the_interval_of_30_skewed_scores_covers_the_truth(turn: float) -> None:
    """Exponential differences: t alone covers under 94%, the wider of t and Hall's a little over 96%."""
    samples = turn * (np.random.default_rng(9).exponential(0.1, size=(REPLICATES, 30)) - 0.1)
    found = [(interval_continuous(d, 0.95, seed=0), t_interval(d, 0.95)) for d in samples]
    covered = np.mean([[low <= 0 <= high for low, high in pair] for pair in found], axis=0)
    assert covered[1] < 0.94 < 0.95 < covered[0] < 0.968


@pytest.mark.parametrize("n", [50, 100])
def test_rare_large_drops_do_not_pass(n: int) -> None:
    """One item in twenty loses 0.4: Δ = −0.02, which a sign-flip test alone would pass in over 10% of samples."""
    dropped = np.random.default_rng(8).random((300, n)) < 0.05
    passed = [bounded_mean_p(-0.4 * row, -0.02, -1.0) <= 0.05 for row in dropped]
    assert np.mean(passed) <= 0.055


@pytest.mark.parametrize("n", [30, 100])
def test_equal_models_rarely_fail_when_rare_gains_balance_many_small_losses(n: int) -> None:
    gained = np.random.default_rng(9).random((300, n)) < 0.05
    failed = [bounded_mean_p(-np.where(row, 0.38, -0.02), 0.0, -1.0) <= 0.05 for row in gained]
    assert np.mean(failed) <= 0.055


def test_the_usual_rule_misses_half_of_true_drops_and_blocks_equal_models() -> None:
    """What the gate replaces: block if the observed drop exceeds the margin."""
    worse, equal = draw(2142, 0.1, -0.02, seed=10), draw(164, 0.1, 0.0, seed=11)
    assert share(worse, lambda b, c: (b - c) / 2142 <= 0.02) == pytest.approx(0.49, abs=0.03)
    assert share(equal, lambda b, c: (b - c) / 164 > 0.02) == pytest.approx(0.21, abs=0.02)


def clustered(groups: int, size: int, delta: float, correlation: float, replicates: int) -> npt.NDArray[np.float64]:
    """Flips whose chances vary between clusters (Dirichlet); items of a cluster side by side."""
    generator = np.random.default_rng(12)
    rates = np.array([(0.1 - delta) / 2, (0.1 + delta) / 2, 0.9])
    own = generator.dirichlet(rates * (1 / correlation - 1), size=(replicates, groups))
    luck = generator.random((replicates, groups, size))
    lost, moved = own[..., :1], own[..., :1] + own[..., 1:2]
    return np.where(luck < lost, -1.0, np.where(luck < moved, 1.0, 0.0)).reshape(replicates, -1)


@pytest.mark.parametrize(("groups", "size", "delta"), [(20, 20, 0.0), (50, 10, -0.05)])
def test_clustered_interval_covers_the_truth(groups: int, size: int, delta: float) -> None:
    clusters = np.repeat(np.arange(groups), size)
    drawn = clustered(groups, size, delta, 0.1, REPLICATES)
    bounds = np.array([clustered_interval(d, clusters, 0.95, seed=0) for d in drawn])
    assert 0.935 <= np.mean((bounds[:, 0] <= delta) & (bounds[:, 1] >= delta)) <= 0.965


@pytest.mark.parametrize(("groups", "size"), [(10, 30), (100, 10)])
def test_clusters_do_not_pass_or_fail_too_often(groups: int, size: int) -> None:
    """600 replicates, so that chance alone adds a point."""
    clusters = np.repeat(np.arange(groups), size)
    worse, equal = (clustered(groups, size, delta, 0.1, 600) for delta in (-0.05, 0.0))
    assert np.mean([clustered_mean_p(d, clusters, -0.05) <= 0.05 for d in worse]) <= 0.065
    assert np.mean([clustered_mean_p(-d, clusters, 0.0) <= 0.05 for d in equal]) <= 0.065


def looked_at(n: int, discordance: float, delta: float, margin: float) -> tuple[dict[str, float], float]:
    """Share of each verdict over 5 looks, and of items saved."""
    plan, generator = plan_looks(n, 5, 0.05, 0.05), np.random.default_rng(13)
    rates = [(discordance - delta) / 2, (discordance + delta) / 2, 1 - discordance]
    flips, before, evaluated = np.zeros((REPLICATES, 2), dtype=np.int64), 0, 0.0
    shares = {"PASS": 0.0, "FAIL": 0.0, "INCONCLUSIVE": 0.0}
    for look, count in enumerate(plan.counts):
        flips = flips + generator.multinomial(count - before, rates, size=len(flips))[:, :2]
        before = count
        tables, index = np.unique(flips, axis=0, return_inverse=True)
        found = np.array([paired_at_look(plan, look, b, c, margin) or "" for b, c in tables.tolist()])[index.ravel()]
        for name in shares:
            shares[name] += float(np.sum(found == name)) / REPLICATES
        evaluated += count * float(np.sum(found != "")) / REPLICATES
        flips = flips[found == ""]
    return shares, 1 - evaluated / n


def test_looks_keep_the_error_rates_and_save_items() -> None:
    equal, saved = looked_at(377, 0.1, 0.0, 0.05)
    worse, saved_worse = looked_at(377, 0.1, -0.05, 0.05)
    assert equal["FAIL"] <= 0.055
    assert worse["PASS"] <= 0.055
    assert equal["PASS"] >= 0.89
    assert min(saved, saved_worse) >= 0.2
    assert looked_at(200, 0.06, -0.05, 0.05)[0]["PASS"] <= 0.055


def looked_at_against_two(n: int, discordance: float, deltas: tuple[float, float], margin: float) -> dict[str, float]:
    """Share of each verdict over 5 looks against two baselines, which share the level of harm; it ends when it is
    decided against both."""
    plan, generator = plan_looks(n, 5, 0.05, 0.05 / 2), np.random.default_rng(17)
    flips, before = np.zeros((REPLICATES, 2, 2), dtype=np.int64), 0
    shares = {"PASS": 0.0, "FAIL": 0.0, "INCONCLUSIVE": 0.0}
    for look, count in enumerate(plan.counts):
        for side, delta in enumerate(deltas):
            rates = [(discordance - delta) / 2, (discordance + delta) / 2, 1 - discordance]
            flips[:, side] += generator.multinomial(count - before, rates, size=len(flips))[:, :2]
        before = count
        tables, index = np.unique(flips.reshape(-1, 2), axis=0, return_inverse=True)
        each = np.array([paired_at_look(plan, look, b, c, margin) or "" for b, c in tables.tolist()])[index.ravel()]
        found, done = each.reshape(-1, 2), (each.reshape(-1, 2) != "").all(axis=1)
        failed, passed = (found == "FAIL").any(axis=1), (found == "PASS").all(axis=1)
        for name, which in (("FAIL", failed), ("PASS", passed), ("INCONCLUSIVE", ~failed & ~passed)):
            shares[name] += float(np.sum(which & done)) / REPLICATES
        flips = flips[~done]
    return shares


def test_looks_at_two_baselines_keep_the_error_rates() -> None:
    """Baselines whose flips have nothing in common: for FAIL the worst there can be."""
    equal = looked_at_against_two(377, 0.1, (0.0, 0.0), 0.05)
    assert sum(equal.values()) == pytest.approx(1)
    assert equal["FAIL"] <= 0.055
    assert equal["PASS"] >= 0.8
    assert looked_at_against_two(377, 0.1, (-0.05, 0.05), 0.05)["PASS"] <= 0.055
