"""Interim looks: the order is fixed, a decided task may stop, and anything else that is short is refused."""

from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import Folder, answers, compare_both, guard, policy, sample

from harness.config import GateConfig, RuleConfig, SuiteConfig, TaskConfig
from harness.config_gate import SequentialConfig
from harness.gate.comparison import compare
from harness.gate.evidence import read_evidence
from harness.gate.sequential import Progress, decided, first_items, looks_at
from harness.gate.verdict import decide
from harness.records import Verdict

N = 400
SUITE = SuiteConfig(name="smoke", tasks=[TaskConfig(name="quiz")])


def looking(*rules: RuleConfig, **changes: Any) -> GateConfig:
    return policy(*rules, sequential=SequentialConfig(looks=4), **changes)


def progress(done: int, lost: int, gained: int, **changes: Any) -> Progress:
    values: dict[str, Any] = {"task": "quiz", "metric": "acc", "planned": N, "right": done - lost, "baseline": 1.0}
    return Progress(**(values | {"done": done, "lost": lost, "gained": gained} | changes))


@pytest.mark.parametrize(
    ("one", "stops"),
    [
        (progress(200, 0, 0), True),  # no flip at all
        (progress(200, 60, 0), True),  # a collapse
        (progress(200, 12, 8), False),  # not yet
        (progress(150, 0, 0), False),  # no look there
        (progress(200, 0, 0, binary=False), False),
        (progress(200, 0, 0, task="unruled"), False),
    ],
)
def test_a_task_stops_at_a_look_that_decides(one: Progress, stops: bool) -> None:
    assert decided(looking(), SUITE, [one]) == ({one.task} if stops else set())


def test_nothing_stops_without_looks_in_the_policy() -> None:
    assert decided(policy(), SUITE, [progress(200, 0, 0)]) == set()


def test_every_deciding_metric_of_a_task_must_be_decided() -> None:
    gate = looking(guard("*/quiz/*"))
    both = [progress(200, 0, 0), progress(200, 12, 8, metric="acc_norm")]
    assert decided(gate, SUITE, both[:1]) == {"quiz"}
    assert decided(gate, SUITE, both) == set()


def test_a_task_stops_only_when_it_is_decided_against_every_baseline() -> None:
    same, open_ = progress(200, 0, 0), progress(200, 12, 8)
    assert decided(looking(), SUITE, [same], further=[[same], [same]]) == {"quiz"}
    assert decided(looking(), SUITE, [same], further=[[same], [open_]]) == set()
    assert decided(looking(), SUITE, [open_], further=[[same]]) == set()


def test_baselines_share_the_level_of_harm() -> None:
    """Each counts, though the numbers are the same; targets are held against the first alone."""
    lost = progress(200, 8, 0)
    assert decided(looking(), SUITE, [lost]) == {"quiz"}
    assert decided(looking(), SUITE, [lost], further=[[lost]] * 5) == set()
    target = looking(RuleConfig(metric="*/quiz/acc", role="target", floor=0.8), require=["target"])
    assert decided(target, SUITE, [progress(200, 0, 0, right=198)], further=[[progress(200, 60, 0)]]) == {"quiz"}


def test_the_verdict_shares_it_among_the_same_guards(tmp_path: Path) -> None:
    """With as many baselines as at the looks; one that is added later leaves the level of the look as it was."""
    marks = [1.0] * N
    for number in FIRST[:8]:
        marks[number] = 0.0
    folders = {"a": Folder({"quiz": [sample(n, 1.0) for n in range(N)]}), "b": stopped_folder(FIRST, 200, marks)}
    evidence = [read_evidence(folder.write(tmp_path / name)) for name, folder in folders.items()]
    comparison = compare_both(evidence, looking())
    labels = [f"anchor-{number}" for number in range(5)]
    others = [
        comparison.model_copy(update={"baseline": comparison.baseline.model_copy(update={"label": label})})
        for label in labels
    ]
    anchored = comparison.model_copy(update={"others": others})
    for policy_, expected in ((looking(), "FAIL"), (looking(baselines=labels), "INCONCLUSIVE")):
        verdict = decide(policy_, anchored)
        assert next(line for line in verdict.metrics if line.against is None).verdict == expected


def test_a_part_of_a_group_that_decides_runs_whole() -> None:
    gate = looking(guard("*/all/acc"), guard("*/quiz/acc"))
    one = progress(200, 0, 0)
    assert decided(gate, SUITE, [one], {"all": ["quiz"]}) == set()
    assert decided(gate, SUITE, [one]) == {"quiz"}


def test_a_floor_that_is_surely_reached_stops() -> None:
    gate = looking(RuleConfig(metric="*/quiz/acc", role="target", floor=0.8), require=["target"])
    assert decided(gate, SUITE, [progress(200, 0, 0, right=198)]) == {"quiz"}
    assert decided(gate, SUITE, [progress(200, 0, 0, right=164)]) == set()


def test_the_order_is_seeded_and_holds_every_item_once() -> None:
    order = first_items(range(50), 7, "quiz")
    assert sorted(order) == list(range(50))
    assert order == first_items(reversed(range(50)), 7, "quiz")
    assert first_items(range(50), 7, "quiz", 10) == order[:10]
    assert order != first_items(range(50), 8, "quiz") != first_items(range(50), 8, "other")


