"""The verdict: what passes, what fails, what cannot be told, and what may never pass."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from evaluation_folders import Folder, answers, compare_both, guard, one_task, policy, samples

from harness.cli import main
from harness.config.gate import GateConfig, RuleConfig
from harness.gate.comparison import compare
from harness.gate.verdict import decide
from harness.records.base import load
from harness.records.gate import Comparison, MetricVerdict, Verdict
from harness.results.evidence import read_evidence

GOOD = answers(180, 200)


def test_a_line_of_the_verdict_reads_as_a_sentence(tmp_path: Path) -> None:
    (reason,) = verdict_of(tmp_path, (41, 12, 1319), policy(guard(margin="1.5 points"))).reasons
    assert reason == (
        "smoke/quiz/acc fell by 2.2 points; the policy tolerates 1.5 points; 95% interval −3.4 to −1.2 points; "
        "41 of 1319 items got worse, 12 got better"
    )


def paired(lost: int, gained: int, of: int) -> tuple[list[float], list[float]]:
    """Marks of baseline and candidate with so many flips; half of the others are right."""
    rest = [float(index % 2) for index in range(of - lost - gained)]
    return [1.0] * lost + [0.0] * gained + rest, [0.0] * lost + [1.0] * gained + rest


def judged(path: Path, sides: Sequence[Folder], gate: GateConfig) -> Verdict:
    """The verdict on [baseline, candidate]."""
    baseline, candidate = (read_evidence(side.write(path / name)) for side, name in zip(sides, "ab", strict=True))
    return decide(gate, compare(baseline, candidate))


def verdict_of(path: Path, flips: tuple[int, int, int], gate: GateConfig | None = None) -> Verdict:
    before, after = paired(*flips)
    return judged(path, [one_task(before), one_task(after)], gate or policy())


def only(verdict: Verdict) -> MetricVerdict:
    (metric,) = verdict.metrics
    return metric


def test_no_worse_passes(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, (8, 9, 500))
    assert (verdict.verdict, verdict.exit_code) == ("PASS", 0)
    assert (only(verdict).p_noninferior or 0.0) <= 0.05
    assert "loss of 5.0 points or more is ruled out" in verdict.reasons[0]


def test_a_clear_loss_fails(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, (60, 10, 500))
    assert (verdict.verdict, verdict.exit_code) == ("FAIL", 10)
    assert "smoke/quiz/acc fell by 10.0 points" in verdict.reasons[0]
    assert "60 of 500 items got worse, 10 got better" in verdict.reasons[0]


def test_too_few_items_decide_nothing_and_tell_how_many_would(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, (3, 2, 60), policy(guard(margin="2 points")))
    assert (verdict.verdict, verdict.exit_code) == ("INCONCLUSIVE", 11)
    needed = only(verdict).n_needed
    assert needed is not None
    assert needed > 60
    assert f"needs about {needed:,} items in all ({needed - 60:,} more)" in verdict.reasons[0]


def test_no_change_on_few_items_is_no_proof(tmp_path: Path) -> None:
    assert verdict_of(tmp_path, (0, 0, 20)).verdict == "INCONCLUSIVE"


def test_a_tolerated_regression_passes_and_is_flagged(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, (20, 2, 1000))
    assert verdict.verdict == "PASS"
    assert "tolerated regression" in verdict.reasons[0]


def test_a_candidate_that_lost_everything_fails(tmp_path: Path) -> None:
    assert verdict_of(tmp_path, (200, 0, 200)).verdict == "FAIL"


@pytest.mark.parametrize(("guards", "expected"), [(1, "FAIL"), (3, "INCONCLUSIVE")])
def test_more_guards_do_not_make_a_false_alarm_likelier(tmp_path: Path, guards: int, expected: str) -> None:
    before, after = paired(12, 4, 100)
    names = [f"quiz{number}" for number in range(guards)]
    sides = [Folder({name: samples(values) for name in names}) for values in (before, after)]
    assert judged(tmp_path, sides, policy(guard("*/quiz*/acc"))).verdict == expected


@pytest.mark.parametrize(
    ("right", "floor", "expected"),
    [(200, 0.95, "PASS"), (195, 0.95, "INCONCLUSIVE"), (150, 0.95, "FAIL"), (190, 0.95, "INCONCLUSIVE")],
)
def test_a_floor(tmp_path: Path, right: int, floor: float, expected: str) -> None:
    gate = policy(RuleConfig(metric="*/quiz/acc", role="target", floor=floor), require=["target"])
    verdict = judged(tmp_path, [one_task([0.0] * 200), one_task(answers(right, 200))], gate)
    assert verdict.verdict == expected
    assert f"{right / 200:.1%} on 200 items" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("flips", "expected"), [((2, 80, 200), "PASS"), ((5, 30, 200), "INCONCLUSIVE"), ((5, 5, 200), "FAIL")]
)
def test_a_demanded_improvement(tmp_path: Path, flips: tuple[int, int, int], expected: str) -> None:
    gate = policy(RuleConfig(metric="*/quiz/acc", role="target", margin="10 points"), require=["target"])
    assert verdict_of(tmp_path, flips, gate).verdict == expected


def test_a_demanded_improvement_on_few_items_counts_what_may_be_unseen(tmp_path: Path) -> None:
    """Every item gains 11 points, of 10 demanded: one total failure in a hundred items would undo it."""
    before = scores(40, 0.5, 1)
    sides = [one_task(before), one_task([value + 0.11 for value in before])]
    gate = policy(RuleConfig(metric="*/quiz/acc", role="target", margin="10 points"), require=["target"])
    assert judged(tmp_path / "little", sides, gate).verdict == "INCONCLUSIVE"
    sides = [one_task(before), one_task([value + 0.4 for value in before])]
    assert judged(tmp_path / "much", sides, gate).verdict == "PASS"


def test_the_worst_metric_decides_and_gives_its_reason(tmp_path: Path) -> None:
    sides = [Folder({"quiz": samples(GOOD), "other": samples(values)}) for values in paired(60, 0, 200)]
    verdict = judged(tmp_path, sides, policy(guard("*/quiz/acc"), guard("*/other/acc")))
    assert verdict.verdict == "FAIL"
    assert [metric.verdict for metric in verdict.metrics] == ["PASS", "FAIL"]
    assert all("other" in reason for reason in verdict.reasons)


def test_information_never_decides(tmp_path: Path) -> None:
    sides = [Folder({"quiz": samples(GOOD), "other": samples(values)}) for values in paired(150, 0, 200)]
    verdict = judged(tmp_path, sides, policy(guard("*/quiz/acc"), RuleConfig(metric="*/other/acc", role="info")))
    assert verdict.verdict == "PASS"
    assert len(verdict.metrics) == 2


OPTIONAL = RuleConfig(metric="*/absent/acc", role="guard", margin="5 points", optional=True)


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        (policy(guard("*/absent/acc")), "no metric matches the guard rule"),
        (policy(guard(), guard("*/absent/acc")), "it was not measured"),
        (policy(OPTIONAL), "no metric was tested"),
        (policy(OPTIONAL, require=[]), "no metric was tested"),
        (policy(guard(), require=["guard", "target"]), "requires a target"),
    ],
)
def test_what_was_not_measured_is_invalid(tmp_path: Path, gate: GateConfig, told: str) -> None:
    verdict = judged(tmp_path, [one_task(GOOD), one_task(GOOD)], gate)
    assert (verdict.verdict, verdict.exit_code) == ("INVALID", 12)
    assert told in "\n".join(verdict.reasons)


def test_a_missing_optional_metric_is_allowed(tmp_path: Path) -> None:
    assert judged(tmp_path, [one_task(GOOD), one_task(GOOD)], policy(guard(), OPTIONAL)).verdict == "PASS"


def test_no_statistics_on_incomparable_evidence(tmp_path: Path) -> None:
    verdict = judged(tmp_path, [one_task(GOOD), one_task(GOOD, contract="d" * 64)], policy())
    assert (verdict.verdict, verdict.metrics) == ("INVALID", [])
    assert "prompt contracts differ" in verdict.reasons[0]


def test_an_optional_guard_cannot_vanish_with_its_group(tmp_path: Path) -> None:
    """The group falls by 30 points; if its parts differ between the sides, that must not go unseen."""
    before, after = paired(60, 0, 200)
    sides = [
        Folder({"quiz": samples(GOOD), "part": samples(values)}, groups=groups)
        for values, groups in ((before, {"all": ["part"]}), (after, {}))
    ]
    gate = policy(guard(), guard("*/all/acc", optional=True))
    assert judged(tmp_path, sides, gate).verdict != "PASS"


def scores(count: int, scale: float, seed: int) -> list[float]:
    return [scale * random.Random(f"{seed}:{index}").random() for index in range(count)]


def test_scores_between_right_and_wrong(tmp_path: Path) -> None:
    before = scores(300, 1.0, 1)
    same = judged(tmp_path / "same", [one_task(before), one_task(before)], policy())
    worse = judged(tmp_path / "worse", [one_task(before), one_task([0.6 * value for value in before])], policy())
    assert (same.verdict, worse.verdict) == ("PASS", "FAIL")
    assert only(worse).only_baseline_right is None


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_few_or_large_scores_never_pass_a_guard(tmp_path: Path, count: int, scale: float) -> None:
    """Points out of 100, as BLEU has them, or a single item: undecided or invalid, not a crash."""
    sides = [one_task(scores(count, scale, seed)) for seed in (1, 2)]
    assert judged(tmp_path, sides, policy()).verdict in ("INCONCLUSIVE", "INVALID")


@pytest.mark.parametrize("scale", [5.0, 100.0])
def test_a_floor_for_shares_refuses_other_scores(tmp_path: Path, scale: float) -> None:
    gate = policy(RuleConfig(metric="*/quiz/acc", role="target", floor=0.9), require=["target"])
    sides = [one_task(scores(60, scale, seed)) for seed in (1, 2)]
    assert judged(tmp_path, sides, gate).verdict == "INVALID"


@pytest.mark.parametrize("values", [GOOD, scores(1, 1.0, 1), scores(60, 1.0, 1)])
def test_records_can_be_read_back(tmp_path: Path, values: list[float]) -> None:
    sides = [read_evidence(one_task(values).write(tmp_path / name)) for name in "ab"]
    comparison = compare_both(sides)
    comparison.save(tmp_path / "compare.json")
    assert load(Comparison, tmp_path / "compare.json") == comparison


def test_the_same_evidence_gives_the_same_verdict(tmp_path: Path) -> None:
    verdicts = [
        judged(tmp_path / name, [one_task(scores(90, 1.0, 1)), one_task(scores(90, 1.0, 2))], policy()) for name in "xy"
    ]
    assert verdicts[0] == verdicts[1]


POLICY = """\
name: quick
require: [guard]
rules: [{metric: "*/quiz/acc", role: guard, margin: 5 points}]
"""


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`harness gate a b` on two folders written first."""
    monkeypatch.chdir(tmp_path)
    Path("quick.yaml").write_text(POLICY)

    def call(flips: tuple[int, int, int], *options: str) -> int:
        before, after = paired(*flips)
        for name, values in (("a", before), ("b", after)):
            one_task(values).write(tmp_path / name)
        return main(["gate", "a", "b", "policy=quick.yaml", *options])

    return call


