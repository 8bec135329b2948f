"""Interim looks: the order is fixed, a decided task may stop, and anything else that is short is refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import Folder, answers, compare_both, guard, policy, sample, samples

from harness.config.experiment import SuiteConfig, TaskConfig
from harness.config.gate import GateConfig, RuleConfig, SequentialConfig
from harness.gate.comparison import compare
from harness.gate.sequential import LookProgress, _DecidingRules, decided, first_items, looks_at
from harness.gate.verdict import decide
from harness.records.gate import Comparison, Verdict
from harness.results.evidence import read_evidence
from harness.workflows.interim_looks import _metric_progress

N = 400
SUITE = SuiteConfig(name="smoke", tasks=[TaskConfig(name="quiz")])
FIRST, FIRST_100 = (first_items(range(N), 3, "quiz", items) for items in (200, 100))
FIRST_OF_OTHER = first_items(range(N), 3, "other")


def looking(*rules: RuleConfig, **changes: Any) -> GateConfig:
    return policy(*rules, sequential=SequentialConfig(looks=4), **changes)


def progress(done: int, lost: int, gained: int, **changes: Any) -> LookProgress:
    values: dict[str, Any] = {"task": "quiz", "metric": "acc", "planned": N, "right": done - lost, "baseline": 1.0}
    return LookProgress(**(values | {"done": done, "lost": lost, "gained": gained} | changes))


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
def test_a_task_stops_at_a_look_that_decides(one: LookProgress, stops: bool) -> None:
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


def test_gated_slices_share_it_too() -> None:
    """As they are counted in the verdict: those that a rule names, of any task; others are information."""
    lost, sliced = progress(200, 8, 0), progress(200, 0, 0, task="other", slices=("a", "b", "c", "d", "e", "info"))
    gated = guard("*/other/acc", slices=["[a-e]"])
    assert decided(looking(guard(), guard("*/other/acc")), SUITE, [lost, sliced]) == {"quiz", "other"}
    assert decided(looking(guard(), gated), SUITE, [lost, sliced]) == set()
    shown = progress(200, 0, 0, task="other", slices=("info",))
    assert decided(looking(guard(), gated), SUITE, [lost, shown]) == {"quiz"}


def test_a_task_with_gated_slices_runs_whole_and_one_with_others_stops() -> None:
    one = progress(200, 0, 0, slices=("a", "b"))
    assert decided(looking(), SUITE, [one]) == {"quiz"}
    assert decided(looking(guard(slices=["a"])), SUITE, [one]) == set()


def test_the_looks_count_the_slices_of_all_planned_items(tmp_path: Path) -> None:
    """A slice without an item so far, and slices against each baseline, are guards of the verdict as well."""
    gate = looking(guard("*/quiz/acc"), guard("*/other/acc", slices=["*"]), baselines=["anchor"])
    last = FIRST_OF_OTHER[-1]
    rows = [sample(n, 1.0, doc={"slice": "late" if n == last else "usual"}) for n in range(N)]
    whole = Folder({"quiz": [sample(n, 1.0) for n in range(N)], "other": rows})
    short = stopped_folder(FIRST, 200, [1.0] * N)
    short.tasks["other"] = [row for row in rows if row["doc_id"] in FIRST_OF_OTHER[:200]]
    short.identities["other"] = {"planned": N, "stopped_at": 200, "order_seed": 3}
    sides = [read_evidence(folder.write(tmp_path / name)) for name, folder in (("a", whole), ("b", short))]
    found = compare(sides[0], sides[1], gate)
    counted = list(_metric_progress(found, sides[0], sides[1], gate.slice_key))
    assert {one.task: one.slices for one in counted} == {"quiz": (), "other": ("late", "usual")}
    whole_again = replace(whole, label="other").write(tmp_path / "c")
    comparison = compare_both([sides[0], read_evidence(whole_again)], gate)
    other = comparison.model_copy(update={"baseline": comparison.baseline.model_copy(update={"label": "anchor"})})
    verdict = decide(gate, comparison.model_copy(update={"others": [other]}))
    spoken = [_DecidingRules.of(gate, SUITE, counted, {}), _DecidingRules.of(gate, SUITE, counted, {}).guards_alone()]
    assert sum(one.guards for one in spoken) == len([line for line in verdict.metrics if line.role == "guard"]) == 8


def harmed(tmp_path: Path, lost: int) -> Comparison:
    """Stopped after 200 items of which so many were lost; the baseline has all right."""
    marks = [1.0] * N
    for number in FIRST[:lost]:
        marks[number] = 0.0
    folders = {"a": Folder({"quiz": [sample(n, 1.0) for n in range(N)]}), "b": stopped_folder(FIRST, 200, marks)}
    return compare_both([read_evidence(folder.write(tmp_path / name)) for name, folder in folders.items()], looking())


def against(comparison: Comparison, labels: Sequence[str]) -> Comparison:
    """The same beside further baselines that answered alike."""
    others = [
        comparison.model_copy(update={"baseline": comparison.baseline.model_copy(update={"label": label})})
        for label in labels
    ]
    return comparison.model_copy(update={"others": others})


LABELS = [f"anchor-{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("named", "added", "lost", "expected"),
    [
        ([], [], 8, "FAIL"),
        (LABELS, LABELS, 8, "INCONCLUSIVE"),
        ([], LABELS, 8, "INCONCLUSIVE"),
        ([], LABELS, 20, "FAIL"),
        ([], LABELS, 0, "PASS"),
    ],
)
def test_the_verdict_shares_it_among_all_guards(
    tmp_path: Path, named: list[str], added: list[str], lost: int, expected: str
) -> None:
    """Those that the looks counted, and baselines that were added after the stop: α is spent once."""
    verdict = decide(looking(baselines=named), against(harmed(tmp_path, lost), added))
    assert verdict.verdict == expected
    assert {line.verdict for line in verdict.metrics} == {expected}
    told = [line for line in verdict.metrics if "stopped after 200 of 400 items before this was decided" in line.reason]
    assert bool(told) == (expected == "INCONCLUSIVE")


def test_a_stop_that_another_baseline_decided_is_told(tmp_path: Path) -> None:
    """Equal to the baseline of the looks, it stopped; against one that was added, nothing is decided yet."""
    worse, first = [1.0] * N, FIRST_100
    for number in first[:3]:
        worse[number] = 0.0
    short = stopped_folder(first, 100, worse)
    folders = {"a": [*worse], "anchor": [1.0] * N}
    sides = {name: Folder({"quiz": samples(values)}, label=name) for name, values in folders.items()}
    evidence = {name: read_evidence(folder.write(tmp_path / name)) for name, folder in {**sides, "b": short}.items()}
    gate = looking(guard(margin="9 points"))
    main, other = (compare(evidence[name], evidence["b"], gate) for name in ("a", "anchor"))
    assert decide(gate, main).verdict == "PASS"
    verdict = decide(gate, main.model_copy(update={"others": [other]}))
    assert verdict.verdict == "INCONCLUSIVE"
    assert "stopped after 100 of 400 items before this was decided: name every baseline" in verdict.reasons[0]


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


@pytest.mark.parametrize("right_of_first", [0, 100, 200])
def test_a_relative_margin_is_the_same_at_every_look_and_in_the_verdict(tmp_path: Path, right_of_first: int) -> None:
    """Of the baseline's mean over all planned items, which is known before the first look: not over those asked."""
    marks = [0.0] * N
    for number in [*FIRST[:right_of_first], *sorted(set(range(N)) - set(FIRST))[: 300 - right_of_first]]:
        marks[number] = 1.0
    gate = looking(guard(margin=["10% of baseline", "9 points"]))
    whole = Folder({"quiz": [sample(n, marks[n]) for n in range(N)]})
    sides = {"a": whole, "b": stopped_folder(FIRST, 200, marks), "c": stopped_folder(FIRST_100, 100, marks)}
    found = {name: read_evidence(folder.write(tmp_path / name)) for name, folder in sides.items()}
    for name, items in (("b", 200), ("c", 100)):
        comparison = compare(found["a"], found[name], gate)
        (one,) = _metric_progress(comparison, found["a"], found[name], "slice")
        (line,) = decide(gate, Comparison.model_validate_json(comparison.model_dump_json(by_alias=True))).metrics
        assert (one.done, one.baseline, line.n) == (items, sum(marks) / N, items)
        assert line.margin == pytest.approx(sum(marks) / N / 10)


