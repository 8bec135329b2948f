"""Proposes a policy for what two evaluations measured: a guard for every metric that can be guarded."""

import glob
import json
import math

from harness.gate.significance import counted, untestable_reason
from harness.records.gate import Comparison, MetricComparison
from harness.stats.power import detectable_margin

ALPHA, POWER = 0.05, 0.9
POINTS = (1, 2, 3, 5, 8, 10)  # margins that people agree on
USUAL = 5
SMALLEST_DISCORDANCE = 0.05  # two models that differ on fewer items are too alike to plan with


def proposed_policy(comparison: Comparison, name: str) -> str:
    """A policy as YAML, with a comment on every rule. No rule looks at which model is better.

    A metric between 0 and 1 becomes a guard, with the smallest usual margin that its items can show. A group of tasks
    is guarded as one, and its members are shown. Other metrics are shown, since only a person knows their range.
    """
    overall = [metric for metric in comparison.metrics if metric.slice == "all"]
    members = {stratum.task for metric in overall for stratum in metric.strata or []}
    lines = [_rule(metric, members) for metric in sorted(overall, key=lambda metric: metric.key)]
    return "\n".join(
        [
            "# Proposed from the metrics of two evaluations. Read every margin: it is the drop that you tolerate.",
            "# A rule with role info is shown and decides nothing. Formats: docs/gate_policy.md",
            f"name: {json.dumps(name)}",
            "require: [guard]",
            "rules:",
            *lines,
            '  - {metric: "*/*/*", role: info, optional: true}  # whatever else is measured is shown',
            "",
        ]
    )


def _rule(metric: MetricComparison, members: set[str]) -> str:
    pattern = json.dumps(f"*/{glob.escape(metric.task)}/{glob.escape(metric.metric)}")
    if metric.task in members:
        return f"  - {{metric: {pattern}, role: info, optional: true}}  # a member of a group, which is guarded as one"
    if why := _unguarded(metric):
        return f"  - {{metric: {pattern}, role: info, optional: true}}  # {why}"
    if not counted(metric):
        why = f"{metric.n:,} items; scores that are not right/wrong, and clusters, need more than right/wrong ones"
        return f"  - {{metric: {pattern}, role: guard, margin: {USUAL} points}}  # {why}"
    differing = ((metric.only_baseline_right or 0) + (metric.only_candidate_right or 0)) / metric.n
    shown = 100 * detectable_margin(metric.n, max(SMALLEST_DISCORDANCE, differing), ALPHA, POWER)
    margin = next((points for points in POINTS if points >= shown), math.ceil(shown))
    if margin >= 100:
        return f"  - {{metric: {pattern}, role: info, optional: true}}  # {metric.n} items are too few to guard"
    return (
        f"  - {{metric: {pattern}, role: guard, margin: {margin} points}}  # {metric.n:,} items show {shown:.1f} points"
    )


def _unguarded(metric: MetricComparison) -> str | None:
    """Why a metric cannot be guarded without a person's decision; None where it can."""
    if metric.lowest < 0 or metric.highest > 1:
        return (
            f"values from {metric.lowest:.4g} to {metric.highest:.4g}: to guard it, set role: guard, "
            "range: [lowest, highest] and a margin in units"
        )
    if (why := untestable_reason(metric)) is not None:
        return why
    return None
