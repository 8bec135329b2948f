"""Plans an evaluation: what a policy can decide on a suite, before anything is evaluated."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from scipy.stats import binom, norm

from harness.config.experiment import TaskConfig
from harness.config.gate import GateConfig, RuleConfig, WaiverConfig
from harness.core.console import plural
from harness.core.errors import DataError
from harness.core.layout import COMPARISON
from harness.gate.sequential import looks_at
from harness.gate.significance import clusters, counted, weighted_differences, weights
from harness.records.base import load
from harness.records.gate import Comparison, MetricComparison
from harness.stats.clustered import cluster_spread
from harness.stats.power import detectable_margin, n_for_bounded_mean, n_for_noninferiority, power_noninferiority

DISCORDANCES = (0.10, 0.20)  # shares of items that change between two models of equal ability
SPARE = 1.1
ENUMERATED = 3000
UNKNOWN_SIZE = "the size is unknown: set the task's limit or hub_dir, or give --like RUN"
Outlook = Literal["open", "weak", "stuck", "invalid"]


@dataclass(frozen=True)
class Expected:
    """A metric as an earlier comparison measured it: `n` items, the baseline's mean, the discordance (share of items
    that changed, or variance of the differences), and the design effect of its clusters.

    `bounded` says that the test is that of bounded means (`n_for_bounded_mean`), on clusters of `size` items, the
    largest of them `heaviest` times the average one.
    """

    task: str
    metric: str
    n: int
    baseline: float
    discordance: float
    design: float
    bounded: bool = False
    size: float = 1.0
    heaviest: float = 1.0

    @property
    def variance(self) -> float:
        """Of the clusters' values."""
        return self.discordance * self.design / self.size


@dataclass(frozen=True)
class PlanLine:
    """The plan of one rule on one metric. Margins are shares of the metric's range; `n` None: the size is unknown.

    By discordance, `detectable` is the smallest margin that n items can show with the policy's power, and `needed` the
    number of items for the policy's margin (1.1 times the formula's). With fewer than `min_items` nothing passes.
    `power` is the chance that an equal model passes with n items. `outlook` says what to expect, as a sentence;
    `outcome` classes it: whether the rule can be tested, can pass, and has the power that the policy asks for.
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
    outcome: Outlook = "open"


def plan(
    policy: GateConfig,
    suite: str,
    sizes: Mapping[str, int | None],
    like: Sequence[Expected] | None = None,
    metrics: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
) -> list[PlanLine]:
    """A line for every deciding rule and every metric or task of the suite that it applies to.

    `sizes` are the items of each task, `metrics` those of each metric of a task; both None or missing where unknown.
    `like` are metrics that were measured earlier. A required rule or role that the suite has no task for gets a line
    that says so.
    """
    lines: list[PlanLine] = []
    for rule in policy.rules:
        matched = list(_lines(policy, rule, suite, sizes, like, metrics))
        lines += [line for line in matched if line.role != "info"]
        if not matched and not rule.optional:
            why = f"INVALID: suite={suite} has no task with this metric, unless one of its groups holds it"
            if isinstance(rule.on_missing, WaiverConfig):
                why += f"; waived until {rule.on_missing.expires.isoformat()}"
            lines.append(PlanLine(rule.metric, rule.role, None, _limit(rule), {}, {}, 0, None, why, "invalid"))
    roles = {line.role for line in lines}
    for role in policy.require:
        if role not in roles:
            why = f"INVALID: policy {policy.name} requires a {role}, and suite={suite} measures none"
            why += "" if suite == "full" else "; use suite=full"
            lines.append(PlanLine("*/*/*", role, None, "required", {}, {}, 0, None, why, "invalid"))
    return lines


def only_invalid(policy: GateConfig, suite: str, tasks: Iterable[str]) -> list[str]:
    """Why an evaluation of these tasks can only end INVALID under the policy, whatever it measures; empty: it need not.

    `tasks` are the tasks of the suite, groups and their members alike.
    """
    waived = {rule.metric for rule in policy.rules if isinstance(rule.on_missing, WaiverConfig)}
    invalid = [line for line in plan(policy, suite, dict.fromkeys(tasks)) if line.outcome == "invalid"]
    return [
        f"{'' if line.limit == 'required' else f'rule {line.name}: '}{line.outlook.removeprefix('INVALID: ')}"
        for line in invalid
        if line.name not in waived
    ]


def _lines(
    policy: GateConfig,
    rule: RuleConfig,
    suite: str,
    sizes: Mapping[str, int | None],
    like: Sequence[Expected] | None,
    metrics: Mapping[str, Mapping[str, int]],
) -> Iterator[PlanLine]:
    known = [one for one in like or [] if fnmatchcase(f"{suite}/{one.task}/{one.metric}", rule.metric)]
    for one in known:
        size = sizes.get(one.task)
        n = one.n if size is None else min(one.n, size)
        yield _line(policy, rule, f"{suite}/{one.task}/{one.metric}", n, one)
    planned = {one.task for one in known}
    metric = rule.metric.rpartition("/")[2]
    for task, size in sizes.items():
        if task in planned:
            continue
        if own := metrics.get(task):
            for name, count in own.items():
                if fnmatchcase(key := f"{suite}/{task}/{name}", rule.metric):
                    yield _line(policy, rule, key, count, None)
        elif _may_match(rule.metric, suite, task):
            yield _line(policy, rule, f"{suite}/{task}/{metric}", size, None)


def _may_match(pattern: str, suite: str, task: str) -> bool:
    """Whether a metric of the task could match; its name is unknown, so the pattern's last part stands for it."""
    parts = pattern.split("/")
    if len(parts) == 3:
        return fnmatchcase(suite, parts[0]) and fnmatchcase(task, parts[1])
    return fnmatchcase(f"{suite}/{task}/{parts[-1]}", pattern)


