"""Evidence: what is read, and every reason why it may not be compared."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import Folder, answers, lines, one_task, sample, samples

from harness.core.errors import EvidenceFault, HarnessError
from harness.core.store import sha256_file, stage
from harness.gate.comparison import compare
from harness.records.gate import Comparison
from harness.results.columns import ARRAYS
from harness.results.evidence import read_evidence, read_sides

RIGHT = answers(90, 100)


def compared(path: Path, baseline: Folder, candidate: Folder) -> Comparison:
    baseline.label = "base"
    return compare(read_evidence(baseline.write(path / "a")), read_evidence(candidate.write(path / "b")))


def faults(path: Path, baseline: Folder, candidate: Folder) -> str:
    return "\n".join(compared(path, baseline, candidate).faults)


def test_equal_evaluations_compare(tmp_path: Path) -> None:
    comparison = compared(tmp_path, one_task(RIGHT), one_task(answers(80, 100)))
    (metric,) = comparison.metrics
    assert comparison.faults == []
    assert (metric.key, metric.n) == ("smoke/quiz/acc", 100)
    assert (metric.baseline, metric.candidate) == (0.9, 0.8)
    assert (metric.only_baseline_right, metric.only_candidate_right) == (10, 0)
    assert metric.delta == pytest.approx(-0.1)
    assert metric.ci_low < metric.delta < metric.ci_high < 0
    assert (comparison.baseline.label, comparison.candidate.label) == ("base", "candidate")


def test_flips_show_prompt_and_both_answers(tmp_path: Path) -> None:
    worse = samples([1.0, 0.0])
    worse[1]["filtered_resps"] = ["wrong"]
    (flip,) = compared(tmp_path, one_task([1.0, 1.0]), Folder({"quiz": worse})).flips
    assert (flip.item, flip.prompt) == ("doc0001", "Question 1?")
    assert (flip.baseline_response, flip.candidate_response) == ("answer 1", "wrong")


def test_order_of_the_lines_does_not_matter(tmp_path: Path) -> None:
    turned = Folder({"quiz": samples(RIGHT)[::-1]})
    (metric,) = compared(tmp_path, one_task(RIGHT), turned).metrics
    assert (metric.only_baseline_right, metric.only_candidate_right) == (0, 0)


def test_any_text_of_a_model_can_be_read_back(tmp_path: Path) -> None:
    odd = samples(RIGHT)
    odd[3]["filtered_resps"] = ["one\u2028two\x85three\x0cfour\r\nfive"]
    assert compared(tmp_path, one_task(RIGHT), Folder({"quiz": odd})).faults == []


def with_identity(**values: Any) -> Folder:
    return one_task(RIGHT, identities={"quiz": values})


def without_item(number: int) -> Folder:
    return Folder({"quiz": [row for row in samples(RIGHT) if row["doc_id"] != number]})


def altered(**values: Any) -> Folder:
    rows = samples(RIGHT)
    rows[7] = rows[7] | values
    return Folder({"quiz": rows})


@pytest.mark.parametrize(
    ("candidate", "told"),
    [
        (one_task(RIGHT, contract="d" * 64), "prompt contracts differ"),
        (with_identity(version="2.0"), "version differs"),
        (with_identity(num_fewshot=5), "num_fewshot differs"),
        (with_identity(generation="h" * 64), "the generation arguments differ"),
        (with_identity(scored=99, failed=1), "1 item of candidate has no score"),
        (with_identity(asked=150, scored=150), "quiz"),
        (without_item(4), "1 item has acc on one side only"),
        (altered(acc=None), "1 item has acc on one side only"),
        (altered(acc="1.0"), "1 item has acc on one side only"),
        (altered(acc=float("nan")), "not a number"),
        (altered(acc=float("inf")), "not a number"),
        (altered(doc_hash="another"), "on one side only"),
        (altered(prompt_hash="another"), "the prompts of 1 item differ"),
        (altered(target_hash="another"), "quiz"),
        (altered(metrics=[]), "on one side only"),
        (one_task(RIGHT, metric="f1"), "exists on one side only"),
        (one_task(RIGHT, task="other"), "one side only"),
        (Folder({"quiz": samples(RIGHT), "extra": samples(RIGHT)}), "task extra was evaluated on one side only"),
        (Folder({}), "task quiz was evaluated on one side only"),
    ],
)
def test_what_makes_evidence_incomparable(tmp_path: Path, candidate: Folder, told: str) -> None:
    assert told in faults(tmp_path, one_task(RIGHT), candidate)


def test_groups_that_differ_are_told(tmp_path: Path) -> None:
    tasks = {"one": samples(RIGHT), "two": samples(RIGHT)}
    baseline, candidate = Folder(tasks, groups={"all": ["one", "two"]}), Folder(tasks, groups={"all": ["one"]})
    assert "all" in faults(tmp_path, baseline, candidate)


def test_a_group_without_all_its_tasks_is_told(tmp_path: Path) -> None:
    sides = [Folder({"one": samples(RIGHT)}, groups={"all": ["one", "two"]}) for _ in "ab"]
    assert "group all of candidate lacks two" in faults(tmp_path, *sides)


def test_a_group_pools_its_parts(tmp_path: Path) -> None:
    groups = {"all": ["one", "two"]}
    baseline = Folder({"one": samples(answers(90, 100)), "two": samples(answers(30, 50))}, groups=groups)
    candidate = Folder({"one": samples(answers(80, 100)), "two": samples(answers(40, 50))}, groups=groups)
    metrics = {metric.task: metric for metric in compared(tmp_path, baseline, candidate).metrics}
    assert set(metrics) == {"one", "two", "all"}
    parts, pooled = [metrics["one"], metrics["two"]], metrics["all"]
    for name in ("n", "only_baseline_right", "only_candidate_right"):
        assert getattr(pooled, name) == sum(getattr(part, name) for part in parts)
    assert pooled.baseline == pytest.approx(120 / 150)
    assert pooled.candidate == pytest.approx(120 / 150)
    assert pooled.delta == pytest.approx(sum(part.delta * part.n for part in parts) / 150)


def test_a_group_with_a_part_that_is_not_right_or_wrong_is_not_dropped(tmp_path: Path) -> None:
    groups = {"all": ["one", "two"]}
    tasks = {"one": samples(RIGHT), "two": samples([0.25, 0.5, 0.75] * 20)}
    comparison = compared(tmp_path, Folder(tasks, groups=groups), Folder(tasks, groups=groups))
    assert comparison.faults or any(metric.task == "all" for metric in comparison.metrics)


def test_a_metric_without_any_score_is_told(tmp_path: Path) -> None:
    """On both sides, so that it is on neither side only."""
    rows = [sample(n, 1.0, metrics=["acc", "safe"], safe=None) for n in range(50)]
    told = faults(tmp_path, Folder({"quiz": rows}), Folder({"quiz": rows}))
    assert "50 items of base have no score of safe" in told


def test_a_metric_that_is_computed_over_lists_is_left_out(tmp_path: Path) -> None:
    rows = [sample(n, 1.0, metrics=["acc", "mcc"], mcc=[0, 1]) for n in range(50)]
    comparison = compared(tmp_path, Folder({"quiz": rows}), Folder({"quiz": rows}))
    assert (comparison.faults, [metric.metric for metric in comparison.metrics]) == ([], ["acc"])


def test_filters_are_metrics_of_their_own(tmp_path: Path) -> None:
    rows = [*samples(RIGHT), *({**row, "filter": "strict"} for row in samples(answers(50, 100)))]
    keys = [metric.key for metric in compared(tmp_path, Folder({"quiz": rows}), Folder({"quiz": rows})).metrics]
    assert keys == ["smoke/quiz/acc", "smoke/quiz/acc,strict"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def drop_a_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def mark_all_right(path: Path) -> None:
    path.write_text(path.read_text().replace('"acc": 0.0', '"acc": 1.0'))


@pytest.mark.parametrize("harm", [cut, drop_a_line, mark_all_right, Path.unlink])
def test_samples_that_do_not_match_their_digest(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    folder = one_task(RIGHT).write(tmp_path / "a")
    harm(folder / "samples_quiz.jsonl")
    with pytest.raises(EvidenceFault, match=r"samples_quiz\.jsonl"):
        read_evidence(folder)


def test_a_record_that_was_cut_off(tmp_path: Path) -> None:
    folder = one_task(RIGHT).write(tmp_path / "a")
    cut(folder / "evaluation.json")
    with pytest.raises(EvidenceFault, match=r"evaluation\.json"):
        read_evidence(folder)


def test_a_stage_whose_record_was_edited(tmp_path: Path) -> None:
    def work(temporary: Path) -> None:
        one_task(RIGHT, contract="d" * 64).write(temporary / "made")
        for path in (temporary / "made").iterdir():
            path.rename(temporary / path.name)
        (temporary / "made").rmdir()

    folder, _ = stage(tmp_path, tmp_path / "run" / "eval", "evaluate", {}, work)
    record = folder / "evaluation.json"
    record.write_text(record.read_text().replace("d" * 64, "c" * 64))
    with pytest.raises(EvidenceFault, match=r"evaluation\.json"):
        read_evidence(folder)


DAMAGED: list[tuple[str, str]] = [
    ("{cut", "line 101"),
    ("[]", "line 101"),
    ("3", "line 101"),
    ('{"doc_hash": "x"}', "prompt_hash"),
    (json.dumps(sample(5, 1.0)), "occurs twice"),
    (json.dumps(sample(100, 1.0, metrics=None)), "line 101"),
    (json.dumps(sample(100, 1.0, doc_hash=None)), "line 101"),
]


@pytest.mark.parametrize(("line", "told"), DAMAGED)
@pytest.mark.parametrize("kind", ["ours", "elsewhere"])
def test_damaged_lines_are_named(tmp_path: Path, kind: str, line: str, told: str) -> None:
    folder = one_task(RIGHT)
    if kind == "elsewhere":
        path = folder.write_lm_eval(tmp_path / "a")
        (file,) = path.glob("samples_*")
        file.write_text(lines(folder.tasks["quiz"]) + line + "\n")
    else:
        path = folder.write(tmp_path / "a")
        file = path / "samples_quiz.jsonl"
        record = json.loads((path / "evaluation.json").read_text())
        file.write_text(lines(folder.tasks["quiz"]) + line + "\n")
        record["tasks"]["quiz"]["samples_sha256"] = sha256_file(file)
        (path / "evaluation.json").write_text(json.dumps(record))
    with pytest.raises(EvidenceFault, match=told):
        read_evidence(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}"])
def test_lm_eval_results_that_are_none(tmp_path: Path, text: str) -> None:
    path = one_task(RIGHT).write_lm_eval(tmp_path / "a")
    (results,) = path.glob("results_*")
    results.write_text(text)
    with pytest.raises(HarnessError, match=r"results_|samples"):
        read_evidence(path)


def test_a_folder_without_any_evaluation(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no evaluation"):
        read_evidence(tmp_path)


def test_big_evidence_is_read_beside_and_compares_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests of prompts and targets have to be the same numbers in another process."""
    folders = one_task(RIGHT).write(tmp_path / "a"), one_task(answers(80, 100)).write_lm_eval(tmp_path / "b")
    monkeypatch.setattr("harness.results.evidence.MIN_BYTES_FOR_PROCESS", 0)
    monkeypatch.setattr("harness.results.evidence.cores", lambda: 2)
    beside, here = read_sides(folders), tuple(map(read_evidence, folders))
    for one, other in zip(beside, here, strict=True):
        assert one.sha256 == other.sha256
        left, right = one.samples["quiz"]["acc"], other.samples["quiz"]["acc"]
        assert all((getattr(left, name) == getattr(right, name)).all() for name in ARRAYS)


def test_damage_is_told_from_another_process_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = one_task(RIGHT).write(tmp_path / "a"), one_task(RIGHT).write(tmp_path / "b")
    with (folders[1] / "samples_quiz.jsonl").open("a") as file:
        file.write("{")
    monkeypatch.setattr("harness.results.evidence.MIN_BYTES_FOR_PROCESS", 0)
    monkeypatch.setattr("harness.results.evidence.cores", lambda: 2)
    with pytest.raises(EvidenceFault, match="was edited"):
        read_sides(folders)


def test_on_one_core_no_process_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = one_task(RIGHT).write(tmp_path / "a"), one_task(answers(80, 100)).write(tmp_path / "b")
    monkeypatch.setattr("harness.results.evidence.MIN_BYTES_FOR_PROCESS", 0)
    monkeypatch.setattr("harness.results.evidence.cores", lambda: 1)
    monkeypatch.delattr("harness.results.evidence.ProcessPoolExecutor")
    assert [len(side.samples["quiz"]["acc"]) for side in read_sides(folders)] == [100, 100]
