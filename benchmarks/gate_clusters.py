"""Right/wrong answers that come in clusters: the chances of losing and gaining an item vary between clusters."""

import numpy as np
import numpy.typing as npt
from gate_tables import at_most, header, row, within

from harness.stats.clustered import clustered_harm_p, clustered_interval, clustered_noninferiority_p

Differences = npt.NDArray[np.float64]
# clusters, items a cluster, discordance, correlation within a cluster, margin
DESIGNS = [
    (8, 25, 0.1, 0.1, 0.05), (15, 30, 0.1, 0.1, 0.05), (20, 20, 0.1, 0.1, 0.05), (30, 10, 0.1, 0.3, 0.05),
    (50, 10, 0.1, 0.1, 0.05), (100, 5, 0.1, 0.0, 0.05), (200, 5, 0.1, 0.2, 0.03),
]  # fmt: skip
BLOCK = 2_000_000


def differences(design: tuple[int, int, float, float, float], delta: float, replicates: int, seed: int) -> Differences:
    """d of each replicate, items of a cluster side by side: shape (replicates, clusters · items)."""
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
        items = np.where(luck < lost, -1, np.where(luck < moved, 1, 0)).astype(np.int8)
        blocks.append(items.reshape(shape[0], groups * size))
    return np.concatenate(blocks)


def coverage(replicates: int) -> None:
    few = max(replicates // 20, 100)
    print(f"Clustered items, {replicates:,} replicates ({few:,} under 20 clusters; target 93.5–96.5% from 20 on)\n")
    header("clusters", "items each", "ψ", "correlation", "true Δ", "covered", "covered if taken as independent")
    for seed, design in enumerate(DESIGNS):
        groups, size, discordance, correlation, margin = design
        clusters = np.repeat(np.arange(groups), size)
        for delta in (0.0, -margin):
            drawn = differences(design, delta, few if groups < 20 else replicates, 700 + seed)
            bounds = np.array([clustered_interval(d, clusters, 0.95, 0) for d in drawn])
            held = float(np.mean((bounds[:, 0] <= delta) & (bounds[:, 1] >= delta)))
            shown = within(held, 0.935, 0.965) if groups >= 20 else f"{held:.2%}"
            row(groups, size, discordance, correlation, delta, shown, f"{_naive(drawn, delta):.2%}")
    print()


def _naive(drawn: Differences, delta: float) -> float:
    """Coverage of the usual interval that takes all items as independent."""
    reach = 1.96 * drawn.std(axis=1, ddof=1) / np.sqrt(drawn.shape[1])
    return float(np.mean(np.abs(drawn.mean(axis=1) - delta) <= reach))


def errors(replicates: int) -> None:
    print(f"Clustered items, {replicates:,} replicates\n")
    header("clusters", "items each", "ψ", "correlation", "δ", "PASS at −δ (≤ 5.5%)", "FAIL at 0 (≤ 5.5%)", "PASS at 0")
    for seed, design in enumerate(DESIGNS):
        clusters = np.repeat(np.arange(design[0]), design[1])
        margin = design[4]
        worse = differences(design, -margin, replicates, 800 + seed)
        equal = differences(design, 0.0, replicates, 900 + seed)
        passed, kept = (
            float(np.mean([clustered_noninferiority_p(d, clusters, margin, 0) <= 0.05 for d in drawn]))
            for drawn in (worse, equal)
        )
        failed = float(np.mean([clustered_harm_p(d, clusters, 0) <= 0.05 for d in equal]))
        row(*design, at_most(passed, 0.055), at_most(failed, 0.055), f"{kept:.1%}")
    print()
