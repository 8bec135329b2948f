"""Ways to decide on a guard, on simulated right/wrong answers: the gate's, the usual rule, an unpaired z-test, and the
t interval of the paired differences.

The gate's verdict is `harness.gate.verdict.decide` on a comparison with those counts, asked once for each table of
counts that was drawn.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from harness.config.experiment import validate
from harness.config.gate import GateConfig
from harness.gate.verdict import decide
from harness.records.gate import Comparison, MetricComparison, Side, Verdict

Cells = npt.NDArray[np.int64]  # shape (replicates, 4): both right, only baseline, only candidate, neither
ACCURACY = 0.6
Z = 1.6448536269514722


def draw(n: int, discordance: float, delta: float, replicates: int, seed: int) -> Cells:
    """Tables of n items at the true Δ = delta, the baseline 60% right."""
    lost, gained = (discordance - delta) / 2, (discordance + delta) / 2
    rates = [ACCURACY - lost, lost, gained, 1 - ACCURACY - gained]
    return np.random.default_rng(seed).multinomial(n, rates, size=replicates)


def policy(margin: float, **changes: object) -> GateConfig:
    """One guard for every metric."""
    rule = {"metric": "*", "role": "guard", "margin": f"{100 * margin:g} points"}
    return validate(GateConfig, {"name": "benchmark", "require": ["guard"], "rules": [rule], **changes})


def metric(cells: Sequence[int], task: str = "task", **changes: object) -> MetricComparison:
    both, lost, gained, neither = (int(cell) for cell in cells)
    n = both + lost + gained + neither
    measured = {
        "suite": "benchmark", "task": task, "metric": "acc", "n": n, "baseline": (both + lost) / n,
        "candidate": (both + gained) / n, "delta": (gained - lost) / n, "ci_low": -1.0, "ci_high": 1.0,
        "only_baseline_right": lost, "only_candidate_right": gained,
    }  # fmt: skip
    return MetricComparison.model_validate({**measured, **changes})


def verdict(rules: GateConfig, metrics: Sequence[MetricComparison]) -> Verdict:
    side = Side(label="simulated", weights_sha256="", contract_sha256="")
    return decide(rules, Comparison(baseline=side, candidate=side, metrics=list(metrics), flips=[], faults=[]))


def by_flips(cells: Cells, answer: Callable[[tuple[int, int, int, int]], object]) -> npt.NDArray[np.object_]:
    """The answer for each replicate, asked once for each distinct pair of flip counts. Shape (replicates,)."""
    width = int(cells.sum(axis=1).max()) + 1
    _, first, index = np.unique(cells[:, 1] * width + cells[:, 2], return_index=True, return_inverse=True)
    answers = [answer((int(a), int(b), int(c), int(d))) for a, b, c, d in cells[first]]
    return np.array(answers, dtype=object)[index]


def gate(cells: Cells, margin: float) -> npt.NDArray[np.object_]:
    """PASS, FAIL or INCONCLUSIVE for each replicate."""
    rules = policy(margin)
    return by_flips(cells, lambda table: verdict(rules, [metric(table)]).verdict)


def usual(cells: Cells, margin: float) -> npt.NDArray[np.object_]:
    """Block if the observed drop exceeds the margin."""
    drop = (cells[:, 1] - cells[:, 2]) / cells.sum(axis=1)
    return np.where(drop > margin + 1e-12, "FAIL", "PASS").astype(object)


def unpaired(cells: Cells, margin: float) -> npt.NDArray[np.object_]:
    """The gate's two questions by z-tests of two independent samples: what is paired is taken as unrelated."""
    n = cells.sum(axis=1)
    before, after = (cells[:, 0] + cells[:, 1]) / n, (cells[:, 0] + cells[:, 2]) / n
    error = np.sqrt((before * (1 - before) + after * (1 - after)) / n)
    passed, failed = (after - before + margin) / error > Z, (after - before) / error < -Z
    return np.where(passed, "PASS", np.where(failed, "FAIL", "INCONCLUSIVE")).astype(object)


def t_interval(lost: Cells | int, gained: Cells | int, n: int, margin: float) -> npt.NDArray[np.bool_]:
    """Whether the 95% t interval of the paired differences lies above −margin: PASS, from 10 pairs on."""
    mean = (np.asarray(gained) - lost) / n
    error = np.sqrt(np.maximum((np.asarray(gained) + lost) / n - mean**2, 0) / (n - 1))
    return np.asarray(mean - t.isf(0.025, n - 1) * error > -margin)


RULES = {"gate": gate, "usual": usual, "unpaired": unpaired}
