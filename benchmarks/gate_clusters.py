"""Right/wrong answers that come in clusters, in every model of what the items of a cluster have in common.

Clusters of equal size hold 10 items, unequal ones 1 to 40. The margin is 5 points and a share of 5% of the items
changes at Δ = −δ, all of it losses; at Δ = 0 as many are gained as lost. All replicates of a design are decided at
once; the first of them are asked of `harness.stats.clustered` too, and must agree.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from common import at_most, header, row, within
from gate_bounded import ALPHA, Floats, rejected
from scipy.stats import binom, t

from harness.stats.clustered import clustered_interval, clustered_mean_p

MARGIN = 0.05
SIZE = 10
GROUPS = (5, 10, 20, 25, 30, 50, 100, 200)
COVERED = (20, 30, 50, 100, 200)
BLOCK = 4_000_000
CHECKED = 20


@dataclass(frozen=True)
class Drawn:
    """Sums of d over each cluster, shape (replicates, clusters), and their sizes, shape (clusters,)."""

    sums: Floats
    sizes: Floats

    @property
    def means(self) -> Floats:
        return np.asarray(self.sums.sum(axis=1) / self.sizes.sum())


Rates = tuple[float, float]  # chances that an item is lost, or gained
Model = Callable[[np.random.Generator, int, int, Rates], Drawn]  # generator, replicates, clusters, rates


def _split(
    generator: np.random.Generator, items: npt.ArrayLike, lost: Floats | float, gained: Floats | float
) -> Floats:
    """Items gained minus items lost, of `items` in each cluster."""
    b = generator.binomial(np.asarray(items, dtype=np.int64), lost)
    rest = np.divide(gained, 1 - np.asarray(lost), out=np.zeros_like(b, dtype=float), where=np.asarray(lost) < 1)
    return np.asarray(generator.binomial(np.asarray(items, dtype=np.int64) - b, np.minimum(rest, 1)) - b, dtype=float)


def independent(generator: np.random.Generator, rows: int, groups: int, rates: Rates) -> Drawn:
    shape = (rows, groups)
    return Drawn(_split(generator, np.full(shape, SIZE), np.full(shape, rates[0]), rates[1]), np.full(groups, SIZE))


def dirichlet(correlation: float) -> Model:
    """The chances of a cluster vary around the rates."""

    def model(generator: np.random.Generator, rows: int, groups: int, rates: Rates) -> Drawn:
        chances = np.maximum([rates[0], rates[1], 1 - sum(rates)], 1e-9) * (1 / correlation - 1)
        drawn = generator.gamma(np.broadcast_to(chances, (rows, groups, 3)))
        own = drawn / np.maximum(drawn.sum(axis=2, keepdims=True), 1e-300)
        return Drawn(_split(generator, np.full((rows, groups), SIZE), own[..., 0], own[..., 1]), np.full(groups, SIZE))

    return model


def copied(correlation: float) -> Model:
    """An item copies the draw of its cluster with chance √correlation, else it has its own."""

    def model(generator: np.random.Generator, rows: int, groups: int, rates: Rates) -> Drawn:
        shape = (rows, groups)
        copies = generator.binomial(SIZE, np.sqrt(correlation), shape)
        own = _split(generator, SIZE - copies, np.full(shape, rates[0]), rates[1])
        return Drawn(own + copies * _split(generator, np.ones(shape), np.full(shape, rates[0]), rates[1]),
                     np.full(groups, SIZE))  # fmt: skip

    return model


def whole(generator: np.random.Generator, rows: int, groups: int, rates: Rates) -> Drawn:
    """All items of a cluster share one draw."""
    shape = (rows, groups)
    draws = _split(generator, np.ones(shape), np.full(shape, rates[0]), rates[1])
    return Drawn(SIZE * draws, np.full(groups, SIZE))


def unequal(generator: np.random.Generator, rows: int, groups: int, rates: Rates) -> Drawn:
    """One draw for each cluster; a fifth of the clusters hold 40 items, the others 1 to 8."""
    sizes = np.where(np.arange(groups) % 5 == 0, 40, 1 + np.arange(groups) % 8).astype(float)
    shape = (rows, groups)
    return Drawn(sizes * _split(generator, np.ones(shape), np.full(shape, rates[0]), rates[1]), sizes)


def large(generator: np.random.Generator, rows: int, groups: int, rates: Rates) -> Drawn:
    """Only the large clusters change, each as a whole: a tenth of all, with 40 items beside 8."""
    heavy = np.arange(groups) < max(1, groups // 10)
    sizes = np.where(heavy, 40.0, 8.0)
    share = sizes[heavy].sum() / sizes.sum()
    shape = (rows, groups)
    draws = _split(generator, np.ones(shape), np.full(shape, rates[0] / share), rates[1] / share)
    return Drawn(np.where(heavy, sizes * draws, 0.0), sizes)


def noisy(generator: np.random.Generator, rows: int, groups: int, rates: Rates) -> Drawn:
    """Clusters that share one draw, and 5% of the other items lost and 5% gained on their own."""
    shape = (rows, groups)
    draws = _split(generator, np.ones(shape), np.full(shape, rates[0]), rates[1])
    own = _split(generator, np.full(shape, SIZE), np.full(shape, 0.05), 0.05)
    return Drawn(np.where(draws != 0, SIZE * draws, own), np.full(groups, SIZE))


MODELS: dict[str, Model] = {
    "independent items": independent,
    "shares by cluster (Dirichlet), correlation 0.1": dirichlet(0.1),
    "shares by cluster (Dirichlet), correlation 0.3": dirichlet(0.3),
    "items copy the cluster's draw, correlation 0.3": copied(0.3),
    "a cluster shares one draw": whole,
    "one draw a cluster, and independent changes": noisy,
    "one draw a cluster, unequal sizes": unequal,
    "only few large clusters change": large,
}


def _blocks(model: Model, groups: int, rates: Rates, replicates: int, seed: int) -> list[Drawn]:
    generator, step = np.random.default_rng(seed), max(1, BLOCK // groups)
    return [model(generator, min(step, replicates - at), groups, rates) for at in range(0, replicates, step)]


def _above(drawn: Drawn, bound: float, sign: int = 1) -> npt.NDArray[np.bool_]:
    """Whether H0: mean of sign·d ≤ bound is rejected at 5%, for each replicate."""
    found = rejected(sign * drawn.sums - bound * drawn.sizes, -(1 + bound) * float(drawn.sizes.max()))
    for sums, own in zip(drawn.sums[:CHECKED], found, strict=False):
        d, clusters = _items(sums, drawn.sizes)
        if (clustered_mean_p(sign * d, clusters, bound) <= ALPHA) != own:
            raise SystemExit("the vectorised test differs from harness.stats.clustered")
    return found


def _items(sums: Floats, sizes: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Items whose clusters have these sums and sizes."""
    counts = sizes.astype(np.int64)
    return np.repeat(sums / sizes, counts), np.repeat(np.arange(len(sizes)), counts)


