"""lm-eval output folders made elsewhere: what is read, and what makes them incomparable."""

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import Folder, Row, answers, compare_both, guard, policy, samples

from harness.core.errors import EvidenceFault, HarnessError
from harness.gate.comparison import compare
from harness.gate.pairing import HIGHER, LOWER
from harness.gate.verdict import decide
from harness.records.gate import Comparison
from harness.results.evidence import read_evidence
from harness.results.samples import texts

RIGHT = answers(90, 100)
ELSEWHERE = Path(__file__).resolve().parents[3] / "shared" / "data" / "lm_eval_logs"


def elsewhere(path: Path, rows: list[Row], **changes: Any) -> Path:
    return Folder({"quiz": rows}).write_lm_eval(path, **changes)


def test_lm_eval_folders_compare(tmp_path: Path) -> None:
    left = read_evidence(elsewhere(tmp_path / "a", samples(RIGHT)))
    right = read_evidence(elsewhere(tmp_path / "b", samples(answers(70, 100))))
    comparison = compare(left, right)
    assert comparison.faults == []
    assert [(metric.key, metric.n) for metric in comparison.metrics] == [("lm_eval/quiz/acc", 100)]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"versions": {"quiz": 2.0}}, "version differs"),
        ({"n-shot": {"quiz": 5}}, "num_fewshot differs"),
        ({"configs": {"quiz": {"generation_kwargs": {"temperature": 1.0}}}}, "the generation arguments differ"),
        ({"chat_template_sha": "d" * 64}, "prompt contracts differ"),
        ({"chat_template_sha": None}, "prompt contracts differ"),
    ],
)
def test_lm_eval_folders_made_in_other_ways(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    left = read_evidence(elsewhere(tmp_path / "a", samples(RIGHT)))
    right = read_evidence(elsewhere(tmp_path / "b", samples(RIGHT), **changes))
    assert told in "\n".join(compare(left, right).faults)


def collapsed(path: Path, metric: str, gate: Any = None, **changes: Any) -> Comparison:
    """A metric that rose, in folders that do not say which way it is better."""
    folders = [Folder({"quiz": samples([value] * 60, metric)}) for value in (0.2, 0.9)]
    changes = {"higher_is_better": {}} | changes
    sides = [read_evidence(f.write_lm_eval(path / name, **changes)) for f, name in zip(folders, "ab", strict=True)]
    return compare_both(sides, gate)


def test_a_metric_whose_direction_nobody_says_is_not_judged(tmp_path: Path) -> None:
    gate = policy(guard("*/quiz/toxicity"))
    verdict = decide(gate, collapsed(tmp_path / "x", "toxicity", gate))
    assert verdict.verdict == "INVALID"
    assert "it is unknown whether higher or lower toxicity is better" in verdict.reasons[0]
    unsaid = {"higher_is_better": {"quiz": {"toxicity": None}}}
    assert collapsed(tmp_path / "y", "toxicity", gate, **unsaid).faults
    assert collapsed(tmp_path / "z", "toxicity", policy(guard("*/other/acc"))).faults == []


def test_the_rule_says_the_direction_where_the_task_does_not(tmp_path: Path) -> None:
    gate = policy(guard("*/quiz/toxicity", direction="lower"))
    comparison = collapsed(tmp_path, "toxicity", gate)
    assert (comparison.faults, comparison.metrics[0].direction) == ([], "lower")
    assert decide(gate, comparison).verdict == "FAIL"


@pytest.mark.parametrize(("metric", "direction"), [("word_perplexity", "lower"), ("acc_norm", "higher")])
def test_lm_evals_own_metrics_have_a_direction(tmp_path: Path, metric: str, direction: str) -> None:
    comparison = collapsed(tmp_path, metric, policy(guard(f"*/quiz/{metric}")))
    assert (comparison.faults, comparison.metrics[0].direction) == ([], direction)


def test_directions_are_those_of_lm_evals_registry() -> None:
    registry = pytest.importorskip("lm_eval.api.registry")
    pytest.importorskip("lm_eval.api.metrics")
    for name in HIGHER | LOWER:
        assert registry.is_higher_better(name) is (name in HIGHER), name


ODD: list[Any] = [
    None,
    3,
    "x",
    [],
    {"quiz": "x"},
    {"quiz": [3]},
    {"quiz": {"effective": None, "acc": 3, "filter_list": 3}},
]
PARTS = ["n-samples", "versions", "results", "configs", "higher_is_better", "n-shot", "group_subtasks"]


@pytest.mark.parametrize("key", PARTS)
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_damaged_results_are_named(tmp_path: Path, key: str, value: Any) -> None:
    path = elsewhere(tmp_path / "a", samples(RIGHT), **{key: value})
    if (key, value) in [("versions", {"quiz": "x"}), ("results", ODD[-1])]:  # these may stand there
        read_evidence(path)
        return
    with pytest.raises(EvidenceFault, match=rf"results_.*\.json.*{key}"):
        read_evidence(path)


def test_a_group_without_all_its_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvidenceFault, match="group all lacks law"):
        read_evidence(elsewhere(tmp_path / "a", samples(RIGHT), group_subtasks={"all": ["quiz", "law"]}))


