"""What a comparison holds: slices, clusters, repeats, chance, relative drop, forgetting, several baselines."""

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import Folder, Row, answers, compare_both, guard, lines, one_task, policy, sample, samples

from harness.config.gate import RuleConfig
from harness.core.errors import EvidenceFault
from harness.gate.verdict import decide
from harness.records.gate import Comparison, MetricComparison
from harness.report.markdown import print_comparison
from harness.report.wording import interval_text
from harness.results.evidence import read_evidence
from harness.workflows.gate import compare_evaluations

RIGHT = answers(90, 100)


def compared(path: Path, sides: list[Folder], gate: Any = None) -> Comparison:
    fields = gate.fields if gate else ("slice",)
    evidence = [read_evidence(side.write(path / name), fields) for side, name in zip(sides, "ab", strict=True)]
    return compare_both(evidence, gate)


def sliced(values: list[float], names: list[str], field: str = "slice") -> Folder:
    rows = [sample(n, v, doc={"id": n, field: names[n % len(names)]}) for n, v in enumerate(values)]
    return Folder({"quiz": rows})


def by_slice(comparison: Comparison) -> dict[str, MetricComparison]:
    return {metric.slice: metric for metric in comparison.metrics}


def test_slices_add_up_to_the_whole(tmp_path: Path) -> None:
    sides = [sliced([1.0] * 90, ["old", "young", "child"]), sliced([0.0, 1.0, 1.0] * 30, ["old", "young", "child"])]
    found = by_slice(compared(tmp_path, sides))
    assert set(found) == {"all", "old", "young", "child"}
    assert (found["old"].delta, found["young"].delta) == (-1.0, 0.0)
    assert sum(found[name].n for name in ("old", "young", "child")) == found["all"].n == 90


def test_a_policy_names_the_field_that_is_a_slice(tmp_path: Path) -> None:
    sides = [sliced(RIGHT, ["easy", "hard"], "level") for _ in "ab"]
    assert set(by_slice(compared(tmp_path, sides, policy(slice_key="level")))) == {"all", "easy", "hard"}


def test_a_gated_slice_decides_and_others_are_shown(tmp_path: Path) -> None:
    names = ["old", "young"]
    sides = [sliced([1.0] * 400, names), sliced([1.0 if n % 2 == 0 or n % 8 != 1 else 0.0 for n in range(400)], names)]
    shown = decide(policy(guard(margin="20 points")), compared(tmp_path / "x", sides))
    assert shown.verdict == "PASS"
    assert {m.role for m in shown.metrics if m.slice != "all"} == {"info"}
    sides[1] = sliced([1.0 if n % 2 == 0 else float(n % 4 == 1) for n in range(400)], names)
    gate = policy(guard(margin="30 points", slices=["young"]))
    verdict = decide(gate, compared(tmp_path / "y", sides, gate))
    assert verdict.verdict == "FAIL"
    assert "smoke/quiz/acc [young] fell by 50.0 points" in verdict.reasons[0]


def test_a_slice_that_fell_is_told_with_all_slices_in_mind(tmp_path: Path) -> None:
    names = ["old", "young"]
    sides = [sliced([1.0] * 400, names), sliced([1.0 if n % 2 == 0 or n % 8 != 1 else 0.0 for n in range(400)], names)]
    verdict = decide(policy(guard(margin="20 points")), compared(tmp_path, sides))
    told = {metric.slice: metric for metric in verdict.metrics}
    assert "a significant fall" in told["young"].reason
    assert "a significant fall" not in told["old"].reason
    assert (told["young"].p_harm or 1.0) < 0.05


def passages(values: list[float], size: int) -> Folder:
    rows = [sample(n, v, doc={"id": n, "passage": f"p{n // size}"}) for n, v in enumerate(values)]
    return Folder({"quiz": rows})


