"""Decides: a policy and a comparison give a verdict, with its reasons and notes."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime

from harness.config.gate import GateConfig, WaiverConfig
from harness.core.errors import ExitCode
from harness.core.store import sha256_json
from harness.gate.invalid import invalid_reasons, waived_as_missing
from harness.gate.policy import is_shown, rules_for
from harness.gate.rules import SHARED, Levels, RuledMetric, apply_rule, change, facts
from harness.gate.significance import fail_p
from harness.records.gate import EXIT_CODES, Comparison, MetricComparison, MetricVerdict, Verdict, VerdictName, Waiver
from harness.stats.proportion import benjamini_hochberg, holm


def repeat_check_notes(metrics: Sequence[MetricComparison], flip_shares: Mapping[str, float]) -> list[str]:
    """A note for each right/wrong metric whose answers differ no more than those of one model evaluated twice.

    `flip_shares` is an evaluation's `aa_flip_share`, by task. Notes decide nothing: a verdict rests on the paired test.
    """
    notes = []
    for metric in metrics:
        share = flip_shares.get(metric.task)
        if share is None or metric.only_baseline_right is None or metric.only_candidate_right is None:
            continue
        differing = metric.only_baseline_right + metric.only_candidate_right
        if 0 < differing <= share * metric.n:
            notes.append(
                f"{metric.key}: {differing} of {metric.n} answers differ ({differing / metric.n:.1%}), "
                f"no more than between two runs of the same model ({share:.1%}): this may be noise"
            )
    return notes


def decide(policy: GateConfig, comparison: Comparison, today: date | None = None) -> Verdict:
    """The verdict on a comparison on the day `today`, in UTC (waivers expire).

    Evidence that cannot be compared or trusted is INVALID; nothing is tested then.
    """
    today = today or datetime.now(UTC).date()
    if reasons := invalid_reasons(policy, comparison, today):
        return _verdict(policy, comparison, "INVALID", reasons, [], waived_as_missing(policy, comparison, today), today)
    ruled = _ruled(policy, comparison)
    judged = [apply_rule(policy, one, levels) for one, levels in zip(ruled, _levels(policy, ruled), strict=True)]
    waivers = waived_as_missing(policy, comparison, today)
    lines: list[MetricVerdict] = []
    for one, line in zip(ruled, judged, strict=True):
        granted = one.rule.on_inconclusive
        if line.verdict == "INCONCLUSIVE" and isinstance(granted, WaiverConfig):
            expired = today > granted.expires
            waivers.append(
                Waiver(rule=one.rule.metric, used_for="inconclusive", expired=expired, **granted.model_dump())
            )
            line = line if expired else line.model_copy(update={"waived": granted.name})
        lines.append(line)
    worst, reasons = _overall(lines)
    return _verdict(policy, comparison, worst, reasons, [*lines, *_shown(policy, comparison)], waivers, today)


def _ruled(policy: GateConfig, comparison: Comparison) -> list[RuledMetric]:
    """Every deciding rule with every metric it applies to; against further baselines only guards are tested."""
    main = comparison.metrics
    ruled = [RuledMetric(rule, metric, None, comparison) for metric in main for rule in rules_for(policy, metric)]
    ruled += [
        RuledMetric(rule, metric, other.baseline.label, other)
        for other in comparison.others
        for metric in other.metrics
        for rule in rules_for(policy, metric)
        if rule.role == "guard"
    ]
    order = {id(rule): index for index, rule in enumerate(policy.rules)}
    return sorted(ruled, key=lambda one: order[id(one.rule)])


def _levels(policy: GateConfig, ruled: Sequence[RuledMetric]) -> list[Levels]:
    """The level for each p-value, and the p-value of harm adjusted over all guards (Holm).

    With interim looks the levels are those of the look at which the task ended, and all guards share the level of harm,
    as at each look. A baseline that is added later makes that level stricter for all guards. The levels hold at
    whichever look a task ends, so error rates hold even where another baseline made the task stop.
    """
    guards = [one for one in ruled if one.rule.role == "guard"]
    raw = {id(one): fail_p(one.metric, one.rule.width) for one in guards}
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    return [Levels.of(policy, one, len(guards), raw.get(id(one)), adjusted.get(id(one))) for one in ruled]


def _overall(lines: Sequence[MetricVerdict]) -> tuple[VerdictName, list[str]]:
    """The worst verdict that is not waived; waivers alone pass nothing."""
    counted = [line for line in lines if line.waived is None]
    worst: VerdictName = max(
        (line.verdict for line in counted), key=lambda name: ExitCode(EXIT_CODES[name]).severity, default="INCONCLUSIVE"
    )
    if not counted:
        return worst, ["no metric passed: every gated metric is inconclusive and waived"]
    return worst, [line.reason for line in counted if line.verdict == worst]


def _shown(policy: GateConfig, comparison: Comparison) -> list[MetricVerdict]:
    """Metrics of info rules, and slices. The p-values of harm of the slices are adjusted over all slices."""
    shown = [m for m in comparison.metrics if is_shown(policy, m) and not rules_for(policy, m)]
    slices = [metric for metric in shown if metric.slice != "all"]
    adjusted = dict(zip(map(id, slices), benjamini_hochberg([fail_p(m, _width(m)) for m in slices]), strict=True))
    lines = []
    for metric in shown:
        name = metric.key if metric.slice == "all" else f"{metric.key} [{metric.slice}]"
        width = _width(metric)
        reason = f"{change(metric, name, width)}; shown for information; {facts(metric, width)}"
        p_harm = adjusted.get(id(metric))
        if p_harm is not None and p_harm <= policy.alpha_fail:
            reason += f"; a significant fall, allowing for the number of slices (adjusted p = {p_harm:.3g})"
        measured = {name: getattr(metric, name) for name in MetricVerdict.model_fields if name in SHARED}
        lines.append(
            MetricVerdict(
                **measured,
                role="info",
                margin=None,
                floor=None,
                p_noninferior=None,
                p_harm=p_harm,
                verdict="PASS",
                reason=reason,
                n_needed=None,
            )
        )
    return lines


def _width(metric: MetricComparison) -> float:
    """The length of the range that a metric without a rule is taken to have: of the values that were seen, or 1."""
    share = metric.lowest >= 0 and metric.highest <= 1
    return 1.0 if share else metric.highest - metric.lowest or 1.0


def _verdict(
    policy: GateConfig,
    comparison: Comparison,
    verdict: VerdictName,
    reasons: Sequence[str],
    metrics: Sequence[MetricVerdict],
    waivers: Sequence[Waiver],
    today: date,
) -> Verdict:
    return Verdict(
        verdict=verdict,
        exit_code=EXIT_CODES[verdict],
        policy=policy.name,
        reasons=list(reasons),
        baseline=comparison.baseline,
        candidate=comparison.candidate,
        metrics=list(metrics),
        policy_sha256=sha256_json(policy.model_dump(mode="json")),
        others=[other.baseline for other in comparison.others],
        waivers=list(waivers),
        notes=[*_selection_note(policy), *_notes(comparison, waivers)],
        forgetting=comparison.forgetting,
        decided_on=today,
    )


def _selection_note(policy: GateConfig) -> list[str]:
    """What the number of candidates does to the levels; empty for a single candidate."""
    if policy.candidates == 1:
        return []
    return [
        f"one of {policy.candidates} candidates: each pass is tested at alpha {policy.pass_level():.2g} "
        f"({policy.alpha_pass:g} / {policy.candidates}), so the best of them passes no more easily than a single one"
    ]


def _notes(comparison: Comparison, waivers: Sequence[Waiver]) -> list[str]:
    """Notes that every output shows beside the reasons: waivers, early stops, repeat checks."""
    notes = [
        f"waiver '{used.name}' for {used.rule} ({used.used_for}): {used.reason}; "
        + ("expired on" if used.expired else "valid until")
        + f" {used.expires.isoformat()}"
        for used in waivers
    ]
    notes += [
        f"task {task}: evaluation stopped after {early.items} of {early.planned} items, as the policy allows"
        for task, early in sorted(comparison.stopped.items())
    ]
    notes += [
        f"task {task}: an identical model flips {share:.1%} of the items (repeat check)"
        for task, share in sorted(comparison.flip_share.items())
    ]
    return notes + repeat_check_notes(comparison.overall, comparison.flip_share)
