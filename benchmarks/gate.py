"""What the gate's statistics promise, by seeded simulation, beside the usual rule and an unpaired z-test.

    python benchmarks/gate.py errors     [--replicates 100000]
    python benchmarks/gate.py coverage   [--replicates 100000]
    python benchmarks/gate.py clusters   [--replicates 20000]
    python benchmarks/gate.py continuous [--replicates 100000]
    python benchmarks/gate.py worst      [--replicates 20000]
    python benchmarks/gate.py intervals  [--replicates 100000]
    python benchmarks/gate.py looks      [--replicates 100000]
    python benchmarks/gate.py limit      [--replicates 20000]
    python benchmarks/gate.py pairs      --data DATA
    python benchmarks/gate.py speed

`errors`: FAIL of equal models, PASS of models worse by the margin and by half as much again, PASS of equal models at
a tenth more than the planned items; the same over ten guards, and for small samples by enumeration. `coverage`: how
often 95% intervals hold the truth. `clusters`: both for items that depend on each other. `continuous`: both for scores
that are not right/wrong. `worst`: the distributions of such scores that pass most often. `intervals`: published
intervals of few skewed scores. `looks`: sequential evaluation.
`limit`: its expected items beside the SPRT. `pairs`: two models on GSM8K, from the folder DATA.
`speed`: the gate on many items, from files.
Tables are Markdown. ✗ marks a value that misses its target.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import gate_clusters
import gate_looks
import gate_rules
import gate_scores
import gate_speed
import gate_worst
import numpy as np
from common import at_least, at_most, header, row, within
from gate_rules import RULES, by_flips, draw, metric, policy, verdict
from scipy.stats import binom

from harness.gate.significance import fail_p, interval
from harness.stats.power import n_for_noninferiority, power_noninferiority
from harness.stats.proportion import holm

# margin, discordance; the planned n follows
PLANS = [(0.02, 0.10), (0.03, 0.10), (0.03, 0.20), (0.05, 0.10)]
SMALL = [10, 30, 60, 100, 164, 300]
WHAT = ["errors", "coverage", "clusters", "continuous", "worst", "intervals", "looks", "limit", "pairs", "speed"]


def main() -> None:
    given = options()
    replicates = given.replicates
    if given.what == "errors":
        errors(replicates)
    elif given.what == "coverage":
        coverage(replicates)
    elif given.what == "clusters":
        gate_clusters.coverage(replicates)
        gate_clusters.errors(replicates)
        gate_clusters.equal_weights()
    elif given.what == "continuous":
        gate_scores.continuous(replicates, given.only)
    elif given.what == "worst":
        gate_worst.worst(replicates, given.only)
    elif given.what == "intervals":
        gate_scores.intervals(replicates, given.only)
    elif given.what == "looks":
        gate_looks.looks(replicates)
    elif given.what == "limit":
        gate_looks.expected(replicates)
    elif given.what == "pairs":
        pairs(given.data)
    else:
        gate_speed.speed(given.only)
        gate_speed.in_memory(1_000_000)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 where one is missing or unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--replicates", type=int, default=100_000)
    parser.add_argument("--only", default="", help="continuous, worst, intervals, speed: rows whose name contains this")
    parser.add_argument("--data", type=Path, help="pairs: a folder with paired/gsm8k_mixtral_vs_gpt4.csv")
    given = parser.parse_args(arguments)
    if given.what == "pairs" and given.data is None:
        parser.error("pairs needs --data FOLDER")
    return given


def errors(replicates: int) -> None:
    print(f"Right/wrong items, {replicates:,} replicates; α = 0.05, power 0.9, baseline 60% right\n")
    header("n", "ψ", "δ", "rule", "FAIL at Δ = 0 (≤ 5.5%)", "PASS at −δ (≤ 5.5%)", "PASS at −1.5δ (≤ 0.5%)",
           "PASS at 0, 1.1 n (≥ 90%)")  # fmt: skip
    for seed, (margin, discordance) in enumerate(PLANS):
        n = n_for_noninferiority(margin, discordance, 0.05, 0.9)
        for rule in RULES:
            row(n, discordance, margin, rule, *_error_rates(rule, n, discordance, margin, replicates, seed))
    print("\nThe usual rule as quoted: δ = 0.02, ψ = 0.10\n")
    missed = np.mean(gate_rules.usual(draw(2142, 0.1, -0.02, replicates, 50), 0.02) == "PASS")
    blocked = np.mean(gate_rules.usual(draw(164, 0.1, 0.0, replicates, 51), 0.02) == "FAIL")
    print(f"misses {missed:.1%} of true drops of δ on 2,142 items; blocks {blocked:.1%} of equal models on 164\n")
    ten_guards(replicates)
    few_items()


def _error_rates(rule: str, n: int, discordance: float, margin: float, replicates: int, seed: int) -> list[str]:
    decide = RULES[rule]
    more = round(1.1 * n)
    fail = np.mean(decide(draw(n, discordance, 0.0, replicates, 100 + seed), margin) == "FAIL")
    at = np.mean(decide(draw(n, discordance, -margin, replicates, 200 + seed), margin) == "PASS")
    beyond = np.mean(decide(draw(n, discordance, -1.5 * margin, replicates, 300 + seed), margin) == "PASS")
    equal = np.mean(decide(draw(more, discordance, 0.0, replicates, 400 + seed), margin) == "PASS")
    return [at_most(fail, 0.055), at_most(at, 0.055), at_most(beyond, 0.005), at_least(equal, 0.9)]


def ten_guards(replicates: int) -> None:
    """Equal models on ten guards: where Holm rejects nothing none can FAIL; the rest are decided in full."""
    n, discordance, margin = 952, 0.1, 0.03
    cells = draw(n, discordance, 0.0, 10 * replicates, 500)
    p = by_flips(cells, lambda table: fail_p(metric(table), 1.0)).astype(float).reshape(replicates, 10)
    suspects = [index for index in range(replicates) if min(holm(p[index].tolist())) <= 0.05]
    tables = cells.reshape(replicates, 10, 4)
    rules = policy(margin)
    failed = sum(
        verdict(rules, [metric(table, f"task{i}") for i, table in enumerate(tables[index])]).verdict == "FAIL"
        for index in suspects
    )
    print("Ten guards of equal models (n = 952, ψ = 0.10, δ = 0.03)\n")
    header("FAIL of any (≤ 5.5%)")
    row(at_most(failed / replicates, 0.055))
    print()


def few_items() -> None:
    print("Small samples, by enumeration: the largest chance over discordances from δ to 0.4\n")
    header("n", "δ", "PASS at −δ (≤ 5.5%)", "by the t interval", "FAIL at 0 (≤ 5.5%)", "PASS at 0, ψ = 0.05",
           "ψ = 0.10", "ψ = 0.20")  # fmt: skip
    for margin in (0.01, 0.05, 0.10):
        for n in SMALL:
            grid = np.linspace(margin, 0.4, 12).tolist()
            worst = max(power_noninferiority(n, margin, psi, 0.05, -margin) for psi in grid)
            rival = max(_t_interval_passes(n, margin, psi) for psi in grid)
            chances = [f"{power_noninferiority(n, margin, psi, 0.05, 0.0):.1%}" for psi in (0.05, 0.10, 0.20)]
            harmed = max(_harm_rate(n, psi) for psi in np.linspace(0.02, 0.4, 20))
            row(n, margin, at_most(worst, 0.055), at_most(rival, 0.055), at_most(harmed, 0.055), *chances)
    print()


def _t_interval_passes(n: int, margin: float, discordance: float) -> float:
    """Chance at Δ = −margin that the upper limit of the loss lies within the margin."""
    lost, gained = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    won = (discordance - margin) / 2
    chances = binom.pmf(gained, n, won) * binom.pmf(lost, n - gained, (won + margin) / (1 - won))
    return float(chances[(lost + gained <= n) & gate_rules.t_interval(lost, gained, n, margin)].sum())


def _harm_rate(n: int, discordance: float) -> float:
    """Chance that equal models FAIL on the mid-p test alone, before PASS is asked."""
    total = 0.0
    for flipped in range(1, n + 1):
        losses = np.arange(flipped + 1)
        p = binom.sf(losses, flipped, 0.5) + binom.pmf(losses, flipped, 0.5) / 2
        total += float(binom.pmf(flipped, n, discordance) * binom.pmf(losses[p <= 0.05], flipped, 0.5).sum())
    return total


def coverage(replicates: int) -> None:
    print(f"Coverage of the 95% interval, {replicates:,} replicates (target 94–96%)\n")
    header("n", "ψ", "true Δ", "covered")
    for seed, (n, discordance, delta) in enumerate(
        [(164, 0.1, 0.0), (164, 0.2, -0.05), (343, 0.1, -0.05), (952, 0.1, 0.0), (952, 0.1, -0.03), (2141, 0.1, -0.02)]
    ):
        cells = draw(n, discordance, delta, replicates, 600 + seed)
        row(n, discordance, delta, within(_covered(cells, delta), 0.94, 0.96))
    print()


def _covered(cells: gate_rules.Cells, delta: float) -> float:
    def covers(table: Sequence[int]) -> bool:
        low, high = interval(metric(table), 0.95)
        return bool(low <= delta <= high)

    return float(np.mean(by_flips(cells, covers).astype(bool)))


def pairs(data: Path) -> None:
    """Mixtral-8x7B against GPT-4 on GSM8K, either one as the candidate."""
    with (data / "paired" / "gsm8k_mixtral_vs_gpt4.csv").open(newline="") as file:
        answers = [(r["mistralai/Mixtral-8x7B-Instruct-v0.1"], r["gpt-4-1106-preview"]) for r in csv.DictReader(file)]
    cells = [
        answers.count(pair) for pair in (("True", "True"), ("True", "False"), ("False", "True"), ("False", "False"))
    ]
    print("both right {}, only Mixtral {}, only GPT-4 {}, neither {}".format(*cells))
    both, mixtral, gpt4, neither = cells
    for name, table in (("Mixtral in place of GPT-4", (both, gpt4, mixtral, neither)),
                        ("GPT-4 in place of Mixtral", (both, mixtral, gpt4, neither))):  # fmt: skip
        low, high = interval(metric(table), 0.95)
        found = verdict(policy(0.02), [metric(table, "gsm8k", ci_low=low, ci_high=high)])
        print(f"{name}: {found.verdict}\n  {found.reasons[0]}")


if __name__ == "__main__":
    main()
