"""Sequential evaluation: error rates and items saved, beside an anytime-valid test that may look after every item."""

import math
from functools import cache

import numpy as np
import numpy.typing as npt
from common import at_least, at_most, header, row
from scipy.stats import norm

from harness.config.gate import SequentialConfig
from harness.stats.paired import mcnemar_midp_harm, noninferiority_p
from harness.stats.sequential import LookPlan, floor_at_look, paired_at_look, plan_looks

LOOKS = SequentialConfig().looks
# items, discordance, margin; the first three are 1.1 times the planned items
PLANS = [(377, 0.10, 0.05), (1047, 0.10, 0.03), (2094, 0.20, 0.03), (200, 0.05, 0.05), (200, 0.10, 0.05),
         (500, 0.20, 0.05), (1000, 0.05, 0.02)]  # fmt: skip
MODELS = {"better (+δ/2)": 0.5, "equal": 0.0, "slightly worse (−δ/2)": -0.5, "at −δ": -1.0, "much worse (−2δ)": -2.0}
TIMES = (-2, -1.5, -1, -0.5, 0, 0.5, 1)
PASS_P, HARM_P = cache(noninferiority_p), cache(mcnemar_midp_harm)
Outcome = tuple[dict[str, float], float]


def looks(replicates: int) -> None:
    print(f"Guards, {LOOKS} looks, {replicates:,} replicates; α = 0.05\n")
    header("n", "ψ", "δ", "model", "PASS", "FAIL", "INCONCLUSIVE", "items saved", "one look: PASS", "FAIL")
    for seed, (n, discordance, margin) in enumerate(PLANS):
        for model, times in MODELS.items():
            delta = times * margin
            if abs(delta) <= discordance:
                found, saved = paired(plan_looks(n, LOOKS, 0.05, 0.05), discordance, delta, margin, replicates, seed)
                plain, _ = paired(plan_looks(n, 1, 0.05, 0.05), discordance, delta, margin, replicates, 50 + seed)
                row(n, discordance, margin, model, *_judged(found, times, seed < 3), f"{saved:.0%}",
                    f"{plain['PASS']:.2%}", f"{plain['FAIL']:.2%}")  # fmt: skip
    print()
    floors(replicates)
    betting(min(replicates, 2000))


def _judged(found: dict[str, float], times: float, planned: bool) -> list[str]:
    passed, failed = f"{found['PASS']:.2%}", f"{found['FAIL']:.2%}"
    if times == -1:
        passed = at_most(found["PASS"], 0.055)
    if times == 0:
        failed = at_most(found["FAIL"], 0.055)
        passed = at_least(found["PASS"], 0.9) if planned else passed
    return [passed, failed, f"{found['INCONCLUSIVE']:.2%}"]


def paired(plan: LookPlan, discordance: float, delta: float, margin: float, replicates: int, seed: int) -> Outcome:
    """Share of each verdict, and of items not evaluated."""
    generator = np.random.default_rng(1000 + seed)
    rates = [(discordance - delta) / 2, (discordance + delta) / 2, 1 - discordance]
    flips, before = np.zeros((replicates, 2), dtype=np.int64), 0
    shares, evaluated = {"PASS": 0.0, "FAIL": 0.0, "INCONCLUSIVE": 0.0}, 0.0
    for look, count in enumerate(plan.counts):
        flips = flips + generator.multinomial(count - before, rates, size=len(flips))[:, :2]
        before = count
        tables, index = np.unique(flips, axis=0, return_inverse=True)
        decided = np.array([paired_at_look(plan, look, b, c, margin) or "" for b, c in tables.tolist()])[index.ravel()]
        for name in shares:
            shares[name] += float(np.sum(decided == name)) / replicates
        evaluated += count * float(np.sum(decided != "")) / replicates
        flips = flips[decided == ""]
    return shares, 1 - evaluated / plan.counts[-1]


def floors(replicates: int) -> None:
    print(f"Floors, {LOOKS} looks\n")
    header("n", "floor", "true rate", "PASS", "FAIL", "INCONCLUSIVE", "items saved")
    for n, floor in ((200, 0.9), (500, 0.95)):
        plan = plan_looks(n, LOOKS, 0.05, 0.05)
        for rate in (floor + 0.7 * (1 - floor), floor + 0.3 * (1 - floor), floor, floor - 0.05, floor - 0.2):
            found, saved = _floor(plan, floor, rate, replicates)
            passed, failed = f"{found['PASS']:.2%}", f"{found['FAIL']:.2%}"
            if rate == floor:
                passed, failed = at_most(found["PASS"], 0.055), at_most(found["FAIL"], 0.055)
            row(n, floor, f"{rate:.3g}", passed, failed, f"{found['INCONCLUSIVE']:.2%}", f"{saved:.0%}")
    print()


def _floor(plan: LookPlan, floor: float, rate: float, replicates: int) -> Outcome:
    generator = np.random.default_rng(2000)
    right, before = np.zeros(replicates, dtype=np.int64), 0
    shares, evaluated = {"PASS": 0.0, "FAIL": 0.0, "INCONCLUSIVE": 0.0}, 0.0
    for look, count in enumerate(plan.counts):
        right = right + generator.binomial(count - before, rate, size=len(right))
        before = count
        counts, index = np.unique(right, return_inverse=True)
        decided = np.array([floor_at_look(plan, look, int(k), floor) or "" for k in counts])[index]
        for name in shares:
            shares[name] += float(np.sum(decided == name)) / replicates
        evaluated += count * float(np.sum(decided != "")) / replicates
        right = right[decided == ""]
    return shares, 1 - evaluated / plan.counts[-1]


