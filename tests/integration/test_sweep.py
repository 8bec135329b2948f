"""`harness sweep` on the tiny model: members are trained, evaluated on one server, decided on, and continued."""

import json
from pathlib import Path

import pytest
import tiny
from test_run import harness, write_project

pytestmark = pytest.mark.integration

MEMBERS = ("experiment=tiny", "train.learning_rate=1e-3,1e-2,-1")
GOOD = ("experiment=tiny", "train.learning_rate=1e-3,1e-2")


@pytest.fixture
def project(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_project(tmp_path, tiny_base))
    return tmp_path


def test_members_are_evaluated_together_and_decided_on(project: Path, tiny_base: Path) -> None:
    wrong = harness("sweep", *MEMBERS)
    assert wrong.code == 2, wrong.said
    assert "train.learning_rate: " in wrong.said
    assert "in 1 of 3 members" in wrong.said
    assert not list(project.glob("runs/tiny-*"))  # nothing starts before every member is valid

    found = harness("sweep", *GOOD)
    assert found.said.count("start vLLM") == 1, found.said
    assert "start vLLM: base, member-1, member-2" in found.said
    assert tiny.alive(found.server_pids) == []
    (path,) = project.glob("runs/sweep-*/sweep.json")
    sweep = json.loads(path.read_text())
    assert [one["state"] for one in sweep["members"]] == ["decided", "decided"]
    assert found.code == max(one["exit_code"] for one in sweep["members"])
    for member in sweep["members"]:
        folder = project / "runs" / member["run"]
        verdict = json.loads((folder / "verdict.json").read_text())
        assert verdict["verdict"] == member["verdict"]
        assert any("one of 2 candidates" in note for note in verdict["notes"])
        evaluation = json.loads((folder / "eval/candidate/evaluation.json").read_text())
        assert evaluation["label"] == "candidate"
        verified = harness("verify", str(folder))
        assert verified.code == 0, verified.said

    again = harness("sweep", *GOOD)
    assert again.code == found.code
    assert "start vLLM" not in again.said
    assert json.loads(path.read_text())["members"] == sweep["members"]

    # A later decision on a member keeps the level of its sweep, whatever the policy says.
    member = f"runs/{sweep['members'][0]['run']}"
    out = project / "decided"
    harness("gate", f"{member}/eval/base", member, "policy=smoke", "--out", str(out))
    assert json.loads((out / "policy.json").read_text())["candidates"] == 2
    assert any("one of 2 candidates" in note for note in json.loads((out / "verdict.json").read_text())["notes"])


def test_devices_train_in_processes_and_a_failing_member_leaves_the_others(project: Path) -> None:
    settings = ("train.sequence_length=16,256", "train.too_long=error", "launch.devices=[5,6]")
    found = harness("sweep", "experiment=tiny", *settings)
    (path,) = project.glob("runs/sweep-*/sweep.json")
    failed, decided = json.loads(path.read_text())["members"]
    assert found.said.count("training on device") == 2
    assert (failed["state"], failed["exit_code"]) == ("failed", 2)
    assert "train.log" in failed["reason"]
    assert decided["state"] == "decided", decided
    assert (project / "runs" / decided["run"] / "verdict.json").is_file()
    assert found.code == 2  # the gravest
    assert f"recommended: {decided['run'] if decided['verdict'] == 'PASS' else 'none'}" in found.said