def test_an_unasked_item_of_the_baseline_without_a_number_is_invalid(tmp_path: Path) -> None:
    """The margin would rest on it."""
    rows = [sample(number, 1.0) for number in range(N)]
    rows[min(set(range(N)) - set(FIRST))]["acc"] = float("nan")
    sides = {"a": Folder({"quiz": rows}), "b": stopped_folder(FIRST, 200, [1.0] * N)}
    evidence = [read_evidence(folder.write(tmp_path / name)) for name, folder in sides.items()]
    verdict = decide(looking(guard(margin="10% of baseline")), compare_both(evidence, looking()))
    assert verdict.verdict == "INVALID"
    assert "not a number for some items" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (guard(slices=["*"]), "it has slices"),
        (guard(cluster="id"), "it has clusters"),
        (guard(range=(0, 2)), "not right/wrong"),
        (RuleConfig(metric="*/quiz/acc", role="target", margin="2 points"), "it demands a gain"),
    ],
)
def test_a_stop_under_a_rule_that_needs_all_items_is_invalid(tmp_path: Path, rule: RuleConfig, told: str) -> None:
    """As when an evaluation is gated by another policy than the one that stopped it."""
    gate = looking(rule, require=[rule.role])
    assert decided(gate, SUITE, [progress(200, 0, 0)]) == set()
    first = [sample(number, 1.0, doc={"id": str(number), "slice": "rare"}) for number in range(N)]
    sides = [Folder({"quiz": first}), Folder({"quiz": [first[number] for number in sorted(FIRST)]})]
    sides[1].identities["quiz"] = {"planned": N, "stopped_at": 200, "order_seed": 3}
    evidence = [read_evidence(folder.write(tmp_path / str(i))) for i, folder in enumerate(sides)]
    verdict = decide(gate, compare_both(evidence, gate))
    assert verdict.verdict == "INVALID"
    assert told in "\n".join(verdict.reasons)


