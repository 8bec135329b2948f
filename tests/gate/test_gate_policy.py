"""Policies: margins with units, limits by direction, waivers, minimum sizes, rules that can never apply."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import Folder, answers, compare_both, guard, one_task, policy, samples

from harness.config.experiment import validate
from harness.config.gate import GateConfig, RuleConfig, WaiverConfig
from harness.core.errors import ConfigError, UsageError
from harness.gate.verdict import decide
from harness.records.gate import Verdict
from harness.results.evidence import read_evidence
from harness.workflows.compose import gate_values
from harness.workflows.gate import compare_evaluations

GOOD = answers(180, 200)
SHIPPED = ["clinical", "default", "release", "smoke", "strict"]
TODAY = date(2030, 6, 15)
WAIVER: dict[str, Any] = {"name": "small suite", "reason": "the large one comes in July", "expires": TODAY}


def judged(path: Path, sides: list[Folder], gate: GateConfig) -> Verdict:
    evidence = [read_evidence(side.write(path / name), gate.fields) for side, name in zip(sides, "ab", strict=True)]
    return decide(gate, compare_both(evidence, gate), TODAY)


def reasons(verdict: Verdict) -> str:
    return "\n".join(verdict.reasons)


@pytest.mark.parametrize("name", ['a "quoted" field', "back\\slash", "two\nlines", ""])
def test_fields_that_no_document_can_have(name: str) -> None:
    rule = {"metric": "*", "role": "guard", "margin": "2 points", "cluster": name}
    with pytest.raises(ConfigError, match=r"(?s)cluster: .*is not a field name.*slice_key: .*is not a field name"):
        validate(GateConfig, {"name": "p", "slice_key": name, "rules": [rule]})


@pytest.mark.parametrize(
    "margin", [0.05, 5, "5", "0.05", "5 percent", "points", "0 points", "100 points", "-1 points", ["2 points", 3]]
)
def test_a_margin_needs_a_unit_and_a_size(margin: Any) -> None:
    with pytest.raises(ConfigError, match=r"rules\.0"):
        validate(GateConfig, {"name": "p", "rules": [{"metric": "*", "role": "guard", "margin": margin}]})


@pytest.mark.parametrize(
    ("margin", "share"),
    [("5 points", 0.05), ("10% of baseline", 0.06), ("0.02 units", 0.02), (["5 points", "5% of baseline"], 0.03)],
)
def test_the_strictest_margin_counts(margin: Any, share: float) -> None:
    assert guard(margin=margin).margin_of(0.6) == pytest.approx(share)


def test_points_are_of_the_metrics_range() -> None:
    rule = guard(margin="2 points", range=(0, 100))
    assert rule.margin_of(40) == pytest.approx(0.02)
    assert guard(margin="2 units", range=(0, 100)).margin_of(40) == pytest.approx(0.02)


GUARD: dict[str, Any] = {"metric": "*/a/acc", "role": "guard", "margin": "1 points"}


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ([{"metric": "*", "role": "info"}, GUARD], "never applies"),
        ([GUARD | {"metric": "*/a/*"}, GUARD], "never applies"),
        ([{"metric": "*", "role": "target", "floor": 0.5, "direction": "lower"}], "ceiling, not a floor"),
        ([{"metric": "*", "role": "target", "ceiling": 0.5}], "direction: lower"),
        ([{"metric": "*", "role": "target", "floor": 2.0}], "within range"),
        ([GUARD | {"on_missing": {"name": "x", "reason": "y"}}], "expires"),
        ([GUARD | {"margn": "1 points"}], "Did you mean 'margin'"),
    ],
)
def test_rules_that_make_no_sense_are_told(rules: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        validate(GateConfig, {"name": "p", "rules": rules})


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_policies_are_read(name: str) -> None:
    gate = validate(GateConfig, gate_values(name))
    assert {rule.role for rule in gate.rules} >= {"guard", "target"}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_metric_that_no_shipped_policy_knows_is_shown(tmp_path: Path, name: str) -> None:
    gate = validate(GateConfig, gate_values(name) | {"require": [], "baselines": []})
    known = ["arc_easy", "clinical_note", "over_behaviour"]
    metrics = {"arc_easy": "acc", "clinical_note": "format", "over_behaviour": "no_leak", "mine": "rouge"}
    sides = [Folder({task: samples([1.0] * 200, metric) for task, metric in metrics.items()}) for _ in "ab"]
    gate.rules[:] = [rule for rule in gate.rules if rule.metric.split("/")[1] in known or rule.role == "info"]
    gate.rules[:] = [
        rule for rule in gate.rules if rule.role == "info" or rule.metric.split("/")[2] in metrics.values()
    ]
    roles = {line.task: line.role for line in judged(tmp_path, sides, gate).metrics}
    assert roles == {"arc_easy": "guard", "clinical_note": "target", "over_behaviour": "target", "mine": "info"}


@pytest.mark.parametrize("task", ["general_mmlu", "piqa", "lambada_openai", "ifeval", "truthfulqa_mc2"])
def test_the_clinic_tolerates_no_more_loss_of_ability_than_default(task: str) -> None:
    guards = {
        name: [rule for rule in validate(GateConfig, gate_values(name)).rules if f"/{task}/" in rule.metric]
        for name in ("default", "clinical")
    }
    assert guards["clinical"] == guards["default"] != []


def test_strict_tolerates_less_than_default_and_smoke_more() -> None:
    margins = {}
    for name in SHIPPED:
        gate = validate(GateConfig, gate_values(name))
        margins[name] = next(rule.margin_of(0.9) for rule in gate.rules if rule.metric == "*/general_smoke/acc")
    assert (margins["strict"] or 1) < (margins["default"] or 1) < (margins["smoke"] or 1)


def test_release_is_default_against_production_and_an_anchor() -> None:
    release, default = (validate(GateConfig, gate_values(name)) for name in ("release", "default"))
    assert release.baselines == ["production", "anchor"]
    assert release == default.model_copy(update={"name": "release", "baselines": release.baselines})


def test_an_anchor_that_nobody_set_is_told_with_how_to_set_it(tmp_path: Path) -> None:
    sides = [str(one_task(GOOD, label=name).write(tmp_path / name)) for name in ("base", "mine")]
    one_task(GOOD).write(tmp_path / "production")
    with pytest.raises(UsageError, match=r"anchor has no evaluation.*harness promote RUN --alias anchor"):
        compare_evaluations(sides[0], sides[1], tmp_path, policy(baselines=["production", "anchor"]))


def test_a_deciding_rule_without_metrics_of_its_own_is_told(tmp_path: Path) -> None:
    rules = [RuleConfig(metric="*/qui*/acc", role="info"), guard("*/*z/acc"), guard("*/other/acc")]
    sides = [Folder({"quiz": samples(GOOD), "other": samples(GOOD)}) for _ in "ab"]
    verdict = judged(tmp_path, sides, policy(*rules))
    assert verdict.verdict == "INVALID"
    assert "the guard rule '*/*z/acc' decides nothing: the info rule '*/qui*/acc' before it" in reasons(verdict)


def test_guard_and_target_speak_for_one_metric(tmp_path: Path) -> None:
    gate = policy(guard(), RuleConfig(metric="*/quiz/acc", role="target", floor=0.99))
    verdict = judged(tmp_path, [one_task(GOOD), one_task(GOOD)], gate)
    assert [(line.role, line.verdict) for line in verdict.metrics] == [("guard", "PASS"), ("target", "FAIL")]


def test_an_optional_rule_is_due_where_its_task_was_evaluated(tmp_path: Path) -> None:
    gate = policy(guard(), guard("*/quiz/f1", optional=True))
    verdict = judged(tmp_path, [one_task(GOOD), one_task(GOOD)], gate)
    assert verdict.verdict == "INVALID"
    assert "no metric matches the guard rule '*/quiz/f1'" in reasons(verdict)


def test_an_optional_guard_cannot_vanish_with_a_group_that_was_evaluated(tmp_path: Path) -> None:
    gate = policy(guard(), guard("*/group/acc", optional=True))
    evidence = [read_evidence(one_task(GOOD).write(tmp_path / name)) for name in "ab"]
    comparison = compare_both(evidence, gate)
    verdicts = [
        decide(gate, comparison.model_copy(update={"evaluated": names}), TODAY)
        for names in (["quiz"], ["quiz", "group"])
    ]
    assert [verdict.verdict for verdict in verdicts] == ["PASS", "INVALID"]
    assert "no metric matches the guard rule '*/group/acc'" in reasons(verdicts[1])


@pytest.mark.parametrize(("expires", "verdict"), [(TODAY, "PASS"), (date(2030, 6, 14), "INCONCLUSIVE")])
def test_an_inconclusive_metric_can_be_waived_until_a_day(tmp_path: Path, expires: date, verdict: str) -> None:
    waiver = WaiverConfig(**(WAIVER | {"expires": expires}))
    sides = [Folder({"quiz": samples(GOOD), "few": samples(answers(9, 10))}) for _ in "ab"]
    found = judged(tmp_path, sides, policy(guard(), guard("*/few/acc", on_inconclusive=waiver)))
    assert found.verdict == verdict
    assert [line.waived for line in found.metrics] == [None, "small suite" if verdict == "PASS" else None]
    assert found.waivers[0].expired == (verdict != "PASS")
    assert "small suite" in found.notes[0]
    assert expires.isoformat() in found.notes[0]


def test_a_waiver_alone_passes_nothing(tmp_path: Path) -> None:
    waiver = WaiverConfig(**WAIVER)
    few = one_task(answers(9, 10))
    verdict = judged(tmp_path, [few, one_task(answers(9, 10))], policy(guard(on_inconclusive=waiver)))
    assert verdict.verdict == "INCONCLUSIVE"
    assert "no metric passed" in reasons(verdict)


def test_a_waiver_never_covers_a_failure(tmp_path: Path) -> None:
    waiver = WaiverConfig(**WAIVER)
    sides = [one_task(GOOD), one_task(answers(120, 200))]
    assert judged(tmp_path, sides, policy(guard(on_inconclusive=waiver, on_missing=waiver))).verdict == "FAIL"


@pytest.mark.parametrize(("expires", "verdict"), [(TODAY, "PASS"), (date(2030, 6, 14), "INVALID")])
def test_a_missing_metric_can_be_waived_until_a_day(tmp_path: Path, expires: date, verdict: str) -> None:
    waiver = WaiverConfig(**(WAIVER | {"expires": expires}))
    gate = policy(guard(), guard("*/absent/acc", on_missing=waiver))
    found = judged(tmp_path, [one_task(GOOD), one_task(GOOD)], gate)
    assert found.verdict == verdict
    assert [used.used_for for used in found.waivers] == ["missing"]


def test_fewer_items_than_the_policy_demands_never_pass(tmp_path: Path) -> None:
    verdict = judged(tmp_path, [one_task(GOOD), one_task(GOOD)], policy(guard(minimum_n=201)))
    assert verdict.verdict == "INCONCLUSIVE"
    assert "requires at least 201 items" in reasons(verdict)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (guard(direction="lower"), "the policy says that lower is better, the task says higher"),
        (guard(range=(0.2, 1.0)), "outside the range"),
        (guard(margin="5% of baseline"), "0 of the range"),
    ],
)
def test_a_rule_that_does_not_fit_the_metric_is_invalid(tmp_path: Path, rule: RuleConfig, told: str) -> None:
    before = [0.0] * 200 if "baseline" in str(rule.margin) else GOOD
    verdict = judged(tmp_path, [one_task(before), one_task(GOOD)], policy(rule))
    assert verdict.verdict == "INVALID"
    assert told in reasons(verdict)


def test_of_a_metric_where_less_is_better_true_values_are_shown(tmp_path: Path) -> None:
    lower = {"quiz": {"lower_is_better": ["acc"]}}
    errors = [one_task(answers(right, 200), identities=lower) for right in (20, 60)]
    verdict = judged(tmp_path / "worse", errors, policy(guard()))
    assert verdict.verdict == "FAIL"
    (line,) = verdict.metrics
    assert [line.baseline, line.candidate, line.delta] == pytest.approx([0.1, 0.3, -0.2])
    assert "rose by 20.0 points, which is worse" in reasons(verdict)
    ceiling = RuleConfig(metric="*/quiz/acc", role="target", direction="lower", ceiling=0.2)
    gate = policy(ceiling, require=["target"])
    assert judged(tmp_path / "high", errors, gate).verdict == "FAIL"
    assert judged(tmp_path / "low", errors[::-1], gate).verdict == "PASS"


def test_scores_out_of_100_are_judged_on_their_range(tmp_path: Path) -> None:
    scores = [float(20 + (7 * number) % 50) for number in range(300)]
    worse = [value - 10 for value in scores]
    gate = policy(guard(margin="3 units", range=(0, 100)))
    assert judged(tmp_path / "same", [one_task(scores), one_task(scores)], gate).verdict == "PASS"
    verdict = judged(tmp_path / "worse", [one_task(scores), one_task(worse)], gate)
    assert verdict.verdict == "FAIL"
    assert "fell by 10; the policy tolerates 3" in reasons(verdict)


def test_a_slice_that_a_rule_demands_cannot_be_missing(tmp_path: Path) -> None:
    rows = [row | {"doc": {"slice": "urgent" if row["doc_id"] % 2 else "calm"}} for row in samples(GOOD)]
    sides = [Folder({"quiz": rows}) for _ in "ab"]
    absent = guard("*/absent/acc", slices=["minors"], optional=True)
    assert judged(tmp_path / "there", sides, policy(guard(slices=["urg*"]), absent)).verdict == "PASS"
    verdict = judged(tmp_path / "missing", sides, policy(guard(slices=["urg*", "minors"]), absent))
    assert verdict.verdict == "INVALID"
    assert verdict.reasons == [
        "policy test: no slice matches 'minors' of the guard rule '*/quiz/acc'; the slices are: calm, urgent "
        "(from the field 'slice')"
    ]


def test_a_baseline_that_nobody_compared_with_is_invalid(tmp_path: Path) -> None:
    sides = [one_task(answers(right, 100), label=name) for name, right in (("base", 90), ("candidate", 91))]
    verdict = judged(tmp_path, sides, policy(guard(margin="30 points"), baselines=["production"]))
    assert verdict.verdict == "INVALID"
    assert "was not compared with it" in reasons(verdict)