@pytest.mark.parametrize(
    ("flips", "code", "last"), [((8, 9, 500), 0, "PASS"), ((60, 0, 500), 10, "FAIL"), ((1, 1, 20), 11, "INCONCLUSIVE")]
)
def test_exit_code_and_last_line(
    gate: Callable[..., int], capsys: pytest.CaptureFixture[str], flips: tuple[int, int, int], code: int, last: str
) -> None:
    assert gate(flips) == code
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_out_holds_what_other_tools_read(gate: Callable[..., int]) -> None:
    assert gate((8, 9, 500), "--out", "out") == 0
    verdict = json.loads(Path("out/verdict.json").read_text())
    assert (verdict["schema"], verdict["verdict"], verdict["exit_code"]) == (1, "PASS", 0)
    assert {"compare.json", "summary.md", "junit.xml"} <= {path.name for path in Path("out").iterdir()}


def test_an_earlier_pass_does_not_outlive_damaged_evidence(gate: Callable[..., int], tmp_path: Path) -> None:
    assert gate((8, 9, 500), "--out", "out") == 0
    with (tmp_path / "b" / "samples_quiz.jsonl").open("a") as file:
        file.write("\n")
    assert main(["gate", "a", "b", "policy=quick.yaml", "--out", "out"]) == 12
    path = Path("out/verdict.json")
    assert not path.exists() or json.loads(path.read_text())["verdict"] == "INVALID"


def test_an_anchor_and_a_comparison_with_a_policy(gate: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert gate((8, 9, 500)) == 0
    one_task([1.0] * 500, label="anchor").write(Path("anchor"))
    assert main(["gate", "a", "b", "policy=quick.yaml", "--anchor", "anchor"]) == 10
    assert "against anchor fell by" in capsys.readouterr().out
    assert main(["compare", "a", "b", "policy=quick.yaml", "--anchor", "anchor", "--out", "out"]) == 0
    written = {path.name for path in Path("out").iterdir()}
    assert {"compare.json", "verdict.json", "summary.md", "junit.xml"} <= written
    assert "(against anchor)" in capsys.readouterr().out


def test_a_comparison_without_a_policy_has_no_verdict(gate: Callable[..., int]) -> None:
    gate((8, 9, 500))
    assert main(["compare", "a", "b", "--out", "out"]) == 0
    assert {path.name for path in Path("out").iterdir()} == {"compare.json", "summary.md"}
    assert "smoke/quiz/acc" in Path("out/summary.md").read_text()


def test_a_gate_without_evaluations_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate"]) == 2
    assert "harness gate BASELINE CANDIDATE" in capsys.readouterr().err
