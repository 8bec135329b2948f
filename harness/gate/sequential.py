"""Interim looks: stops the evaluation of a task once its verdict is decided. The policy fixes the looks beforehand."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.config.experiment import SuiteConfig
from harness.config.gate import GateConfig, RuleConfig
from harness.gate.policy import rules_of
from harness.records.gate import MetricComparison
from harness.stats.sequential import LookPlan, floor_at_look, paired_at_look, plan_looks


@dataclass(frozen=True)
class LookProgress:
    """One metric of a task after the first `done` of its `planned` items in seeded order.

    `lost` and `gained` count items that only the baseline or only the candidate got right so far, `right` those
    that the candidate got right; `baseline` is the baseline's mean over all planned items. A metric that is not
    right/wrong (`binary` false) never decides early, but counts as a guard. `slices` are the names of the slices that
    the planned items have.
    """

    task: str
    metric: str
    planned: int
    done: int
    lost: int
    gained: int
    right: int
    baseline: float
    binary: bool = True
    slices: tuple[str, ...] = ()

    @classmethod
    def of(cls, metric: MetricComparison, planned: int, slices: tuple[str, ...] = ()) -> "LookProgress":
        return cls(
            task=metric.task,
            metric=metric.metric,
            planned=planned,
            done=metric.n,
            lost=metric.only_baseline_right or 0,
            gained=metric.only_candidate_right or 0,
            right=round(metric.candidate * metric.n),
            baseline=metric.reference,
            binary=metric.only_baseline_right is not None,
            slices=slices,
        )


def first_items(documents: Iterable[int], seed: int, task: str, count: int | None = None) -> list[int]:
    """The doc_ids of a task in the seeded order of their evaluation: the first `count`, or all."""
    order = sorted(documents)
    random.Random(f"{seed}:{task}:order").shuffle(order)
    return order[:count]


def needs_all(rule: RuleConfig, binary: bool) -> str | None:
    """Why a rule cannot be decided before all items are evaluated; None where it can."""
    reasons = {
        "it has clusters": rule.cluster is not None,
        "it has slices": bool(rule.slices),
        "its scores are not right/wrong": not binary or rule.range != (0.0, 1.0),
        "it demands a gain": rule.role == "target" and rule.margin is not None,
        "it has a ceiling": rule.ceiling is not None,
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def looks_at(policy: GateConfig, planned: int, guards: int = 1, alpha: float | None = None) -> LookPlan:
    """The numbers of items at which a task's verdict is looked at, and the levels there.

    The guards share the level of harm (Bonferroni), since their order is not known before the end. A rule's own `alpha`
    counts for both levels where it is stricter than the policy's.
    """
    looks = policy.sequential.looks if policy.sequential else 1
    passing, failing = (min(level, alpha or level) for level in (policy.alpha_pass, policy.alpha_fail))
    return plan_looks(planned, looks, policy.pass_level(passing), failing / max(guards, 1))


def decided(
    policy: GateConfig,
    suite: SuiteConfig,
    counts: Iterable[LookProgress],
    groups: Mapping[str, Sequence[str]] | None = None,
    further: Sequence[Iterable[LookProgress]] = (),
) -> set[str]:
    """Tasks whose verdict is final at this look under every deciding rule, so that they can stop.

    `further` is the progress against each further baseline. Guards are tested against all baselines and share one level
    of harm, together with guards on slices; a task stops only when it is decided against each baseline. Never decided
    early are tasks without a deciding rule, tasks of a group that has one, and rules that need all items (clusters,
    slices, demanded gains, scores other than right/wrong).
    """
    if policy.sequential is None:
        return set()
    baselines = [_DecidingRules.of(policy, suite, counts, groups or {})]
    baselines += [_DecidingRules.of(policy, suite, other, groups or {}).guards_alone() for other in further]
    guards = sum(one.guards for one in baselines)
    done: dict[str, list[bool]] = {}
    for one in baselines:
        for progress, rules in one.rules:
            done.setdefault(progress.task, []).extend(settled(policy, rule, progress, guards) for rule in rules)
    pooled = {task for one in baselines for task in one.pooled}
    return {task for task, settled_rules in done.items() if settled_rules and all(settled_rules) and task not in pooled}


@dataclass(frozen=True)
class _DecidingRules:
    """The deciding rules against one baseline.

    `rules` are those of tasks, with the task's progress, `sliced` those of slices, `above` those of groups that will be
    compared. `pooled` are the tasks of groups that have a deciding rule.
    """

    rules: Sequence[tuple[LookProgress, Sequence[RuleConfig]]]
    sliced: Sequence[Sequence[RuleConfig]]
    above: Sequence[Sequence[RuleConfig]]
    pooled: frozenset[str]

    @classmethod
    def of(
        cls, policy: GateConfig, suite: SuiteConfig, counts: Iterable[LookProgress], groups: Mapping[str, Sequence[str]]
    ) -> "_DecidingRules":
        progress = list(counts)
        measured = {(one.task, one.metric) for one in progress}
        above = {
            (group, one.metric): rules_of(policy, f"{suite.name}/{group}/{one.metric}", "all")
            for group, tasks in groups.items()
            for one in progress
            if one.task in tasks
        }
        return cls(
            rules=[(one, rules_of(policy, f"{suite.name}/{one.task}/{one.metric}", "all")) for one in progress],
            sliced=[
                rules_of(policy, f"{suite.name}/{one.task}/{one.metric}", name)
                for one in progress
                for name in one.slices
            ],
            above=[  # a group is compared where all its tasks have the metric
                rules
                for (group, metric), rules in above.items()
                if all((task, metric) in measured for task in groups[group])
            ],
            pooled=frozenset(task for (group, _), rules in above.items() if rules for task in groups[group]),
        )

    @property
    def guards(self) -> int:
        return sum(map(len, map(_guards, [*(rules for _, rules in self.rules), *self.sliced, *self.above])))

    def guards_alone(self) -> "_DecidingRules":
        """The same without targets: further baselines are for guards only."""
        rules = [(progress, _guards(rules)) for progress, rules in self.rules]
        sliced, above = ([_guards(named) for named in part] for part in (self.sliced, self.above))
        return _DecidingRules(rules, sliced, above, self.pooled)


def _guards(rules: Iterable[RuleConfig]) -> list[RuleConfig]:
    return [rule for rule in rules if rule.role == "guard"]


def settled(policy: GateConfig, rule: RuleConfig, one: LookProgress, guards: int) -> bool:
    """Whether the items so far decide a rule's verdict, with the level of harm shared by so many guards."""
    plan = looks_at(policy, one.planned, guards if rule.role == "guard" else 1, rule.alpha)
    if needs_all(rule, one.binary) or one.done not in plan.counts or one.done < (rule.minimum_n or policy.minimum_n):
        return False
    look = plan.counts.index(one.done)
    if rule.role == "target":
        floor = rule.floor or 0.0
        return 0 < floor < 1 and floor_at_look(plan, look, one.right, floor) is not None
    margin = rule.margin_of(one.baseline) or 0.0
    return 0 < margin < 1 and paired_at_look(plan, look, one.lost, one.gained, margin) is not None
