"""The gate knows whether the training data were checked against what the candidate is judged by."""

from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_folders import Folder, answers, samples

from harness.checkpoint.origin import write_origin
from harness.core.errors import EvidenceFault
from harness.core.store import sha256_json
from harness.lineage.coverage import checkpoint_of, contamination_gaps, data_beside
from harness.model.load import weights_sha256
from harness.records.stages import Checkpoint, Dataset
from harness.results.evidence import Evidence, read_evidence
from harness.workflows.compose import config_for
from harness.workflows.evaluate import evaluation_items
from harness.workflows.gate import compare_evaluations
from harness.workflows.run import Run, decision_stage

ITEMS = 50
DIGEST = "d" * 64


def evidence(folder: Path, tasks: tuple[str, ...] = ("quiz",), groups: dict[str, list[str]] | None = None) -> Evidence:
    marks = {task: samples(answers(40, ITEMS)) for task in tasks}
    return read_evidence(Folder(marks, groups=groups or {}).write(folder))


def data(folder: Path, covered: dict[str, int], digest: str = DIGEST) -> Path:
    folder.mkdir(parents=True)
    Dataset(
        rows=1, sha256="", sources=[], decontaminated_against=digest, evaluation_items=sum(covered.values()),
        covered=covered,
    ).save(folder / "audit.json")  # fmt: skip
    return folder


def test_a_task_by_its_name_or_its_group(tmp_path: Path) -> None:
    found = evidence(tmp_path / "a", ("quiz", "part"), {"whole": ["part"]})
    assert contamination_gaps(data(tmp_path / "data", {"quiz": ITEMS, "whole": 2 * ITEMS}), found, DIGEST) == []


@pytest.mark.parametrize(
    ("covered", "told"),
    [
        ({}, "task quiz: the training data were not checked against its items"),
        ({"quiz": ITEMS - 1}, "task quiz: 50 items were evaluated, but the training data were checked against 49"),
    ],
)
def test_a_task_that_was_not_looked_for(tmp_path: Path, covered: dict[str, int], told: str) -> None:
    (fault,) = contamination_gaps(data(tmp_path / "data", covered), evidence(tmp_path / "a"))
    assert fault.startswith(told)


def test_other_items_than_those_checked(tmp_path: Path) -> None:
    (fault,) = contamination_gaps(data(tmp_path / "data", {"quiz": ITEMS}), evidence(tmp_path / "a"), "e" * 64)
    assert "other evaluation items" in fault
    assert DIGEST[:12] in fault


def test_without_an_audit_nothing_is_known(tmp_path: Path) -> None:
    with pytest.raises(EvidenceFault, match=r"audit\.json is missing"):
        contamination_gaps(tmp_path, evidence(tmp_path / "a"))


def data_of(folder: Path, found: Evidence, runs: Path) -> Path | None:
    """The data of the run that trained an evaluated model."""
    checkpoint = checkpoint_of(folder, found.weights_sha256, runs)
    return None if checkpoint is None else data_beside(checkpoint)


def run_folder(runs: Path, covered: dict[str, int] | None, task: str = "quiz") -> Path:
    run = runs / "mine"
    (run / "checkpoint").mkdir(parents=True)
    for label in ("base", "candidate"):
        Folder({task: samples(answers(40, ITEMS))}, label=label).write(run / "eval" / label)
    if covered is not None:
        data(run / "data", covered)
    return run


def compared(runs: Path, candidate: Path) -> list[str]:
    return compare_evaluations(str(runs / "mine" / "eval" / "base"), str(candidate), runs).faults


@pytest.mark.parametrize(("covered", "faults"), [({"quiz": ITEMS}, 0), ({"other": ITEMS}, 1)])
def test_the_candidate_of_a_run_is_held_to_its_data(tmp_path: Path, covered: dict[str, int], faults: int) -> None:
    run = run_folder(tmp_path, covered)
    assert len(compared(tmp_path, run / "eval" / "candidate")) == faults


def test_a_run_without_data_cannot_be_trusted(tmp_path: Path) -> None:
    run = run_folder(tmp_path, None)
    with pytest.raises(EvidenceFault, match="trained on the items"):
        compared(tmp_path, run / "eval" / "candidate")


def test_a_later_evaluation_of_the_same_weights_is_held_to_the_same_data(tmp_path: Path) -> None:
    run_folder(tmp_path, {"quiz": ITEMS})
    found = evidence(tmp_path / "evaluate-1" / "eval" / "mine", ("stock",))
    assert data_of(tmp_path / "evaluate-1" / "eval" / "mine", found, tmp_path) == tmp_path / "mine" / "data"
    (fault,) = contamination_gaps(tmp_path / "mine" / "data", found)
    assert fault.startswith("task stock: ")


def test_a_scaled_copy_is_held_to_the_data_of_the_run_it_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    run, copied = run_folder(tmp_path / "runs", {"quiz": ITEMS}), tmp_path / "cache" / "scaled" / "x-0.5" / "model"
    copied.mkdir(parents=True)
    (copied / "adapter_model.safetensors").write_bytes(b"half")
    write_origin(copied, run / "checkpoint", alpha=0.5)
    found = replace(evidence(tmp_path / "later"), weights_sha256=weights_sha256(copied))
    assert data_of(tmp_path / "later", found, tmp_path / "runs") == run / "data"


def test_a_copy_of_a_model_from_elsewhere_has_no_data_here_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    copied = tmp_path / "cache" / "merged" / "x" / "model"
    for folder in (copied, tmp_path / "theirs" / "adapter"):
        folder.mkdir(parents=True)
    (copied / "model.safetensors").write_bytes(b"whole")
    write_origin(copied, tmp_path / "theirs" / "adapter")
    found = replace(evidence(tmp_path / "later"), weights_sha256=weights_sha256(copied))
    assert data_of(tmp_path / "later", found, tmp_path / "runs") is None


def test_a_model_from_elsewhere_has_no_data_here(tmp_path: Path) -> None:
    assert data_of(tmp_path / "elsewhere", evidence(tmp_path / "elsewhere"), tmp_path) is None


@pytest.mark.parametrize(
    ("covered", "same_items", "told"),
    [
        ({"disclaimer": 402}, True, None),
        ({"other": 402}, True, "task disclaimer: the training data were not checked"),
        ({"disclaimer": 402}, False, "other evaluation items than the run uses now"),
        (None, True, "audit.json is missing"),
    ],
)
def test_a_run_is_invalid_unless_its_items_were_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, covered: dict[str, int] | None, same_items: bool, told: str | None
) -> None:
    config = config_for(["experiment=finance_disclaimer", f"runs_dir={tmp_path / 'runs'}", "tracker=none"])
    run = Run.of(config)
    folders = {
        label: Folder({"disclaimer": samples(answers(40, ITEMS))}, label=label).write(run.folder.evaluations / label)
        for label in ("base", "candidate")
    }
    if covered is not None:
        data(run.folder.data, covered, sha256_json(evaluation_items(config)) if same_items else DIGEST)
    monkeypatch.setattr("harness.workflows.run.evaluate_stage", lambda *_: folders)
    candidate = Checkpoint(path="", kind="adapter", base_path="", weights_sha256="", base_sha256="", contract_sha256="")
    verdict, _ = decision_stage(run, candidate, "test")
    reasons = " ".join(verdict.reasons)
    if told is None:
        assert "training data" not in reasons
    else:
        assert verdict.verdict == "INVALID"
        assert told in reasons