def _error(drawn: Drawn) -> Floats:
    """Cluster-robust standard error of the mean of each replicate."""
    groups, centred = len(drawn.sizes), drawn.sums - drawn.means[:, None] * drawn.sizes
    return np.asarray(np.sqrt(groups / (groups - 1) * (centred**2).sum(axis=1)) / drawn.sizes.sum())


def _student(drawn: Drawn, bound: float) -> npt.NDArray[np.bool_]:
    """The same by cluster-robust t with G − 1 degrees of freedom, which the gate does not use."""
    return np.asarray(drawn.means - bound > t.isf(ALPHA, len(drawn.sizes) - 1) * np.maximum(_error(drawn), 1e-12))


def errors(replicates: int) -> None:
    print(f"Clustered items, {replicates:,} replicates; δ = {MARGIN}\n")
    header("what the items of a cluster share", "clusters", "PASS at −δ (≤ 5.5%)", "by t", "FAIL at 0 (≤ 5.5%)",
           "PASS at 0", "PASS at 0, one item in 200 changes")  # fmt: skip
    for index, (name, model) in enumerate(MODELS.items()):
        for groups in GROUPS:
            seed = 800 + 100 * index + groups
            worse = _blocks(model, groups, (MARGIN, 0.0), replicates, seed)
            equal = _blocks(model, groups, (MARGIN / 2, MARGIN / 2), replicates, seed + 1)
            still = _blocks(model, groups, (MARGIN / 20, MARGIN / 20), replicates, seed + 2)
            asked = ((worse, -MARGIN, 1), (equal, 0.0, -1), (equal, -MARGIN, 1), (still, -MARGIN, 1))
            passed, failed, kept, calm = (
                float(np.concatenate([_above(drawn, bound, sign) for drawn in blocks]).mean())
                for blocks, bound, sign in asked
            )
            by_t = float(np.concatenate([_student(drawn, -MARGIN) for drawn in worse]).mean())
            shown = at_most(passed, 0.055), f"{by_t:.1%}", at_most(failed, 0.055)
            row(name, groups, *shown, f"{kept:.1%}", f"{calm:.1%}")
    print()


