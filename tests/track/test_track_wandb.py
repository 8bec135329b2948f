"""Offline W&B runs, read back with wandb's own reader (`wandb leet inspect`)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.config.experiment import TrackerConfig
from harness.core.errors import EnvironmentFault
from harness.track.open import check_tracker, open_tracker
from harness.track.tracker import Artifact, Tracker

pytest.importorskip("wandb")
pytestmark = pytest.mark.usefixtures("own_wandb_home")
OFFLINE = TrackerConfig(kind="wandb", project="clinic")
KEY = "4f2a9c" * 6 + "77d1"


def open_offline(folder: Path, settings: dict[str, object] | None = None) -> Tracker:
    return open_tracker(
        OFFLINE, folder=folder, group="disclaimer", stage="evaluate", run_name="run-1", settings=settings or {}
    )


def records(folder: Path) -> list[dict[str, Any]]:
    (log,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    return [json.loads(line) for line in _inspect("--json", str(log)).splitlines()]


def summary(folder: Path) -> dict[str, Any]:
    (log,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found: dict[str, Any] = json.loads(_inspect("--summary", "--json", str(log)))
    return found


def _inspect(*arguments: str) -> str:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout


def test_an_offline_run_holds_what_was_tracked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    tracker = open_offline(run, {"train": {"learning_rate": 3e-4}})
    for step, loss in enumerate((2.5, 1.5, 1.25), start=1):
        tracker.metrics({"train/loss": loss}, step)
    tracker.summary({"smoke/disclaimer/recall": 0.964})
    tracker.table("samples/disclaimer", ["prompt", "response"], [["dose?", "Ask your doctor."], ["x", None]])
    tracker.finish(10)

    found = summary(run)
    assert found["summary"]["smoke/disclaimer/recall"] == 0.964
    assert found["summary"]["samples/disclaimer"]["nrows"] == 2
    assert found["config"] == {"train": {"learning_rate": 3e-4}}
    assert (found["project"], found["name"], found["exit_code"]) == ("clinic", "run-1", 10)
    log = records(run)
    history = [record["history"]["item"] for record in log if record["type"] == "history"]
    assert [row["train/loss"] for row in history if "train/loss" in row] == [2.5, 1.5, 1.25]
    (opened,) = [record["run"] for record in log if record["type"] == "run"]
    assert (opened["run_group"], opened["job_type"]) == ("disclaimer", "evaluate")
    assert capfd.readouterr() == ("", "")


def test_nothing_about_this_machine_is_kept(tmp_path: Path) -> None:
    open_offline(tmp_path / "run").finish(0)
    kinds = {record["type"] for record in records(tmp_path / "run")}
    assert not kinds & {"environment", "stats", "output", "output_raw"}


@pytest.fixture
def made(tmp_path: Path) -> tuple[Artifact, Artifact]:
    """A model, and the verdict on it."""
    run = tmp_path / "run"
    (run / "checkpoint" / "sub").mkdir(parents=True)
    (run / "checkpoint" / "sub" / "model.safetensors").write_bytes(b"weights")
    (run / "verdict.json").write_text("{}")
    model = Artifact("disclaimer/model", "model", run / "checkpoint", "b" * 64, digests={"base_model": "a" * 64})
    return model, Artifact("disclaimer-verdict", "verdict", run / "verdict.json", "c" * 64, (model,))


def artifacts(folder: Path) -> list[dict[str, Any]]:
    return [record["artifact"] for record in records(folder) if record["type"] == "artifact"]


def test_artifacts_name_their_inputs_and_are_not_copied(tmp_path: Path, made: tuple[Artifact, Artifact]) -> None:
    run = tmp_path / "run"
    tracker = open_offline(run)
    tracker.artifact(made[0], "candidate")
    tracker.artifact(made[1])
    tracker.finish(0)
    model, used, verdict = artifacts(run)
    assert (model["name"], model["type"]) == ("disclaimer-model", "model")
    assert set(model["aliases"]) == {"latest", "candidate"}
    assert json.loads(model["metadata"]) == {"sha256": "b" * 64, "inputs": [], "base_model": "a" * 64}
    assert "use_after_commit" not in model
    for artifact in (model, used):
        (entry,) = artifact["manifest"]["contents"]
        assert entry["path"] == "sub/model.safetensors"
        assert Path(entry["local_path"]) == run / "checkpoint" / "sub" / "model.safetensors"
    assert json.loads(verdict["metadata"])["inputs"] == ["disclaimer-model"]
    assert [entry["path"] for entry in verdict["manifest"]["contents"]] == ["verdict.json"]
    copies = [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"weights"]
    assert copies == [run / "checkpoint" / "sub" / "model.safetensors"]


def test_an_input_is_declared_as_the_version_that_its_own_stage_made(
    tmp_path: Path, made: tuple[Artifact, Artifact]
) -> None:
    """After a sync the server finds the same name and digest, and links it: no version is made of an input."""
    for folder, artifact in zip(("train", "gate"), made, strict=True):
        tracker = open_offline(tmp_path / folder)
        tracker.artifact(artifact)
        tracker.finish(0)
    (model,) = artifacts(tmp_path / "train")
    used, verdict = artifacts(tmp_path / "gate")
    assert {key: used[key] for key in ("name", "type", "digest")} == {k: model[k] for k in ("name", "type", "digest")}
    assert (used["use_after_commit"], used["user_created"], used["finalize"]) == (True, True, True)
    assert used["aliases"] == ["latest"], "no other alias moves with an input"
    assert "use_after_commit" not in verdict


def test_samples_stay_in_the_run_folder(tmp_path: Path) -> None:
    tracker = open_offline(tmp_path / "run")
    tracker.table("samples/notes", ["response"], [["patient seven"]])
    tracker.finish(0)
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and b"patient seven" in path.read_bytes()]
    assert holders
    assert all(path.is_relative_to(tmp_path / "run") for path in holders)
    assert "WANDB_DATA_DIR" not in os.environ


def test_no_key_reaches_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    run = tmp_path / "run"
    settings: dict[str, object] = {"api_key": KEY, "nested": {"note": f"use {KEY} here"}, "list": [KEY], "kept": 7}
    tracker = open_offline(run, settings)
    tracker.summary({"a/b/c": 1.0})
    tracker.finish(0)
    files = [path for path in run.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert summary(run)["config"]["kept"] == 7


def test_a_failure_is_one_warning_and_the_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    tracker = open_offline(tmp_path / "run")
    tracker.metrics({"loss": 1.0}, 1)
    tracker.artifact(Artifact("x", "model", tmp_path / "missing", ""))
    tracker.finish(0)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("warning: tracking stopped, the run continues: FileExistsError")


def test_a_failure_in_the_middle_keeps_what_came_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = open_offline(tmp_path / "run")
    tracker.summary({"smoke/disclaimer/recall": 0.5})
    tracker.artifact(Artifact("x", "dataset", tmp_path / "missing", ""))
    tracker.summary({"smoke/disclaimer/recall": 0.7})
    tracker.finish(0)
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert summary(tmp_path / "run")["summary"]["smoke/disclaimer/recall"] == 0.5


def test_online_without_a_key_stops_before_anything_starts(tmp_path: Path) -> None:
    """In a process of its own: wandb reads its environment once."""
    code = (
        "from harness.config.experiment import TrackerConfig; from harness.track.open import check_tracker; "
        "check_tracker(TrackerConfig(kind='wandb', mode='online'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code]
    without = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert f"{EnvironmentFault.__name__}: tracker.mode=online needs a W&B key" in without.stderr
    environment["WANDB_API_KEY"] = KEY
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    assert list(tmp_path.rglob("*.wandb")) == []


def test_offline_needs_no_account() -> None:
    check_tracker(OFFLINE)


def test_the_environment_can_switch_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    open_offline(tmp_path / "run").finish(0)
    check_tracker(TrackerConfig(kind="wandb", mode="online"))
    assert list(tmp_path.rglob("*.wandb")) == []


def test_a_key_that_cannot_be_one_stops_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(EnvironmentFault, match=r"the key that was found is not one: .*40\+ characters"):
        check_tracker(TrackerConfig(kind="wandb", mode="online"))


def test_a_name_that_is_set_for_a_process_is_not_that_of_each_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`wandb agent` sets them: the stage with every metric reports to the agent's run, the others to their own."""
    monkeypatch.setenv("WANDB_RUN_ID", "agents-run")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    found = {}
    for stage in ("train", "gate"):
        folder = tmp_path / stage
        open_tracker(OFFLINE, folder=folder, group="g", stage=stage, run_name=f"r-{stage}", settings={}).finish(0)
        (found[stage],) = [record["run"] for record in records(folder) if record["type"] == "run"]
    assert (found["train"]["run_id"], found["train"].get("sweep_id", "")) == ("r-train", "")
    assert (found["gate"]["run_id"], found["gate"]["sweep_id"]) == ("agents-run", "sweep1")
    assert os.environ["WANDB_RUN_ID"] == "agents-run"


def test_long_names_are_shortened_and_stay_distinct(tmp_path: Path) -> None:
    ids = []
    for ending in "ab":
        folder = tmp_path / ending
        name = "n" * 200 + ending
        open_tracker(OFFLINE, folder=folder, group=name, stage="train", run_name=name, settings={}).finish(0)
        (run,) = [record["run"] for record in records(folder) if record["type"] == "run"]
        assert len(run["run_id"]) == len(run["run_group"]) == len(run["display_name"]) == 128
        ids.append(run["run_id"])
    assert len(set(ids)) == 2


def test_the_name_of_this_machine_is_not_kept(tmp_path: Path) -> None:
    open_offline(tmp_path / "run").finish(0)
    (run,) = [record["run"] for record in records(tmp_path / "run") if record["type"] == "run"]
    assert run.get("host") in (None, "", "-")
