"""A whole run folder in W&B, offline, read back with wandb's own reader: what a user would see."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import Folder, sample

from harness.config.experiment import Config
from harness.core.store import write_json
from harness.gate.comparison import compare
from harness.model.load import weights_sha256
from harness.records.gate import Verdict
from harness.records.stages import Dataset, SourceCount, TrainingSummary
from harness.results.evidence import read_evidence
from harness.track.run import side_by_side, track_run
from harness.workflows.compose import config_for

pytest.importorskip("wandb")
pytestmark = pytest.mark.usefixtures("own_wandb_home")
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, Verdict]:
    """A run folder with every stage's files, whose candidate got worse on all but ten of 100 items."""
    folder = tmp_path / "tiny-0123456789"
    rows = [sample(n, 1.0) for n in range(100)]
    Folder({"arc": rows}, label="base").write(folder / "eval" / "base")
    worse = [sample(n, float(n < 10), filtered_resps=[f"{HOSTILE} {n}"]) for n in range(100)]
    Folder({"arc": worse}).write(folder / "eval" / "candidate")
    for name in ("data", "checkpoint"):
        (folder / name).mkdir()
    count = SourceCount(
        source="mine", path="rows.jsonl", licence="CC0-1.0", role="domain", sha256="d" * 64, read=5, kept=4,
        quarantined={"quality": 1},
    )  # fmt: skip
    dataset = Dataset(rows=4, sha256="d" * 64, sources=[count], decontaminated_against="", evaluation_items=0)
    dataset.save(folder / "data" / "audit.json")
    curve = [{"step": float(n), "loss": 2.0 / n, "learning_rate": 1e-3} for n in (1, 2, 3)]
    (folder / "checkpoint" / "model.safetensors").write_bytes(b"weights")
    write_json(folder / "checkpoint" / "stage.json", {"stage": "train", "inputs": {"base": "b" * 64}})
    (folder / "checkpoint" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curve))
    summary = {name: 1 for name in TrainingSummary.model_fields if TrainingSummary.model_fields[name].is_required()}
    TrainingSummary.model_validate(summary).save(folder / "checkpoint" / "training.json")
    comparison = compare(read_evidence(folder / "eval" / "base"), read_evidence(folder / "eval" / "candidate"))
    comparison.save(folder / "compare.json")
    verdict = Verdict(
        verdict="FAIL", exit_code=10, policy="p", reasons=["smoke/arc/acc fell by 90.0 points"],
        baseline=comparison.baseline, candidate=comparison.candidate, metrics=[],
    )  # fmt: skip
    verdict.save(folder / "verdict.json")
    return folder, verdict


@pytest.fixture
def config() -> Config:
    return config_for(["experiment=finance_disclaimer", "name=tiny"])


def test_every_stage_is_a_run_of_one_group(finished: tuple[Path, Verdict], config: Config) -> None:
    folder, verdict = finished
    track_run(folder, config.tracking, verdict)
    runs = {found["run"]["job_type"]: found for found in map(read, logs(folder))}
    assert list(runs) == ["audit", "train", "evaluate", "gate"]
    assert {found["run"]["run_group"] for found in runs.values()} == {config.name}
    assert [row["train/loss"] for row in runs["train"]["history"] if "train/loss" in row] == [2.0, 1.0, 2.0 / 3]
    assert runs["evaluate"]["summary"]["smoke/arc/acc"] == pytest.approx(0.1)
    assert runs["evaluate"]["summary"]["base/smoke/arc/acc"] == 1.0
    assert runs["gate"]["summary"]["delta/smoke/arc/acc"] == pytest.approx(-0.9)
    assert runs["audit"]["summary"]["data/rows"] == 4
    assert runs["train"]["summary"]["training/seconds"] == 1, "a total, not the last step's value"


def test_lineage_is_there_after_a_sync(finished: tuple[Path, Verdict], config: Config) -> None:
    """Every stage uses the very version that another one made, and a sync in the order of names made that before."""
    folder, verdict = finished
    track_run(folder, config.tracking, verdict)
    runs = {found["run"]["job_type"]: found for found in map(read, logs(folder))}
    made = {stage: [a["type"] for a in found["artifacts"]] for stage, found in runs.items()}
    assert made == {"audit": ["dataset"], "train": ["model"], "evaluate": ["evaluation"], "gate": ["verdict"]}
    used = {stage: [a["type"] for a in found["used"]] for stage, found in runs.items()}
    assert used == {"audit": [], "train": ["dataset"], "evaluate": ["model"], "gate": ["evaluation"]}
    versions = {(a["name"], a["digest"]) for found in runs.values() for a in found["artifacts"]}
    assert {(a["name"], a["digest"]) for found in runs.values() for a in found["used"]} < versions
    metadata = {a["type"]: json.loads(a["metadata"]) for found in runs.values() for a in found["artifacts"]}
    assert metadata["model"]["base_model"] == metadata["evaluation"]["base_model"] == "b" * 64
    assert metadata["model"]["sha256"] == weights_sha256(folder / "checkpoint")
    names = sorted(path.name for path in folder.glob("wandb/offline-run-*"))
    assert [name.split("-")[6] for name in names] == ["audit", "train", "evaluate", "gate"]


def test_fail_raises_an_alert_that_says_why(finished: tuple[Path, Verdict], config: Config) -> None:
    folder, verdict = finished
    track_run(folder, config.tracking, verdict)
    (alert,) = [alert for log in logs(folder) for alert in read(log)["alerts"]]
    assert alert["title"] == "FAIL: tiny-0123456789"
    assert alert["level"] == "ERROR"
    assert "smoke/arc/acc fell by" in alert["text"]


def test_tracked_again_it_is_the_same_run(finished: tuple[Path, Verdict], config: Config) -> None:
    folder, verdict = finished
    for _ in range(2):
        track_run(folder, config.tracking, verdict)
    ids = [read(log)["run"]["run_id"] for log in logs(folder)]
    assert len(ids) == 8
    assert len(set(ids)) == 4


def test_the_table_shows_both_answers_changed_items_first(finished: tuple[Path, Verdict]) -> None:
    folder = finished[0] / "eval"
    columns, rows = side_by_side(folder / "base", folder / "candidate", "arc", limit=95)
    assert columns == ["item", "filter", "prompt", "target", "base", "candidate", "base acc", "candidate acc"]
    assert [row[6:] for row in rows] == [[1.0, 0.0]] * 90 + [[1.0, 1.0]] * 5
    assert rows[0][2:6] == ["Question 10?", "yes", "answer 10", f"{HOSTILE} 10"]


def logs(folder: Path) -> list[Path]:
    """In the order of names, which a sync follows."""
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def read(log: Path) -> dict[str, Any]:
    """What wandb's own reader finds in an offline run."""
    found: dict[str, Any] = {"history": [], "artifacts": [], "used": [], "alerts": []}
    for line in _inspect("--json", str(log)).splitlines():
        record = json.loads(line)
        if record["type"] == "history":
            found["history"].append(record["history"]["item"])
        elif record["type"] == "artifact" and record["artifact"]["type"] != "run_table":
            kind = "used" if record["artifact"].get("use_after_commit") else "artifacts"
            found[kind].append(record["artifact"])
        elif record["type"] == "alert":
            found["alerts"].append(record["alert"])
        elif record["type"] == "run":
            found["run"] = record["run"]
    return found | {"summary": json.loads(_inspect("--summary", "--json", str(log)))["summary"]}


def _inspect(*arguments: str) -> str:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