def _alpha(policy: GateConfig, rule: RuleConfig, n: int | None) -> float:
    """The level at which the rule passes on all items; with interim looks, that of the last look."""
    if policy.sequential is None:
        return policy.pass_level(rule.alpha)
    return looks_at(policy, n or ENUMERATED, alpha=rule.alpha).pass_levels[-1]


def _line(policy: GateConfig, rule: RuleConfig, name: str, n: int | None, known: Expected | None) -> PlanLine:
    if rule.role == "info":
        return PlanLine(name, "info", n, "", {}, {}, 0, None, "shown for information")
    if rule.role == "guard":
        return _guard(policy, rule, name, n, known)
    return _target(policy, rule, name, n)


def _guard(policy: GateConfig, rule: RuleConfig, name: str, n: int | None, known: Expected | None) -> PlanLine:
    alpha, power = _alpha(policy, rule, n), rule.power or policy.power
    if known is not None:
        margin = rule.margin_of(known.baseline) or None
    else:  # the strictest of the margins that are not relative to the baseline
        fixed = [one.on_scale(0.0, rule.width) for one in rule.margins if one.unit != "relative"]
        margin = min(fixed, default=None)
    if margin is None:
        why = "the margin is relative to the baseline, whose mean is unknown: give --like RUN"
        return PlanLine(name, "guard", n, _limit(rule), {}, {}, 0, None, why)
    design = known.design if known else 1.0
    spreads = (min(1.0, known.discordance),) if known else DISCORDANCES
    effective_n = None if n is None else max(1, int(n / design))
    detectable, chance = {}, None
    if known is not None and known.bounded:
        return _bounded_guard(policy, rule, name, n, known, margin)
    if effective_n is not None:
        detectable = {psi: detectable_margin(effective_n, psi, alpha, power) for psi in spreads}
        chance = _power(effective_n, margin, spreads[-1], alpha)
    needed = {psi: math.ceil(SPARE * design * n_for_noninferiority(margin, psi, alpha, power)) for psi in spreads}
    min_items = max(math.ceil(design * math.log(alpha) / math.log(1 - margin)), rule.minimum_n or policy.minimum_n)
    outlook, outcome = _outlook(n, min_items, chance, power)
    shares = [f"{100 * one.size:g}% of baseline" for one in rule.margins if one.unit == "relative"]
    if shares and not known:
        outlook += f"; {' and '.join(shares)} may be stricter, and is not planned without --like RUN"
    outlook += _of_slices(rule, min_items)
    return PlanLine(name, "guard", n, _limit(rule), detectable, needed, min_items, chance, outlook, outcome)


def _bounded_guard(
    policy: GateConfig, rule: RuleConfig, name: str, n: int | None, known: Expected, margin: float
) -> PlanLine:
    """The plan of a guard on clusters, or on scores that are not right/wrong; by the normal approximation."""
    alpha, power = _alpha(policy, rule, n), rule.power or policy.power
    groups = n_for_bounded_mean(margin, known.variance, known.heaviest, alpha, power)
    fewest = n_for_bounded_mean(margin, 0.0, known.heaviest, alpha, power)
    min_items = max(math.ceil(fewest * known.size), rule.minimum_n or policy.minimum_n)
    detectable, chance = {}, None
    if n is not None:
        have = n / known.size
        added, error = known.heaviest / have, math.sqrt(known.variance / have)
        unseen = known.heaviest * (1 - math.pow(alpha, 1 / have))
        reach = added + float(norm.isf(alpha) + norm.ppf(power)) * error
        detectable = {known.discordance: min(1.0, max(unseen, reach))}
        chance = float(norm.cdf((margin - added) / error - norm.isf(alpha))) if error else float(margin > unseen)
    needed = {known.discordance: math.ceil(SPARE * groups * known.size)}
    outlook, outcome = _outlook(n, min_items, chance, power)
    outlook += _of_slices(rule, min_items)
    return PlanLine(name, "guard", n, _limit(rule), detectable, needed, min_items, chance, outlook, outcome)