@pytest.mark.parametrize(("alpha", "expected"), [(None, "PASS"), (0.0002, "INCONCLUSIVE")])
def test_a_rules_own_alpha_holds_under_looks(tmp_path: Path, alpha: float | None, expected: str) -> None:
    whole = Folder({"quiz": [sample(number, float(number >= 6)) for number in range(N)]})
    assert judged(tmp_path, whole, looking(guard(alpha=alpha))).verdict == expected


def test_a_rules_own_alpha_stops_later() -> None:
    one = progress(100, 0, 0)
    assert decided(looking(guard(margin="9 points")), SUITE, [one]) == {"quiz"}
    assert decided(looking(guard(margin="9 points", alpha=0.0001)), SUITE, [one]) == set()


@pytest.mark.parametrize(
    ("items", "stopped_at", "changes", "told"),
    [
        (list(range(200)), 200, {}, "not the first 200 of the order"),
        (FIRST[:-1], 200, {}, "not the first 200 of the order"),
        (FIRST, 200, {"order_seed": 4}, "not the first 200 of the order"),
        (FIRST, 200, {"planned": 500}, "500 items were planned, but the baseline has 400"),
        (FIRST, 200, {"order_seed": None}, "is not recorded"),
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
    assert "evaluate a baseline on all items" in comparison.faults[0]


def test_guards_share_the_level_of_harm_and_looks_cost_something() -> None:
    one, ten = looks_at(looking(), N, 1), looks_at(looking(), N, 10)
    assert one.counts == (100, 200, 300, 400)
    assert all(few > many for few, many in zip(one.fail_levels, ten.fail_levels, strict=True))
    assert one.pass_levels == ten.pass_levels
    assert 0 < one.pass_levels[0] < one.pass_levels[-1] < 0.05