def test_items_of_one_passage_count_less_than_independent_ones(tmp_path: Path) -> None:
    before, after = [1.0] * 400, [0.0 if (n // 20) % 10 == 0 else 1.0 for n in range(400)]
    sides = [passages(before, 20), passages(after, 20)]
    alone = decide(policy(guard(margin="2 points")), compared(tmp_path / "a", sides))
    gate = policy(guard(margin="2 points", cluster="passage"))
    together = decide(gate, compared(tmp_path / "b", sides, gate))
    assert alone.verdict == "FAIL"
    assert together.verdict == "INCONCLUSIVE"
    assert together.metrics[0].ci_high > alone.metrics[0].ci_high
    assert "clustered by passage" in together.reasons[0]
    assert (together.metrics[0].n_needed or 0) > 400


@pytest.mark.parametrize(("groups", "told"), [(30, "needs about 59 clusters of passage in all (29 more)"),
                                               (59, "ruled out")])  # fmt: skip
def test_too_few_clusters_are_told_with_the_number_that_would_do(tmp_path: Path, groups: int, told: str) -> None:
    """No answer changed, but one passage in twenty may fail as a whole, and 30 often show none of these."""
    gate = policy(guard(cluster="passage"))
    sides = [passages([1.0] * 10 * groups, 10) for _ in "ab"]
    verdict = decide(gate, compared(tmp_path, sides, gate))
    assert verdict.verdict == ("PASS" if groups == 59 else "INCONCLUSIVE")
    assert told in verdict.reasons[0]
    assert f"not to be trusted: {groups} clusters are few" in verdict.reasons[0]
    assert verdict.metrics[0].n_needed == (None if groups == 59 else 590)


@pytest.mark.parametrize("groups", [25, 40])
def test_a_floor_of_clusters_counts_clusters(tmp_path: Path, groups: int) -> None:
    """All 250 or 400 answers are right; where a tenth of the passages fails, 25 show none of these in 7% of samples."""
    gate = policy(RuleConfig(metric="*/quiz/acc", role="target", floor=0.9, cluster="passage"), require=["target"])
    sides = [passages([1.0] * 10 * groups, 10) for _ in "ab"]
    verdict = decide(gate, compared(tmp_path, sides, gate))
    assert verdict.verdict == ("INCONCLUSIVE" if groups == 25 else "PASS")
    assert ("needs about" in verdict.reasons[0]) is (groups == 25)


def test_a_single_cluster_is_no_sample(tmp_path: Path) -> None:
    gate = policy(guard(cluster="passage"))
    verdict = decide(gate, compared(tmp_path, [passages(RIGHT, 1000), passages(RIGHT, 1000)], gate))
    assert verdict.verdict == "INVALID"
    assert "single cluster of passage" in verdict.reasons[0]


@pytest.mark.parametrize(("key", "lacking"), [("passage", 1), ("pasage", 200)])
def test_items_without_the_cluster_key_are_not_taken_as_independent(tmp_path: Path, key: str, lacking: int) -> None:
    gate = policy(guard(cluster=key))
    sides = [passages(answers(190, 200), 10) for _ in "ab"]
    for side in sides:
        side.tasks["quiz"][7]["doc"].pop("passage")
    verdict = decide(gate, compared(tmp_path, sides, gate))
    assert verdict.verdict == "INVALID"
    verb = "has" if lacking == 1 else "have"
    assert f"task quiz: {lacking} of 200 items {verb} no {key}" in verdict.reasons[0]


def test_a_cluster_key_that_one_side_edited_is_told(tmp_path: Path) -> None:
    gate = policy(guard(cluster="passage"))
    sides = [passages(RIGHT, 10), passages(RIGHT, 5)]
    assert "passage, which the policy clusters by, differs between the two sides" in "\n".join(
        compared(tmp_path, sides, gate).faults
    )


def test_a_comparison_names_all_that_either_side_evaluated(tmp_path: Path) -> None:
    sides = [Folder({"one": samples(RIGHT)}, groups={"all": ["one"]}), Folder({"two": samples(RIGHT)})]
    assert compared(tmp_path, sides).evaluated == ["all", "one", "two"]


def test_repeated_samples_of_an_item_are_averaged(tmp_path: Path) -> None:
    rows = [sample(n, float(k < 3), repeat=k) for n in range(50) for k in range(4)]
    (metric,) = compared(tmp_path, [Folder({"quiz": rows}), Folder({"quiz": rows})]).metrics
    assert (metric.n, metric.baseline) == (50, 0.75)


@pytest.mark.parametrize(
    "often",
    [
        [sample(n, 1.0, repeat=k) for n in range(50) for k in range(4)],
        [sample(n, [1.0, 0.0, 1.0, 1.0], resps=[["a", "b", "c", "d"]]) for n in range(50)],
        [sample(n, 1.0, resps=[["a", "b", "c", "d"]]) for n in range(50)],
    ],
)
def test_the_best_of_several_answers_is_not_compared_with_one(tmp_path: Path, often: list[Row]) -> None:
    once = [sample(n, 1.0, repeat=0) for n in range(50)]
    told = "\n".join(compared(tmp_path, [Folder({"quiz": once}), Folder({"quiz": often})]).faults)
    assert "50 items were answered more often on one side" in told


@pytest.mark.parametrize("name", ["prompt_hash", "target_hash"])
def test_repeated_samples_that_were_asked_in_different_ways_are_damage(tmp_path: Path, name: str) -> None:
    rows = [sample(n, 1.0, repeat=k) for n in range(20) for k in range(2)]
    rows[7][name] = "another"
    with pytest.raises(EvidenceFault, match="item doc0003 differ between its repeated samples"):
        read_evidence(Folder({"quiz": rows}).write(tmp_path / "a"))


def test_a_list_of_one_score_a_response_is_averaged(tmp_path: Path) -> None:
    rows = [sample(n, [1.0, 0.0, 0.0, 1.0], resps=[["a", "b", "c", "d"]]) for n in range(50)]
    (metric,) = compared(tmp_path, [Folder({"quiz": rows}), Folder({"quiz": rows})]).metrics
    assert (metric.n, metric.baseline) == (50, 0.5)


def test_a_repeat_that_occurs_twice_is_damage(tmp_path: Path) -> None:
    rows = [*(sample(n, 1.0, repeat=0) for n in range(20)), sample(3, 1.0, repeat=0)]
    with pytest.raises(EvidenceFault, match="line 21: item doc0003 occurs twice"):
        read_evidence(Folder({"quiz": rows}).write(tmp_path / "a"))


def choices(values: list[float], count: int) -> Folder:
    asked = [[f"Which? {number}", "x"] for number in range(count)]
    return Folder({"quiz": [sample(n, v, arguments=asked) for n, v in enumerate(values)]})


def test_guessing_explains_flips_on_multiple_choice(tmp_path: Path) -> None:
    """Two models that guess among two: a quarter of the items flips either way, and nothing was forgotten."""
    before, after = [0.0, 0.0, 1.0, 1.0] * 100, [0.0, 1.0, 0.0, 1.0] * 100
    (metric,) = compared(tmp_path / "a", [choices(before, 2), choices(after, 2)]).metrics
    assert metric.beyond_chance is not None
    assert metric.only_baseline_right == 100
    assert metric.beyond_chance.forgetting == pytest.approx(0.0)
    assert metric.beyond_chance.forgetting_low == 0.0 < metric.beyond_chance.forgetting_high
    (plain,) = compared(tmp_path / "b", [one_task(before), one_task(after)]).metrics
    assert plain.beyond_chance is None


def test_relative_drop_has_an_interval_around_it(tmp_path: Path) -> None:
    (metric,) = compared(tmp_path, [one_task(answers(80, 100)), one_task(answers(60, 100))]).metrics
    assert metric.relative_drop is not None
    assert metric.relative_drop.drop == pytest.approx(0.25)
    assert (metric.relative_drop.low or 0) < 0.25 < (metric.relative_drop.high or 0)


def graded(n: int, rare: int = 0, by: float = 0.0) -> list[float]:
    """Marks around a half, of which some are far from the rest."""
    return [0.5 + 0.01 * (number % 5) + (by if number < rare else 0) for number in range(n)]


@pytest.mark.parametrize(
    ("n", "rare", "told"),
    [(30, 0, "30 items are few, and a rare large change may not be among them"),
     (30, 2, "30 items are few, and their scores are skewed"),
     (99, 0, "99 items are few, and a rare large change may not be among them"),
     (100, 0, None),
     (200, 2, None)],
)  # fmt: skip
def test_an_interval_of_few_scores_is_told_as_not_to_be_trusted(
    tmp_path: Path, n: int, rare: int, told: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it is shown: in the reason, in tables and on the terminal."""
    gate = policy()
    comparison = compared(tmp_path, [one_task([0.5] * n), one_task(graded(n, rare, -0.4))], gate)
    (line,) = decide(gate, comparison).metrics
    print_comparison(comparison)
    shown = [line.reason, interval_text(line), capsys.readouterr().out]
    assert [("not to be trusted" in text) for text in shown] == [told is not None] * 3
    assert line.interval_doubt == (f"not to be trusted: {told}" if told else None)


@pytest.mark.parametrize(
    ("before", "after"), [(answers(25, 30), answers(20, 30)), ([0.5] * 30, [0.5] * 30), ([0.5] * 30, [0.25] * 30)]
)
def test_an_interval_that_covers_enough_on_few_items_stands_as_it_is(
    tmp_path: Path, before: list[float], after: list[float]
) -> None:
    """Of right/wrong answers, and of scores that all moved alike: it counts what may be unseen."""
    (metric,) = compared(tmp_path, [one_task(before), one_task(after)]).metrics
    assert metric.interval_doubt is None


def test_forgetting_over_the_suite_names_the_worst_task(tmp_path: Path) -> None:
    tasks = {"one": 90, "two": 70, "three": 91}
    sides = [
        Folder({name: samples(answers(right, 100)) for name, right in marks.items()})
        for marks in (dict.fromkeys(tasks, 90), tasks)
    ]
    found = compared(tmp_path, sides).forgetting
    assert found is not None
    assert (found.tasks, found.worst, found.fell) == (3, "two/acc", 1)
    assert [found.worst_delta, found.mean] == pytest.approx([-0.2, -0.19 / 3])
    assert found.worst_low < found.worst_delta
    assert found.mean_low < found.mean < found.mean_high
    assert found.fell_low == 1


def test_only_guards_count_as_forgetting_under_a_policy(tmp_path: Path) -> None:
    sides = [Folder({"quiz": samples(RIGHT), "mine": samples(values)}) for values in ([0.0] * 100, RIGHT)]
    found = compared(tmp_path, sides, policy()).forgetting
    assert found is not None
    assert found.tasks == 1


def test_a_guarded_group_counts_by_its_tasks(tmp_path: Path) -> None:
    tasks = {"one": samples(RIGHT), "two": samples(RIGHT)}
    sides = [Folder(tasks, groups={"all": ["one", "two"]}) for _ in "ab"]
    found = compared(tmp_path, sides, policy(guard("*/all/acc"))).forgetting
    assert found is not None
    assert found.tasks == 2


def test_guards_must_hold_against_every_baseline(tmp_path: Path) -> None:
    """Production has fallen already: against it the candidate is fine, against the anchor it is not."""
    for name, right in (("anchor", 480), ("production", 420), ("candidate", 415)):
        one_task(answers(right, 500), label=name).write(tmp_path / name)
    gate = policy()
    names = [str(tmp_path / name) for name in ("production", "candidate", "anchor")]
    alone = decide(gate, compare_evaluations(names[0], names[1], tmp_path, gate))
    both = decide(gate, compare_evaluations(names[0], names[1], tmp_path, gate, names[2:]))
    assert (alone.verdict, both.verdict) == ("PASS", "FAIL")
    assert [line.against for line in both.metrics] == [None, names[2]]
    assert f"against {names[2]} fell by 13.0 points" in both.reasons[0]


def test_a_candidate_is_not_its_own_baseline(tmp_path: Path) -> None:
    for name, label in (("base", "base"), ("mine", "mine"), ("copy", "mine")):
        one_task(RIGHT, label=label).write(tmp_path / name)
    base, mine, copy = (str(tmp_path / name) for name in ("base", "mine", "copy"))
    gate = policy()
    for names, anchors in (((mine, mine), []), ((copy, mine), []), ((base, mine), [copy])):
        verdict = decide(gate, compare_evaluations(*names, tmp_path, gate, anchors))
        assert verdict.verdict == "INVALID"
        assert "is the candidate's own evaluation" in verdict.reasons[0]
    assert decide(gate, compare_evaluations(base, mine, tmp_path, gate)).verdict == "PASS"


def test_an_anchor_with_other_weights_than_it_was_evaluated_with_is_refused(tmp_path: Path) -> None:
    for name in ("base", "mine", "run/eval/candidate"):
        one_task(RIGHT, label=name).write(tmp_path / name)
    (tmp_path / "run" / "checkpoint").mkdir()
    (tmp_path / "run" / "checkpoint" / "model.safetensors").write_bytes(b"others")
    anchor = str(tmp_path / "run" / "eval" / "candidate")
    with pytest.raises(EvidenceFault, match="made with other weights"):
        compare_evaluations(str(tmp_path / "base"), str(tmp_path / "mine"), tmp_path, policy(), [anchor])


def test_a_baseline_that_cannot_be_compared_makes_the_verdict_invalid(tmp_path: Path) -> None:
    for name, contract in (("a", "c" * 64), ("b", "c" * 64), ("anchor", "d" * 64)):
        one_task(RIGHT, label=name, contract=contract).write(tmp_path / name)
    gate = policy(baselines=[str(tmp_path / "anchor")])
    verdict = decide(gate, compare_evaluations(str(tmp_path / "a"), str(tmp_path / "b"), tmp_path, gate))
    assert verdict.verdict == "INVALID"
    assert "anchor: the prompt contracts differ" in verdict.reasons[0]


OLD_KEYS = ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "acc")


def old(rows: list[Row], *more: str) -> list[Row]:
    return [{key: row[key] for key in (*OLD_KEYS, *more)} for row in rows]


@pytest.mark.parametrize("more", [(), ("doc_hash", "prompt_hash", "target_hash")])
def test_samples_of_old_versions_pair_too(tmp_path: Path, more: tuple[str, ...]) -> None:
    sides = [old(samples(answers(right, 100)), *more) for right in (90, 80)]
    folders = [Folder({"quiz": rows}).write_lm_eval(tmp_path / name) for rows, name in zip(sides, "ab", strict=True)]
    comparison = compare_both(read_evidence(folder) for folder in folders)
    assert comparison.faults == []
    assert [(m.key, m.n, m.only_baseline_right) for m in comparison.metrics] == [("lm_eval/quiz/acc", 100, 10)]


def test_filters_of_old_versions_are_told_apart_by_their_order(tmp_path: Path) -> None:
    rows = [*old(samples([1.0] * 60)), *old(samples([0.0] * 60))]
    filters = {"filter_list": [{"name": "strict-match"}, {"name": "flexible-extract"}]}
    path = Folder({"quiz": rows}).write_lm_eval(
        tmp_path / "a", configs={"quiz": filters}, **{"n-samples": {"quiz": {"effective": 60}}}
    )
    found = read_evidence(path).samples["quiz"]
    assert {name: column.values.mean() for name, column in found.items()} == {
        "acc,strict-match": 1.0, "acc,flexible-extract": 0.0,
    }  # fmt: skip


def test_groups_of_groups_are_pooled(tmp_path: Path) -> None:
    tasks = {"one": samples(RIGHT), "two": samples(RIGHT), "three": samples(RIGHT)}
    groups = {"part": ["one", "two"], "whole": ["part", "three"]}
    sides = [read_evidence(Folder(tasks, groups=groups).write_lm_eval(tmp_path / name)) for name in "ab"]
    sizes = {metric.task: metric.n for metric in compare_both(sides).metrics}
    assert sizes == {"one": 100, "two": 100, "three": 100, "part": 200, "whole": 300}


def test_scores_that_do_not_average_to_the_reported_result_were_edited(tmp_path: Path) -> None:
    path = one_task(RIGHT).write_lm_eval(tmp_path / "a", results={"quiz": {"acc,none": 0.9}})
    read_evidence(path)
    (file,) = path.glob("samples_*")
    file.write_text(lines(samples(answers(95, 100))))
    with pytest.raises(EvidenceFault, match=r"acc averages to 0\.9500, but results_.*says 0\.9000"):
        read_evidence(path)


def test_flips_of_an_identical_model_are_noted(tmp_path: Path) -> None:
    paths = [one_task(RIGHT).write(tmp_path / name) for name in "ab"]
    record = json.loads((paths[1] / "evaluation.json").read_text()) | {"aa_flip_share": {"quiz": 0.012}}
    (paths[1] / "evaluation.json").write_text(json.dumps(record))
    verdict = decide(policy(), compare_both(read_evidence(path) for path in paths))
    assert "an identical model flips 1.2% of these items" in verdict.reasons[0]


@pytest.mark.parametrize("names", [["urgent", "calm"], ["calm", None]])
def test_slices_that_differ_between_the_sides_are_invalid(tmp_path: Path, names: list[Any]) -> None:
    """Otherwise the candidate's documents alone would decide which items a slice holds."""
    sides = [sliced(RIGHT, ["calm", "urgent"]), sliced(RIGHT, names)]
    verdict = decide(policy(), compared(tmp_path, sides, policy()))
    assert verdict.verdict == "INVALID"
    changed = 100 if names[0] == "urgent" else 50
    assert f"slice, which names the slices, differs between the two sides for {changed} items" in verdict.reasons[0]


def test_a_slice_that_is_called_all_is_not_the_whole_task(tmp_path: Path) -> None:
    rows = samples(answers(90, 100))
    for number, row in enumerate(rows):
        row["doc"]["slice"] = "all" if number < 40 else "other"
    sides = [read_evidence(Folder({"quiz": rows}).write(tmp_path / name)) for name in "ab"]
    found = {metric.slice: metric.n for metric in compare_both(sides).metrics}
    assert found == {"all": 100, "all (slice)": 40, "other": 60}
