"""Right/wrong answers that come in clusters: the chances of losing and gaining an item vary between clusters.

All replicates of a design are decided at once, by the tests of `harness.stats.clustered` written for many samples; the
first of them are asked of those functions too, and must agree.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from common import at_most, header, row, within
from scipy.stats import t

from harness.stats.clustered import clustered_harm_p, clustered_interval, clustered_noninferiority_p
from harness.stats.paired import mcnemar_midp_harm, noninferiority_p, tango_statistic

Differences = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float64]
# clusters, items a cluster, discordance, correlation within a cluster, margin
DESIGNS = [
    (8, 25, 0.1, 0.1, 0.05), (15, 30, 0.1, 0.1, 0.05), (20, 20, 0.1, 0.1, 0.05), (30, 10, 0.1, 0.3, 0.05),
    (50, 10, 0.1, 0.1, 0.05), (100, 5, 0.1, 0.0, 0.05), (200, 5, 0.1, 0.2, 0.03),
]  # fmt: skip
BLOCK = 2_000_000
FEW_CLUSTERS = 20
CHECKED = 100


def differences(design: tuple[int, int, float, float, float], delta: float, replicates: int, seed: int) -> Differences:
    """d of each replicate, items of a cluster side by side: shape (replicates, clusters, items)."""
    groups, size, discordance, correlation, _ = design
    generator = np.random.default_rng(seed)
    rates = np.array([(discordance - delta) / 2, (discordance + delta) / 2, 1 - discordance])
    blocks, step = [], max(1, BLOCK // (groups * size))
    for start in range(0, replicates, step):
        shape = (min(step, replicates - start), groups)
        own = np.broadcast_to(rates, (*shape, 3))
        if correlation:
            drawn = generator.gamma(np.broadcast_to(rates * (1 / correlation - 1), (*shape, 3)))
            own = drawn / drawn.sum(axis=2, keepdims=True)
        luck = generator.random((*shape, size), dtype=np.float32)
        lost, moved = own[..., :1], own[..., :1] + own[..., 1:2]
        blocks.append(np.where(luck < lost, -1, np.where(luck < moved, 1, 0)).astype(np.int8))
    return np.concatenate(blocks)


@dataclass(frozen=True)
class Samples:
    """What the tests need of each replicate: clusters of `size` items; all other arrays have shape (replicates,)."""

    sums: Floats  # of each cluster, shape (replicates, clusters)
    size: int
    lost: npt.NDArray[np.int64]
    gained: npt.NDArray[np.int64]

    @classmethod
    def of(cls, drawn: Differences) -> "Samples":
        lost, gained = (np.count_nonzero(drawn == sign, axis=(1, 2)) for sign in (-1, 1))
        return cls(drawn.sum(axis=2, dtype=np.float64), drawn.shape[2], lost, gained)

    @property
    def values(self) -> Floats:
        """Cluster means, shape (replicates, clusters)."""
        return self.sums / self.size

    @property
    def groups(self) -> int:
        return int(self.sums.shape[1])

    @property
    def n(self) -> int:
        return self.groups * self.size

    @property
    def mean(self) -> Floats:
        return np.asarray(self.values.mean(axis=1), dtype=np.float64)

    @property
    def error(self) -> Floats:
        return np.asarray(self.values.std(axis=1, ddof=1) / np.sqrt(self.groups), dtype=np.float64)

    @property
    def design(self) -> Floats:
        independent = ((self.lost + self.gained) / self.n - self.mean**2) / (self.n - 1)
        spread = independent > 1e-15
        return np.where(spread, self.error**2 / np.where(spread, independent, 1), 1.0)

    @property
    def freedom(self) -> Floats:
        """`effective_freedom` of `harness.stats.clustered`."""
        centred = self.values - self.mean[:, None]
        spread = (centred**2).mean(axis=1)
        excess = np.maximum((centred**4).mean(axis=1) / np.where(spread > 1e-24, spread, 1) ** 2 - 3, 0)
        found = 2 / (np.where(spread > 1e-24, excess, 0) / self.groups + 2 / (self.groups - 1))
        return np.asarray(np.minimum(self.groups - 1, found))

    @property
    def turned(self) -> "Samples":
        return Samples(-self.sums, self.size, self.gained, self.lost)

    def by_flips(self, answer: Callable[[int, int], float]) -> Floats:
        """The answer for each replicate, asked once for each distinct pair of flip counts."""
        tables, index = np.unique(self.lost * (self.n + 1) + self.gained, return_inverse=True)
        return np.array([answer(*divmod(int(table), self.n + 1)) for table in tables])[index]


def _above_p(samples: Samples, bound: float) -> Floats:
    """p of H0: mean ≤ bound by clusters alone, never below the chance of unseen total failures."""
    distance, error = samples.mean - bound, samples.error
    spread = error > 1e-12
    if samples.groups >= FEW_CLUSTERS:
        p = np.asarray(t.sf(distance / np.where(spread, error, 1), samples.freedom))
    else:
        sets, counts = _sets(samples.groups), _counted(samples, lambda means: means <= bound + 1e-12)
        p = (1 + counts) / (1 + len(sets))
    p = np.where(spread, p, np.where(distance > 0, 0.0, 1.0))
    flipped = (samples.lost + samples.gained) > 0
    worth = np.where(flipped & (samples.error + np.ptp(samples.values, axis=1) > 0), samples.n, samples.groups)
    worth = worth / np.where(flipped, np.maximum(1.0, samples.design), 1.0)
    share = np.maximum(distance / (1 + np.abs(samples.mean)), 0)
    return np.asarray(np.maximum(p, np.where(share < 1, (1 - np.minimum(share, 1)) ** worth, 0.0)))


def _sets(groups: int) -> npt.NDArray[np.int64]:
    """The sets of clusters whose means stand for sign flips: those of `harness.stats.clustered`."""
    if groups <= 12:
        return np.asarray((np.arange(1, 2**groups)[:, None] >> np.arange(groups)) & 1)
    chosen = np.random.default_rng(0).integers(0, 2, size=(10_000, groups))
    return chosen[chosen.any(axis=1)]


def _counted(samples: Samples, holds: Callable[[Floats], npt.NDArray[np.bool_]]) -> npt.NDArray[np.int64]:
    """How many sets of clusters have a mean of which `holds`, for each replicate."""
    sets = _sets(samples.groups)
    chosen, items = sets.T.astype(np.float64), samples.size * sets.sum(axis=1)
    step = max(1, 4 * BLOCK // len(sets))
    blocks = (samples.sums[start : start + step] @ chosen / items for start in range(0, len(samples.sums), step))
    return np.concatenate([np.count_nonzero(holds(means), axis=1) for means in blocks])


def noninferiority(samples: Samples, margin: float) -> Floats:
    n = samples.n
    statistic = samples.by_flips(lambda lost, gained: tango_statistic(lost, gained, n, -margin))
    adjusted = np.asarray(t.sf(statistic / np.sqrt(np.maximum(1.0, samples.design)), samples.freedom))
    independent = samples.by_flips(lambda lost, gained: noninferiority_p(lost, gained, n, margin))
    return np.asarray(np.maximum(np.maximum(_above_p(samples, -margin), adjusted), independent))


def harm(samples: Samples) -> Floats:
    independent = samples.by_flips(mcnemar_midp_harm)
    p = np.maximum(_above_p(samples.turned, 0.0), independent)
    return np.where(samples.lost + samples.gained > 0, p, 1.0)


def covered(samples: Samples, delta: float) -> npt.NDArray[np.bool_]:
    """Whether the 95% interval holds delta."""
    error = samples.error
    if samples.groups >= FEW_CLUSTERS:
        reach = np.where(error > 1e-12, t.isf(0.025, samples.groups - 1) * error,
                         (1 - 0.025 ** (1 / samples.groups)) * (1 + np.abs(samples.mean)))  # fmt: skip
        return np.asarray(np.abs(samples.mean - delta) <= reach)
    outside = int(0.025 * (len(_sets(samples.groups)) + 1))
    below, above = (_counted(samples, holds) for holds in (lambda m: m <= delta, lambda m: m >= delta))
    unseen = np.abs(samples.mean - delta) <= (1 - 0.025 ** (1 / samples.groups)) * (1 + np.abs(samples.mean))
    return np.where(error > 1e-12, (below >= outside) & (above >= outside), unseen)


def _agree(drawn: Differences, found: npt.NDArray[np.generic], asked: Callable[[Floats, Floats], object]) -> None:
    """Raises SystemExit unless the first replicates have the same answers from the functions the gate asks."""
    clusters = np.repeat(np.arange(drawn.shape[1], dtype=np.float64), drawn.shape[2])
    own = [asked(one.ravel().astype(np.float64), clusters) for one in drawn[:CHECKED]]
    if not np.allclose(np.asarray(own, dtype=float), found[:CHECKED].astype(float), atol=1e-9):
        raise SystemExit("the vectorised tests differ from harness.stats.clustered")


def coverage(replicates: int) -> None:
    print(f"Clustered items, {replicates:,} replicates (target 93.5–96.5% from 20 clusters on)\n")
    header("clusters", "items each", "ψ", "correlation", "true Δ", "covered", "covered if taken as independent")
    for seed, design in enumerate(DESIGNS):
        groups, size, discordance, correlation, margin = design
        for delta in (0.0, -margin):
            drawn = differences(design, delta, replicates, 700 + seed)
            held = covered(Samples.of(drawn), delta)
            _agree(drawn, held, partial(_holds, delta))
            share = float(held.mean())
            shown = within(share, 0.935, 0.965) if groups >= FEW_CLUSTERS else f"{share:.2%}"
            row(groups, size, discordance, correlation, delta, shown, f"{_naive(drawn, delta):.2%}")
    print()


def _holds(delta: float, d: Floats, clusters: Floats) -> bool:
    low, high = clustered_interval(d, clusters, 0.95, 0)
    return low <= delta <= high


def _passes(margin: float, d: Floats, clusters: Floats) -> float:
    return clustered_noninferiority_p(d, clusters, margin, 0)


def _naive(drawn: Differences, delta: float) -> float:
    """Coverage of the usual interval that takes all items as independent."""
    items = drawn.reshape(len(drawn), -1)
    flips, means = np.count_nonzero(items, axis=1) / items.shape[1], items.mean(axis=1)
    reach = 1.96 * np.sqrt((flips - means**2) / (items.shape[1] - 1))
    return float(np.mean(np.abs(means - delta) <= reach))


def errors(replicates: int) -> None:
    print(f"Clustered items, {replicates:,} replicates\n")
    header("clusters", "items each", "ψ", "correlation", "δ", "PASS at −δ (≤ 5.5%)", "FAIL at 0 (≤ 5.5%)", "PASS at 0")
    for seed, design in enumerate(DESIGNS):
        margin = design[4]
        worse = differences(design, -margin, replicates, 800 + seed)
        equal = differences(design, 0.0, replicates, 900 + seed)
        p_worse, p_equal = (noninferiority(Samples.of(drawn), margin) for drawn in (worse, equal))
        p_harm = harm(Samples.of(equal))
        for drawn, found in ((worse, p_worse), (equal, p_equal)):
            _agree(drawn, found, partial(_passes, margin))
        _agree(equal, p_harm, lambda d, c: clustered_harm_p(d, c, 0))
        passed, failed, kept = (float(np.mean(p <= 0.05)) for p in (p_worse, p_harm, p_equal))
        row(*design, at_most(passed, 0.055), at_most(failed, 0.055), f"{kept:.1%}")
    print()