def equal_weights() -> None:
    """A group whose tasks weigh the same: at Δ = −δ the smallest task holds all losses, nothing else changes."""
    print("Tasks of equal weight, all losses in the smallest, by enumeration\n")
    header("items of the tasks", "δ", "PASS at −δ (≤ 5.5%)", "PASS where nothing changes")
    for sizes in ((30, 400), (50, 400), (100, 400), (200, 400), (30, 60, 200, 500), (100,) * 20):
        for margin in (margin for margin in (0.03, 0.05, 0.1) if margin * len(sizes) < 1):
            weights = np.repeat(sum(sizes) / (len(sizes) * np.array(sizes)), sizes)
            lost = np.arange(sizes[0] + 1)
            passed = []
            for losses in lost:
                d = np.where(np.arange(sum(sizes)) < losses, -weights, 0.0)
                passed.append(clustered_mean_p(d, np.arange(len(d)), -margin, weights) <= ALPHA)
            worse = float(binom.pmf(lost, sizes[0], margin * len(sizes))[np.array(passed)].sum())
            shown = ", ".join(map(str, sizes)) if len(set(sizes)) > 1 else f"{len(sizes)} of {sizes[0]}"
            row(shown, margin, at_most(worse, 0.055), "yes" if passed[0] else "no")
    print()


def coverage(replicates: int) -> None:
    """By cluster-robust t with G − 1 degrees of freedom, as the gate has it from 20 clusters on."""
    print(f"Coverage of the 95% interval of clustered items, {replicates:,} replicates (target 93.5–96.5%)\n")
    header("what the items of a cluster share", "clusters", "covered at Δ = 0", "covered at −δ")
    for index, (name, model) in enumerate(MODELS.items()):
        for groups in COVERED:
            seed = 700 + 100 * index + groups
            shares = [
                np.mean([_covers(one, delta).mean() for one in _blocks(model, groups, rates, replicates, seed)])
                for delta, rates in ((0.0, (MARGIN / 2, MARGIN / 2)), (-MARGIN, (MARGIN, 0.0)))
            ]
            row(name, groups, *(within(share, 0.935, 0.965) for share in shares))
    print()


def _covers(drawn: Drawn, delta: float) -> npt.NDArray[np.bool_]:
    groups, error = len(drawn.sizes), _error(drawn)
    unseen = (1 - 0.025 ** (1 / groups)) * (1 + np.abs(drawn.means))
    reach = np.where(error > 1e-12, t.isf(0.025, groups - 1) * error, unseen)
    found = np.asarray(np.abs(drawn.means - delta) <= reach)
    for sums, own in zip(drawn.sums[:CHECKED], found, strict=False):
        low, high = clustered_interval(*_items(sums, drawn.sizes), 0.95, 0)
        if bool(low <= delta <= high) != bool(own):
            raise SystemExit("the vectorised interval differs from harness.stats.clustered")
    return found