def _of_slices(rule: RuleConfig, min_items: int) -> str:
    """What a slice needs; how many of the items it has is not known beforehand."""
    return f"; each slice of {' and '.join(rule.slices)} needs at least {min_items:,} items" if rule.slices else ""


def _outlook(n: int | None, min_items: int, chance: float | None, power: float) -> tuple[str, Outlook]:
    if n is None or chance is None:
        return UNKNOWN_SIZE, "open"
    if n < min_items:
        return "cannot pass: too few items, even if none of them changes", "stuck"
    if chance < 0.05:
        return "an equal model ends INCONCLUSIVE", "weak"
    if chance < power:
        return f"an equal model passes with a chance of only {chance:.0%}", "weak"
    return f"an equal model passes with a chance of {chance:.0%}", "open"


def _target(policy: GateConfig, rule: RuleConfig, name: str, n: int | None) -> PlanLine:
    """A floor needs as many items as show it without a single error; a demanded gain cannot be planned."""
    alpha = _alpha(policy, rule, n)
    limit = rule.floor if rule.floor is not None else rule.ceiling
    if limit is None:
        return PlanLine(name, "target", n, _limit(rule), {}, {}, 0, None, "a demanded gain cannot be planned")
    share = (limit - rule.range[0]) / rule.width
    share = share if rule.floor is not None else 1 - share
    perfect = math.ceil(math.log(alpha) / math.log(share)) if 0 < share < 1 else 1
    min_items = max(perfect, rule.minimum_n or policy.minimum_n)
    outcome: Outlook = "open"
    if n is None:
        outlook = UNKNOWN_SIZE
    elif share == 1 or n < min_items:
        outlook, outcome = "cannot pass: too few items, even without any error", "stuck"
    else:
        outlook = f"passes with at most {plural(_max_errors(n, share, alpha), 'error')}"
    outlook += _of_slices(rule, min_items)
    return PlanLine(name, "target", n, _limit(rule), {}, {}, min_items, None, outlook, outcome)


def _max_errors(n: int, floor: float, alpha: float) -> int:
    """The most errors of n items at which the Clopper–Pearson bound still reaches the floor."""
    errors = int(binom.ppf(alpha, n, 1 - floor))
    return errors if binom.cdf(errors, n, 1 - floor) <= alpha else errors - 1


def _power(n: int, margin: float, discordance: float, alpha: float) -> float:
    """Chance that an equal model passes: exact, or by the normal distribution where enumeration would take long."""
    if n <= ENUMERATED:
        return power_noninferiority(n, margin, discordance, alpha, 0.0)
    return float(norm.cdf(margin / math.sqrt(discordance / n) - norm.isf(alpha))) if discordance else 1.0


def _limit(rule: RuleConfig) -> str:
    margins = rule.margin if isinstance(rule.margin, list) else [rule.margin] if rule.margin else []
    limits = [f"margin {' and '.join(margins)}"] if margins else []
    limits += [f"floor {rule.floor:g}"] if rule.floor is not None else []
    limits += [f"ceiling {rule.ceiling:g}"] if rule.ceiling is not None else []
    return ", ".join(limits)


def earlier(name: str, runs: Path) -> list[Expected]:
    """The metrics of compare.json in a run or gate folder. Raises DataError where there is none."""
    for folder in (Path(name), runs / name):
        if (folder / COMPARISON).is_file():
            comparison = load(Comparison, folder / COMPARISON)
            return [_expected(metric) for metric in comparison.overall]
    raise DataError(f"{name} has no compare.json; make one with: harness compare BASELINE CANDIDATE --out DIR")


def _expected(metric: MetricComparison) -> Expected:
    right_wrong = metric.only_baseline_right is not None and metric.only_candidate_right is not None
    d = weighted_differences(metric)
    spread = min(1.0, float((d**2).mean() if right_wrong else d.var()))
    groups, variance, heaviest = cluster_spread(d, clusters(metric), weights(metric)) if metric.n > 1 else (1, 0.0, 1.0)
    size = metric.n / groups
    bounded = not counted(metric)
    design = variance * size / spread if bounded and spread else metric.n / (metric.effective_n or metric.n)
    return Expected(metric.task, metric.metric, metric.n, metric.baseline, spread, design, bounded, size, heaviest)


def task_sizes(tasks: Sequence[TaskConfig]) -> dict[str, int | None]:
    """Items of every task: by its own files and its limit; None where neither is known."""
    from harness.data.evaluation_items import domain_items

    sizes: dict[str, int | None] = {}
    for task in tasks:
        own = len(domain_items([task])) or None
        sizes[task.name] = min(own, task.limit) if own and task.limit else own or task.limit
    return sizes
