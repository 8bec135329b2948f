"""What choosing the best of several candidates does to the gate, by seeded simulation.

    python benchmarks/sweep.py curse [--replicates 20000]

`curse`: K candidates, all worse than the base model by the whole margin, are evaluated on the same items, and the one
with the best score is sent to the gate. PASS should stay at most 5.5%. `gate` decides as if it were the only candidate;
`gate.candidates=K` is what a sweep sets; `other half` chooses on one half of the items and decides on the other. The
same for candidates that are as good as the base model, where PASS is wanted, on the items planned for one candidate.
The candidates' answers are independent, which is the worst case: copies of one candidate leave nothing to choose.
Tables are Markdown. ✗ marks a value that misses its target.
"""

import argparse
from collections.abc import Sequence

import numpy as np
from common import at_most, header, row
from gate_rules import Cells, by_flips, draw, metric, policy, verdict

from harness.stats.power import n_for_noninferiority

MARGIN, DISCORDANCE = 0.05, 0.10
SIZES = [1, 2, 4, 8, 16, 32, 64]


def main() -> None:
    curse(options().replicates)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 where one is missing or unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["curse"])
    parser.add_argument("--replicates", type=int, default=20_000)
    return parser.parse_args(arguments)


def curse(replicates: int) -> None:
    n = n_for_noninferiority(MARGIN, DISCORDANCE, 0.05, 0.9)
    print(f"{n} items, margin {MARGIN:g}, discordance {DISCORDANCE:g}, {replicates:,} replicates\n")
    header("K", "worse by the margin: gate", "gate.candidates=K (≤ 5.5%)", "other half (≤ 5.5%)",
           "as good: gate", "gate.candidates=K", "other half")  # fmt: skip
    for count in SIZES:
        shares = [share for delta in (-MARGIN, 0.0) for share in passes(n, count, delta, replicates)]
        plain, corrected, halves = shares[:3]
        row(count, f"{plain:.2%}", at_most(corrected, 0.055), at_most(halves, 0.055), *(f"{s:.2%}" for s in shares[3:]))


def passes(n: int, count: int, delta: float, replicates: int) -> tuple[float, float, float]:
    """How often the best of `count` candidates passes: as a single one, with the correction, on the other half."""
    first, second = (
        np.stack([draw(size, DISCORDANCE, delta, replicates, 1000 * seed + k) for k in range(count)], axis=1)
        for seed, size in ((1, n // 2), (2, n - n // 2))
    )
    single, corrected = policy(MARGIN), policy(MARGIN, candidates=count)

    def passed(tables: Cells, rules: object) -> float:
        decide = by_flips(tables, lambda table: verdict(rules, [metric(table)]).verdict)  # type: ignore[arg-type]
        return float(np.mean(decide == "PASS"))

    whole = first + second
    return (
        passed(best(whole, whole), single),
        passed(best(whole, whole), corrected),
        passed(best(second, first), single),
    )


def best(tables: Cells, chosen_by: Cells) -> Cells:
    """The tables of the candidates with the largest gain in `chosen_by`. Both have shape (replicates, K, 4)."""
    gain = chosen_by[:, :, 2] - chosen_by[:, :, 1]
    return np.asarray(tables[np.arange(len(tables)), np.argmax(gain, axis=1)])


if __name__ == "__main__":
    main()