def stopped_folder(items: list[int], stopped_at: int, marks: list[float], **changes: Any) -> Folder:
    identity = {"planned": N, "stopped_at": stopped_at, "order_seed": 3} | changes
    rows = [sample(number, marks[number]) for number in sorted(items)]
    return Folder({"quiz": rows}, identities={"quiz": identity})


def judged(path: Path, candidate: Folder, gate: GateConfig) -> Verdict:
    baseline = Folder({"quiz": [sample(number, 1.0) for number in range(N)]})
    evidence = [read_evidence(folder.write(path / name)) for folder, name in ((baseline, "a"), (candidate, "b"))]
    return decide(gate, compare_both(evidence, gate))


@pytest.mark.parametrize(("right", "expected"), [(N, "PASS"), (200, "FAIL")])
def test_an_early_stop_is_judged_at_its_look(tmp_path: Path, right: int, expected: str) -> None:
    first = first_items(range(N), 3, "quiz", 200)
    verdict = judged(tmp_path, stopped_folder(first, 200, answers(right, N)), looking())
    assert verdict.verdict == expected
    (line,) = verdict.metrics
    assert (line.n, line.look) == (200, 2)
    assert "decided at look 2" in line.reason
    assert "stopped after 200 of 400 items" in verdict.notes[0]


def test_a_whole_evaluation_under_looks_is_judged_at_the_last(tmp_path: Path) -> None:
    undeclared = Folder({"quiz": [sample(number, 1.0) for number in range(N)]})
    for name, whole in (("a", undeclared), ("b", stopped_folder(list(range(N)), N, answers(N, N)))):
        verdict = judged(tmp_path / name, whole, looking())
        assert (verdict.verdict, verdict.metrics[0].look, verdict.notes) == ("PASS", 4, [])


def test_a_loss_that_stopped_a_task_is_judged_as_it_was_at_the_look(tmp_path: Path) -> None:
    """Further baselines add guards to the verdict; the whole task is held to the level of its look."""
    gate = looking()
    assert decided(gate, SUITE, [progress(200, 8, 0)]) == {"quiz"}
    marks = [1.0] * N
    for number in FIRST[:8]:
        marks[number] = 0.0
    folders = {"a": Folder({"quiz": [sample(n, 1.0) for n in range(N)]}), "b": stopped_folder(FIRST, 200, marks)}
    evidence = [read_evidence(folder.write(tmp_path / name)) for name, folder in folders.items()]
    comparison = compare_both(evidence, gate)
    anchored = comparison.model_copy(update={"others": [comparison] * 5})
    whole = next(line for line in decide(gate, anchored).metrics if line.against is None)
    assert (whole.verdict, whole.look) == ("FAIL", 2)


@pytest.mark.parametrize(("alpha", "expected"), [(None, "PASS"), (0.0002, "INCONCLUSIVE")])
def test_a_rules_own_alpha_holds_under_looks(tmp_path: Path, alpha: float | None, expected: str) -> None:
    whole = Folder({"quiz": [sample(number, float(number >= 6)) for number in range(N)]})
    assert judged(tmp_path, whole, looking(guard(alpha=alpha))).verdict == expected


def test_a_rules_own_alpha_stops_later() -> None:
    one = progress(100, 0, 0)
    assert decided(looking(guard(margin="9 points")), SUITE, [one]) == {"quiz"}
    assert decided(looking(guard(margin="9 points", alpha=0.0001)), SUITE, [one]) == set()


FIRST = first_items(range(N), 3, "quiz", 200)


@pytest.mark.parametrize(
    ("items", "stopped_at", "changes", "told"),
    [
        (list(range(200)), 200, {}, "not the first 200 of the order"),
        (FIRST[:-1], 200, {}, "not the first 200 of the order"),
        (FIRST, 200, {"order_seed": 4}, "not the first 200 of the order"),
        (FIRST, 200, {"planned": 500}, "500 items were planned, the baseline has 400"),
        (FIRST, 200, {"order_seed": None}, "nobody knows"),
        (first_items(range(N), 3, "quiz", 150), 150, {}, "the policy looks after 100, 200, 300, 400"),
    ],
)
def test_a_stop_that_was_not_the_rule_is_invalid(
    tmp_path: Path, items: list[int], stopped_at: int, changes: dict[str, Any], told: str
) -> None:
    verdict = judged(tmp_path, stopped_folder(items, stopped_at, [1.0] * N, **changes), looking())
    assert verdict.verdict == "INVALID"
    assert told in "\n".join(verdict.reasons)


def test_a_policy_without_looks_refuses_an_early_stop(tmp_path: Path) -> None:
    verdict = judged(tmp_path, stopped_folder(FIRST, 200, [1.0] * N), policy())
    assert verdict.verdict == "INVALID"
    assert "allows no interim looks" in verdict.reasons[0]


def test_a_short_baseline_is_refused(tmp_path: Path) -> None:
    short = read_evidence(stopped_folder(FIRST, 200, [1.0] * N).write(tmp_path / "a"))
    comparison = compare(short, short, looking())
    assert "a baseline is evaluated whole" in comparison.faults[0]


def test_guards_share_the_level_of_harm_and_looks_cost_something() -> None:
    one, ten = looks_at(looking(), N, 1), looks_at(looking(), N, 10)
    assert one.counts == (100, 200, 300, 400)
    assert all(few > many for few, many in zip(one.fail_levels, ten.fail_levels, strict=True))
    assert one.pass_levels == ten.pass_levels
    assert 0 < one.pass_levels[0] < one.pass_levels[-1] < 0.05
