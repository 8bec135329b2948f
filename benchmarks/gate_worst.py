"""Scores that are not right/wrong, at Δ = −δ: the distributions on [−1, 1] that pass most often.

Each family is searched over margins of 2, 5 and 10 points. Two and three values are enumerated, the other families
simulated. Beside the gate's test stand Student's t and the BCa bootstrap (Efron 1987), both one-sided at 5%; they pass
a sample without any spread whose mean is above −δ. BCa has its exact bootstrap distribution for two values, and 2,000
resamples of at most 2,000 replicates for the simulated families.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from common import at_most, header, row
from gate_bounded import ALPHA, Floats, rejected
from scipy.optimize import brentq
from scipy.stats import binom, norm, t

from harness.stats.bounded import bounded_mean_p

Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]
Found = tuple[float, float, float | None]  # PASS by the gate's test, by t, by BCa
SIZES = (50, 100, 200, 500, 1000)
MARGINS = (0.02, 0.05, 0.1)
LOW = (-1.0, -0.75, -0.5, -0.25, -0.15)
HIGH = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
RESAMPLES = 2000


def worst(replicates: int, only: str) -> None:
    print(f"The worst member of each family at Δ = −δ, {replicates:,} replicates where it is simulated\n")
    header("differences", "n", "members", "PASS (≤ 5.5%)", "by t", "by BCa")
    families: dict[str, Callable[[int], list[Found]]] = {
        "two values": lambda n: [_two(low, high, n, m) for m in MARGINS for low in LOW for high in HIGH],
        "−1, 0 and a gain": lambda n: [_three(gain, share, n, m) for m in MARGINS for gain in (0.1, 0.5, 1.0)
                                       for share in (0.05, 0.2, 0.4)],
    }  # fmt: skip
    for name, members in FAMILIES.items():
        families[name] = partial(_simulated_family, members, replicates)
    for name, family in ((name, family) for name, family in families.items() if only in name):
        for n in SIZES:
            found = family(n)
            bca = [one[2] for one in found if one[2] is not None]
            shown = at_most(max(one[0] for one in found), 0.055), f"{max(one[1] for one in found):.1%}"
            row(name, n, len(found), *shown, f"{max(bca):.1%}" if bca else "–")
    print()


def _two(low: float, high: float, n: int, margin: float) -> Found:
    """All n + 1 samples; the more low values, the larger p."""
    lows = np.arange(n + 1)
    chances = binom.pmf(lows, n, (high + margin) / (high - low))
    least, most = -1, n
    while least < most:
        middle = (least + most + 1) // 2
        passes = bounded_mean_p(np.repeat([low, high], [middle, n - middle]), -margin, -1.0) <= ALPHA
        least, most = (middle, most) if passes else (least, middle - 1)
    share = lows / n
    mean, spread = high - share * (high - low), (high - low) * np.sqrt(share * (1 - share))
    by_t = _student(mean, spread, n, -margin)
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness = np.where(spread > 0, -(1 - 2 * share) / np.sqrt(share * (1 - share)), 0.0)
    below = np.array([_below(n, k, n * (high + margin) / (high - low)) for k in range(n + 1)])
    below_mean = np.array([_below(n, k, float(k)) for k in range(n + 1)])
    bca = np.where(spread > 0, _bca(below, below_mean, skewness, n) <= ALPHA, mean > -margin)
    return float(chances[: least + 1].sum()), float(chances[by_t].sum()), float(chances[bca].sum())


def _below(n: int, lows: int, reached: float) -> float:
    """Share of bootstrap samples with more low values than `reached`, those with as many counted by half."""
    whole = round(reached)
    tied = binom.pmf(whole, n, lows / n) if abs(reached - whole) < 1e-9 else 0.0
    return float(binom.sf(np.floor(reached + 1e-9), n, lows / n) + tied / 2)


def _three(gain: float, share: float, n: int, margin: float) -> Found:
    """−1 with chance margin + gain·share, the gain with chance `share`."""
    lost = margin + gain * share
    total = by_t = 0.0
    for gains in range(int(binom.ppf(1e-9, n, share)), int(binom.isf(1e-9, n, share)) + 1):
        least, most = -1, n - gains
        while least < most:
            middle = (least + most + 1) // 2
            sample = np.repeat([-1.0, 0.0, gain], [middle, n - gains - middle, gains])
            passes = bounded_mean_p(sample, -margin, -1.0) <= ALPHA
            least, most = (middle, most) if passes else (least, middle - 1)
        losses = np.arange(n - gains + 1)
        chances = binom.pmf(gains, n, share) * binom.pmf(losses, n - gains, lost / (1 - share))
        mean = (gain * gains - losses) / n
        spread = np.sqrt(np.maximum((gain**2 * gains + losses) / n - mean**2, 0))
        total += float(chances[: least + 1].sum())
        by_t += float(chances[_student(mean, spread, n, -margin)].sum())
    return total, by_t, None


def _student(mean: Floats, spread: Floats, n: int, bound: float) -> Floats:
    """Whether one-sided t rejects H0: mean ≤ bound; `spread` has the divisor n."""
    return np.asarray(mean - bound > t.isf(ALPHA, n - 1) * spread / np.sqrt(n - 1) + 1e-12)


def _bca(below: Floats, below_mean: Floats, skewness: Floats, n: int) -> Floats:
    """p of H0: mean ≤ bound, from the shares of bootstrap means below the bound and below the sample's mean."""
    edge = 0.5 / RESAMPLES
    bias = norm.ppf(np.clip(below_mean, edge, 1 - edge))
    moved, acceleration = norm.ppf(np.clip(below, edge, 1 - edge)) - bias, skewness / (6 * np.sqrt(n))
    scale = 1 + acceleration * moved
    z = moved / np.where(scale > 0, scale, 1) - bias
    return np.asarray(np.where(scale > 0, t.cdf(z / np.sqrt(n / (n - 1)), n - 1), np.where(moved < 0, 0.0, 1.0)))


