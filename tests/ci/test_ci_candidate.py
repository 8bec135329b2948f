"""What `harness ci` evaluates, what it takes over, and what it refuses before anything is evaluated."""

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import answers, one_task
from run_folders import POLICY_OF_TESTS

from harness.ci import candidate as ci
from harness.compose import config_for
from harness.config import Config
from harness.errors import UsageError
from harness.evaluate.several import EVALUATE
from harness.records import Checkpoint
from harness.store import stage


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "runs").mkdir()
    return config_for(["experiment=finance_disclaimer"]).model_copy(update={"runs_dir": str(tmp_path / "runs")})


def model(path: Path, contract: str) -> Checkpoint:
    return Checkpoint(
        path=str(path), kind="full", base_path=str(path), weights_sha256=path.name, base_sha256="b",
        contract_sha256=contract,
    )  # fmt: skip


def test_a_further_baseline_without_evaluation_is_refused_first(config: Config, tmp_path: Path) -> None:
    policy = POLICY_OF_TESTS.model_copy(update={"baselines": ["gone", "lost"]})
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(policy.model_dump(mode="json")))
    with pytest.raises(UsageError, match=r"(?s)baseline gone: .*baseline lost: ") as caught:
        ci.decide_candidate("no such candidate", "base", str(path), config, tmp_path / "out", "test")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("failed", [0, 2])
def test_an_evaluation_with_failed_requests_is_made_again(
    failed: int, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ci, "contract_of", lambda *_: None)
    monkeypatch.setattr(ci, "evaluation_inputs", lambda *_: {"settings": "same"})
    run = tmp_path / "runs" / "mine"
    checkpoint = model(run / "checkpoint", "c")

    def work(out: Path) -> None:
        record = one_task(answers(3, 4)).write(out / "made") / "evaluation.json"
        (out / "evaluation.json").write_text(json.dumps(json.loads(record.read_text()) | {"failed_requests": failed}))

    inputs = {"settings": "same", "label": "candidate"}
    folder, _ = stage(run.parent, run / "eval" / "candidate", EVALUATE, inputs, work)
    assert ci._own_evaluation(checkpoint, checkpoint, config) == (None if failed else folder)


@pytest.mark.parametrize(("contract", "asked"), [("mine", ["production"]), ("other", ["production", "note"])])
def test_a_lone_baseline_is_asked_under_the_candidate_s_contract(
    contract: str, asked: list[str], config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def evaluate(checkpoints: dict[str, Checkpoint], *_: Any) -> dict[str, Path]:
        given.extend(checkpoints)
        return {label: tmp_path / "made" / label for label in checkpoints}

    baseline, candidate = model(tmp_path / "b", contract), model(tmp_path / "c", "mine")
    monkeypatch.setattr(ci, "evaluate_checkpoints", evaluate)
    monkeypatch.setattr(ci, "_own_evaluation", lambda found, *_: tmp_path / "own" if found is candidate else None)
    folders = ci.evaluated(ci.Sides("production", "note", (baseline, candidate)), config)
    assert given == asked
    assert folders == (tmp_path / "made" / "production", tmp_path / ("own" if len(asked) == 1 else "made/note"))
