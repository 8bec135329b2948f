"""What a policy can decide on a suite, before anything is evaluated."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from scipy.stats import binom, norm

from harness.config.experiment import Config
from harness.config.gate import GateConfig, RuleConfig, WaiverConfig
from harness.core.errors import DataError
from harness.core.layout import COMPARISON
from harness.gate.sequential import looks_at
from harness.gate.significance import differences
from harness.records.base import load
from harness.records.gate import Comparison, MetricComparison
from harness.stats.power import detectable_margin, n_for_noninferiority, power_noninferiority

DISCORDANCES = (0.10, 0.20)  # shares of items that change between two models of equal ability
SPARE = 1.1
ENUMERATED = 3000


@dataclass(frozen=True)
class Expected:
    """A metric as an earlier comparison found it: items, mean, discordance (variance of differences), design effect."""

    task: str
    metric: str
    n: int
    baseline: float
    discordance: float
    design: float


@dataclass(frozen=True)
class PlanLine:
    """One rule on one metric. Margins are shares of its range; `n` None: the size is not known here.

    `detectable` is the smallest margin that n items show with the policy's power, `needed` the items for the policy's
    margin (both by discordance, 1.1 times the formula's), `min_items` the items without which nothing can pass, `power`
    the chance that an equal model passes at n.
    """

    name: str
    role: str
    n: int | None
    limit: str
    detectable: dict[float, float]
    needed: dict[float, int]
    min_items: int
    power: float | None
    outlook: str


def plan(
    policy: GateConfig, suite: str, sizes: Mapping[str, int | None], like: Sequence[Expected] | None = None
) -> list[PlanLine]:
    """A line for every deciding rule and every metric or task of the suite that it speaks for.

    A rule or role that the policy demands and the suite has no task for gets a line that tells so.
    """
    lines: list[PlanLine] = []
    for rule in policy.rules:
        found = list(_lines(policy, rule, suite, sizes, like))
        lines += [line for line in found if line.role != "info"]
        lines += [] if found or rule.optional else [_unmet(rule)]
    roles = {line.role for line in lines}
    return lines + [_without(role) for role in policy.require if role not in roles]


def _unmet(rule: RuleConfig) -> PlanLine:
    waiver = rule.on_missing
    told = "no task of the suite has this metric: INVALID, unless it is of a part of a group"
    if isinstance(waiver, WaiverConfig):
        told += f"; waived until {waiver.expires.isoformat()}"
    return PlanLine(rule.metric, rule.role, None, _limit(rule), {}, {}, 0, None, told)


def _without(role: str) -> PlanLine:
    told = f"the policy demands a {role} and the suite has none: INVALID, unless it is of a part of a group"
    return PlanLine("*/*/*", role, None, "required", {}, {}, 0, None, told)


def _lines(
    policy: GateConfig, rule: RuleConfig, suite: str, sizes: Mapping[str, int | None], like: Sequence[Expected] | None
) -> Iterator[PlanLine]:
    known = [one for one in like or [] if fnmatchcase(f"{suite}/{one.task}/{one.metric}", rule.metric)]
    for one in known:
        size = sizes.get(one.task)
        n = one.n if size is None else min(one.n, size)
        yield _line(policy, rule, f"{suite}/{one.task}/{one.metric}", n, one)
    told = {one.task for one in known}
    metric = rule.metric.rpartition("/")[2]
    for task, size in sizes.items():
        if task not in told and _may_match(rule.metric, suite, task):
            yield _line(policy, rule, f"{suite}/{task}/{metric}", size, None)


def _may_match(pattern: str, suite: str, task: str) -> bool:
    """Whether a metric of the task could match: its name is not known, so the pattern's last part stands for it."""
    parts = pattern.split("/")
    if len(parts) == 3:
        return fnmatchcase(suite, parts[0]) and fnmatchcase(task, parts[1])
    return fnmatchcase(f"{suite}/{task}/{parts[-1]}", pattern)


def _alpha(policy: GateConfig, rule: RuleConfig, n: int | None) -> float:
    """The level at which the rule passes when all items are in; with interim looks, that of the last."""
    if policy.sequential is None:
        return rule.alpha or policy.alpha_pass
    return looks_at(policy, n or ENUMERATED, alpha=rule.alpha).pass_levels[-1]


def _line(policy: GateConfig, rule: RuleConfig, name: str, n: int | None, known: Expected | None) -> PlanLine:
    if rule.role == "info":
        return PlanLine(name, "info", n, "", {}, {}, 0, None, "is shown")
    if rule.role == "guard":
        return _guard(policy, rule, name, n, known)
    return _target(policy, rule, name, n)


def _guard(policy: GateConfig, rule: RuleConfig, name: str, n: int | None, known: Expected | None) -> PlanLine:
    alpha, power = _alpha(policy, rule, n), rule.power or policy.power
    margin = _margin(rule, known)
    if margin is None:
        told = "the margin depends on the baseline alone: give --like RUN"
        return PlanLine(name, "guard", n, _limit(rule), {}, {}, 0, None, told)
    design = known.design if known else 1.0
    spreads = (min(1.0, known.discordance),) if known else DISCORDANCES
    worth = None if n is None else max(1, int(n / design))
    detectable = {} if worth is None else {psi: detectable_margin(worth, psi, alpha, power) for psi in spreads}
    needed = {psi: math.ceil(SPARE * design * n_for_noninferiority(margin, psi, alpha, power)) for psi in spreads}
    min_items = max(math.ceil(design * math.log(alpha) / math.log(1 - margin)), rule.minimum_n or policy.minimum_n)
    chance = None if worth is None else _power(worth, margin, spreads[-1], alpha)
    outlook = _outlook(n, min_items, chance, power) + ("" if known else _left_out(rule)) + _of_slices(rule, min_items)
    return PlanLine(name, "guard", n, _limit(rule), detectable, needed, min_items, chance, outlook)


def _of_slices(rule: RuleConfig, min_items: int) -> str:
    """How many of the items are in a slice is not known beforehand."""
    return f"; each slice of {' and '.join(rule.slices)} needs {min_items:,} items at least" if rule.slices else ""


def _left_out(rule: RuleConfig) -> str:
    shares = [f"{100 * margin.size:g}% of baseline" for margin in rule.margins if margin.unit == "relative"]
    told = f"; {' and '.join(shares)} may be stricter, and is not planned without --like RUN"
    return told if shares else ""


def _margin(rule: RuleConfig, known: Expected | None) -> float | None:
    """The strictest margin; without a known baseline, of those that need none."""
    if known is not None:
        return rule.margin_of(known.baseline) or None
    fixed = [margin.on_scale(0.0, rule.width) for margin in rule.margins if margin.unit != "relative"]
    return min(fixed, default=None)


def _outlook(n: int | None, min_items: int, chance: float | None, power: float) -> str:
    if n is None or chance is None:
        return "size unknown: set a limit, or give hub_dir or --like"
    if n < min_items:
        return "can only end INCONCLUSIVE or FAIL: too few items even without any flip"
    if chance < 0.05:
        return "will end INCONCLUSIVE for an equal model"
    if chance < power:
        return f"an equal model passes with chance {chance:.0%} only"
    return f"decides: an equal model passes with chance {chance:.0%}"


def _target(policy: GateConfig, rule: RuleConfig, name: str, n: int | None) -> PlanLine:
    """A floor needs so many items that one without an error shows it; a demanded gain has no plan."""
    alpha = _alpha(policy, rule, n)
    limit = rule.floor if rule.floor is not None else rule.ceiling
    if limit is None:
        return PlanLine(name, "target", n, _limit(rule), {}, {}, 0, None, "a demanded gain is not planned")
    share = (limit - rule.range[0]) / rule.width
    share = share if rule.floor is not None else 1 - share
    perfect = math.ceil(math.log(alpha) / math.log(share)) if 0 < share < 1 else 1
    min_items = max(perfect, rule.minimum_n or policy.minimum_n)
    if n is None:
        outlook = "size unknown: set a limit, or give hub_dir or --like"
    elif share == 1 or n < min_items:
        outlook = "can only end INCONCLUSIVE or FAIL: too few items even without any error"
    else:
        outlook = f"passes with at most {_errors(n, share, alpha)} errors"
    return PlanLine(name, "target", n, _limit(rule), {}, {}, min_items, None, outlook + _of_slices(rule, min_items))


def _errors(n: int, floor: float, alpha: float) -> int:
    """The most errors of n items at which the Clopper–Pearson bound still reaches the floor."""
    most = int(binom.ppf(alpha, n, 1 - floor))
    return most if binom.cdf(most, n, 1 - floor) <= alpha else most - 1


def _power(n: int, margin: float, discordance: float, alpha: float) -> float:
    """Chance that an equal model passes: exact, or by the normal distribution where enumeration takes long."""
    if n <= ENUMERATED:
        return power_noninferiority(n, margin, discordance, alpha)
    return float(norm.cdf(margin / math.sqrt(discordance / n) - norm.isf(alpha))) if discordance else 1.0


def _limit(rule: RuleConfig) -> str:
    margins = rule.margin if isinstance(rule.margin, list) else [rule.margin] if rule.margin else []
    told = [f"margin {' and '.join(margins)}"] if margins else []
    told += [f"floor {rule.floor:g}"] if rule.floor is not None else []
    return ", ".join([*told, *([f"ceiling {rule.ceiling:g}"] if rule.ceiling is not None else [])])


def earlier(name: str, runs: Path) -> list[Expected]:
    """The metrics of compare.json in a run or gate folder."""
    for folder in (Path(name), runs / name):
        if (folder / COMPARISON).is_file():
            found = load(Comparison, folder / COMPARISON)
            return [_expected(metric) for metric in found.overall]
    raise DataError(f"{name}: no compare.json there; make one with: harness compare BASELINE CANDIDATE --out DIR")


def _expected(metric: MetricComparison) -> Expected:
    if metric.only_baseline_right is not None and metric.only_candidate_right is not None:
        spread = (metric.only_baseline_right + metric.only_candidate_right) / metric.n
    else:
        spread = min(1.0, float(differences(metric).var()))
    design = metric.n / (metric.effective_n or metric.n)
    return Expected(metric.task, metric.metric, metric.n, metric.baseline, spread, design)


def task_sizes(config: Config) -> dict[str, int | None]:
    """Items of every task of the configuration: its own files, its limit, or None where neither says."""
    from harness.data.evaluation_items import domain_items

    sizes: dict[str, int | None] = {}
    for task in config.tasks:
        own = len(domain_items([task])) or None
        sizes[task.name] = min(own, task.limit) if own and task.limit else own or task.limit
    return sizes