def _simulated_family(members: Callable[[float], list[Draw]], replicates: int, n: int) -> list[Found]:
    drawn = [(margin, draw) for margin in MARGINS for draw in members(margin)]
    return [_simulated(draw, margin, n, replicates, 1000 + index) for index, (margin, draw) in enumerate(drawn)]


def _simulated(draw: Draw, margin: float, n: int, replicates: int, seed: int) -> Found:
    generator = np.random.default_rng(seed)
    d = draw(generator, (replicates, n))
    mean, spread = d.mean(axis=1), d.std(axis=1)
    gate, by_t = rejected(d + margin, margin - 1), _student(mean, spread, n, -margin)
    d, mean, spread = d[:2000], mean[:2000], spread[:2000]
    some = spread > 1e-9
    means = d[some] @ _weights(n)
    centred = d[some] - mean[some, None]
    skewness = (centred**3).mean(axis=1) / spread[some] ** 3
    below, below_mean = (
        np.mean(means < bound - 1e-12, axis=1) + np.mean(np.abs(means - bound) <= 1e-12, axis=1) / 2
        for bound in (-margin, mean[some, None])
    )
    bca = mean > -margin
    bca[some] = _bca(below, below_mean, skewness, n) <= ALPHA
    return float(gate.mean()), float(by_t.mean()), float(bca.mean())


@cache
def _weights(n: int) -> Floats:
    """How often each value is in each bootstrap sample, over n: shape (n, resamples)."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).T / n


def _grid(margin: float) -> list[Draw]:
    """Five levels with random chances; mass on one end brings the mean to −margin."""
    levels, generator = np.array([-1, -0.5, 0, 0.5, 1.0]), np.random.default_rng(5)
    members: list[Draw] = []
    for _ in range(8):
        chances = generator.dirichlet([0.3, 0.3, 2.0, 0.3, 0.3])
        mean = float(chances @ levels)
        end = 0 if mean > -margin else 4
        moved = (-margin - mean) / (levels[end] - mean)
        chances = (1 - moved) * chances + moved * np.eye(5)[end]
        members.append(partial(_chosen, levels, chances))
    return members


def _chosen(levels: Floats, chances: Floats, generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return np.asarray(generator.choice(levels, size=shape, p=chances))


def _zeros(margin: float) -> list[Draw]:
    """Zeros and losses of beta-distributed size, also with gains of 0.2 on average for one item in ten."""
    members: list[Draw] = []
    for a, b in ((1, 1), (0.3, 0.3), (1, 3), (3, 1), (1, 0.1)):
        for gains in (0.0, 0.1):
            lost = (margin + 0.2 * gains) * (a + b) / a
            members.append(partial(_mixed, a=a, b=b, lost=lost, gained=gains))
    return members


def _mixed(
    generator: np.random.Generator, shape: tuple[int, int], a: float, b: float, lost: float, gained: float
) -> Floats:
    luck = generator.random(shape)
    gains = np.where(luck < lost + gained, generator.beta(1, 4, shape), 0.0)
    return np.where(luck < lost, -generator.beta(a, b, shape), gains)


def _skewed(margin: float) -> list[Draw]:
    """Exponential drops from a level, exponential gains over one, both cut at the range; and beta on [−1, 1]."""
    members: list[Draw] = [partial(_beta, margin, size) for size in (0.1, 0.5, 2.0, 10.0)]
    for level in (0.01, 0.05, 0.2):
        scale = brentq(lambda scale: level - _cut_mean(scale, level) + margin, 1e-4, 0.6)  # noqa: B023
        members.append(partial(_exponential, 1.0, level, float(scale)))
    for scale in (0.02, 0.1, 0.3):
        level = brentq(lambda level: _cut_mean(scale, level) - level + margin, 1e-6, 1.0)  # noqa: B023
        members.append(partial(_exponential, -1.0, float(level), scale))
    return members


def _cut_mean(scale: float, level: float) -> float:
    """The mean of an exponential variable cut at 1 + level."""
    return scale * (1 - float(np.exp(-(1 + level) / scale)))


def _exponential(
    sign: float, level: float, scale: float, generator: np.random.Generator, shape: tuple[int, int]
) -> Floats:
    return np.asarray(sign * (level - np.minimum(generator.exponential(scale, shape), 1 + level)))


def _beta(margin: float, size: float, generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return np.asarray(2 * generator.beta(size * (1 - margin) / 2, size * (1 + margin) / 2, shape) - 1)


FAMILIES: dict[str, Callable[[float], list[Draw]]] = {
    "grid of five levels": _grid,
    "many zeros": _zeros,
    "skewed": _skewed,
}