def betting(replicates: int) -> None:
    print(f"The alternative, not used: betting (Waudby-Smith & Ramdas 2024), a look after every item; {replicates:,} "
          "replicates\n")  # fmt: skip
    header("n", "ψ", "δ", "model", "PASS", "FAIL", "items saved")
    for n, discordance, margin in PLANS[:3]:
        for model, times in MODELS.items():
            passed, failed, saved = _bet(n, discordance, times * margin, margin, replicates)
            row(n, discordance, margin, model, f"{passed:.1%}", f"{failed:.1%}", f"{saved:.0%}")
    print()


def _bet(n: int, discordance: float, delta: float, margin: float, replicates: int) -> tuple[float, float, float]:
    """Two test martingales, of Δ ≤ −δ and of Δ ≥ 0; the first to reach 1/α decides."""
    generator = np.random.default_rng(3000)
    rates = np.cumsum([(discordance - delta) / 2, (discordance + delta) / 2])
    luck = generator.random((n, replicates))
    d = np.where(luck < rates[0], -1.0, np.where(luck < rates[1], 1.0, 0.0))
    passes, fails = _crossing(d + margin, margin), _crossing(-d, 0.0)
    ended = np.minimum(np.minimum(passes, fails), n)
    return float(np.mean(passes < fails)), float(np.mean(fails < passes)), float(1 - ended.mean() / n)


def _crossing(gains: npt.NDArray[np.float64], margin: float) -> npt.NDArray[np.int64]:
    """Items until the wealth of a bettor on a positive mean reaches 20; n + 1 where it never does.

    Stakes by the predictable plug-in for a fixed horizon, from the variance seen before each item.
    """
    n = len(gains)
    items = np.arange(1, n + 1)[:, None]
    mean = (np.cumsum(gains, axis=0) + 0.5 * margin) / (items + 1)
    variance = (0.25 + np.cumsum((gains - mean) ** 2, axis=0)) / (items + 1)
    before = np.vstack([np.full((1, gains.shape[1]), 0.25), variance[:-1]])
    stake = np.minimum(np.sqrt(2 * math.log(20) / (before * n)), 0.75 / (1 - margin))
    wealth = np.cumsum(np.log1p(stake * gains), axis=0)
    reached = wealth >= math.log(20)
    return np.where(reached.any(axis=0), reached.argmax(axis=0) + 1, n + 1)


def expected(replicates: int) -> None:
    """Expected items as shares of the fixed n for power 0.9, beside Wald's SPRT; the looks end at 1.1 times that n.

    A task that stops because nothing can decide it any more counts in full here.
    """
    header("ψ", "δ", "rule", *(f"{times:+g}δ" for times in TIMES), "PASS at 0", "FAIL at 0", "PASS at −δ")
    for n, discordance, margin in PLANS[:2]:
        fixed = (norm.isf(0.05) + norm.isf(0.1)) ** 2 * discordance / margin**2
        row(discordance, margin, "SPRT", *(f"{_sprt(discordance, t * margin, margin) / fixed:.2f}" for t in TIMES),
            "", "", "")  # fmt: skip
        for number in (4, 10, 20):
            plan = plan_looks(n, number, 0.05, 0.05)
            found = {t: _stopped(plan, discordance, t * margin, margin, replicates) for t in TIMES}
            row(discordance, margin, f"{number} looks", *(f"{found[t][2] / fixed:.2f}" for t in TIMES),
                f"{found[0][0]:.1%}", f"{found[0][1]:.1%}", f"{found[-1][0]:.1%}")  # fmt: skip


def _stopped(
    plan: LookPlan, discordance: float, delta: float, margin: float, replicates: int
) -> tuple[float, float, float]:
    """Shares of PASS and FAIL, and the mean number of items."""
    generator = np.random.default_rng(3000)
    rates = [(discordance - delta) / 2, (discordance + delta) / 2, 1 - discordance]
    flips, before, passed, failed, items = np.zeros((replicates, 2), dtype=np.int64), 0, 0, 0, 0
    for look, count in enumerate(plan.counts):
        flips = flips + generator.multinomial(count - before, rates, size=len(flips))[:, :2]
        items += (count - before) * len(flips)
        before = count
        tables, index = np.unique(flips, axis=0, return_inverse=True)
        passes = np.array([PASS_P(b, c, count, margin) <= plan.pass_levels[look] for b, c in tables.tolist()])
        fails = np.array([HARM_P(b, c) <= plan.fail_levels[look] for b, c in tables.tolist()]) & ~passes
        passes, fails = passes[index.ravel()], fails[index.ravel()]
        passed, failed = passed + int(passes.sum()), failed + int(fails.sum())
        flips = flips[~(passes | fails)]
        if not len(flips):
            break
    return passed / replicates, failed / replicates, items / replicates


def _sprt(discordance: float, delta: float, margin: float, replicates: int = 5000) -> float:
    """Mean items of Wald's SPRT of Δ = −margin against 0, errors 0.05, with the discordance known."""
    steps = int(80 * discordance**2 / margin**2)
    lost = np.random.default_rng(4000).random((replicates, steps)) < (discordance - delta) / (2 * discordance)
    ratio = np.where(lost, math.log1p(margin / discordance), math.log1p(-margin / discordance)).cumsum(axis=1)
    outside = np.abs(ratio) >= math.log(19)
    return float(np.mean(np.where(outside.any(axis=1), outside.argmax(axis=1) + 1, steps))) / discordance