def test_tasks_whose_names_begin_alike_keep_their_own_samples(tmp_path: Path) -> None:
    tasks = {"quiz": samples([1.0] * 5), "quiz_hard": samples([0.0] * 7)}
    evidence = read_evidence(Folder(tasks).write_lm_eval(tmp_path / "a"))
    marks = {task: evidence.samples[task]["acc"].values.tolist() for task in tasks}
    assert marks == {"quiz": [1.0] * 5, "quiz_hard": [0.0] * 7}


def test_results_of_two_models_in_one_folder_are_ambiguous(tmp_path: Path) -> None:
    for model in ("model_a", "model_b"):
        elsewhere(tmp_path / "out" / model, samples(RIGHT))
    with pytest.raises(HarnessError, match="model_a"):
        read_evidence(tmp_path / "out")


def test_the_newest_results_of_one_model_count(tmp_path: Path) -> None:
    path = elsewhere(tmp_path / "a", samples([0.0] * 5))
    for file in list(path.iterdir()):
        file.rename(path / file.name.replace("2026", "2025"))
    newer = elsewhere(tmp_path / "b", samples([1.0] * 5))
    for file in newer.iterdir():
        file.rename(path / file.name)
    assert set(read_evidence(path).samples["quiz"]["acc"].values) == {1.0}


def test_lm_eval_samples_that_were_cut_off_on_both_sides(tmp_path: Path) -> None:
    counts = {"n-samples": {"quiz": {"original": 5000, "effective": 5000}}}
    sides = [read_evidence(elsewhere(tmp_path / name, samples(RIGHT), **counts)) for name in "ab"]
    assert "4900 items" in "\n".join(compare_both(sides).faults)


def test_a_download_made_of_links_is_read(tmp_path: Path) -> None:
    """The cache of the hub keeps files under other names, and links to them."""
    folder, blobs = elsewhere(tmp_path / "a", samples(RIGHT)), tmp_path / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(blobs / str(number))
    assert set(read_evidence(folder).samples) == {"quiz"}


def test_a_task_whose_name_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = elsewhere(tmp_path / "a", samples(RIGHT))
    (results,), (rows,) = folder.glob("results*.json"), folder.glob("samples_*")
    rows.rename(tmp_path / "outside.jsonl")
    (folder / "samples_").mkdir()
    results.write_text(results.read_text().replace('"quiz"', '"/../../outside"'))
    with pytest.raises(HarnessError, match="lies outside"):
        read_evidence(folder)


def test_a_metric_of_which_less_is_better_is_turned_round(tmp_path: Path) -> None:
    changes = {"higher_is_better": {"quiz": {"acc": False}}}
    left = read_evidence(elsewhere(tmp_path / "a", samples([0.2] * 60), **changes))
    right = read_evidence(elsewhere(tmp_path / "b", samples([0.9] * 60), **changes))
    comparison = compare(left, right)
    assert comparison.faults or comparison.metrics[0].delta < 0


@pytest.mark.skipif(not ELSEWHERE.is_dir(), reason="no ../shared/data/lm_eval_logs beside the repository")
def test_a_real_lm_eval_folder_without_all_samples_is_refused() -> None:
    with pytest.raises(HarnessError, match="math_rephrased_full"):
        read_evidence(ELSEWHERE)


@pytest.mark.skipif(not ELSEWHERE.is_dir(), reason="no ../shared/data/lm_eval_logs beside the repository")
def test_real_lm_eval_samples_are_read_and_known_to_be_a_part(tmp_path: Path) -> None:
    (results,) = ELSEWHERE.glob("results_*.json")
    (rows,) = ELSEWHERE.glob("samples_math_perturbed_full_*.jsonl")
    found = json.loads(results.read_text())
    found["configs"].pop("math_rephrased_full")
    (tmp_path / results.name).write_text(json.dumps(found))
    (tmp_path / rows.name).write_text(rows.read_text())
    evidence = read_evidence(tmp_path)
    column = evidence.samples["math_perturbed_full"]["exact_match"]
    assert column.values.tolist() == [0.0] * 10
    asked = [texts(column.path, int(place)) for place in column.places]
    assert all(prompt.startswith("Problem: ") and response for prompt, response in asked)
    assert "4990 items" in "\n".join(compare(evidence, evidence).faults)
