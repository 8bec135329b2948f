"""From the first promotion to a rollback, with real (tiny) models that really learn and forget, and the real server."""

import json
from pathlib import Path

import pytest
from story import Outcome, Story, call

from harness.lineage.chain import Chain
from harness.records.base import load

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def in_the_project(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(story.project)


@pytest.fixture
def told(story: Story) -> dict[str, Outcome]:
    return story.told


def verdict_of(folder: Path) -> str:
    return str(json.loads((folder / "verdict.json").read_text())["verdict"])


def test_the_first_candidate_learnt_its_task_and_is_promoted(told: dict[str, Outcome]) -> None:
    assert told["first"].code == 0, told["first"].said
    assert told["first promoted"].code == 0, told["first promoted"].said


def test_a_candidate_that_was_only_held_against_its_base_model_is_refused(told: dict[str, Outcome]) -> None:
    assert told["better"].code == 0, told["better"].said
    assert told["better too early"].code == 12
    assert "the verdict's baseline is base, not production" in told["better too early"].said


def test_a_better_candidate_is_promoted(told: dict[str, Outcome]) -> None:
    assert told["better gated"].code == 0, told["better gated"].said
    assert told["better promoted"].code == 0, told["better promoted"].said
    assert told["better in production"].code == 0, told["better in production"].said


def test_a_candidate_that_is_in_production_already_needs_no_decision(story: Story, told: dict[str, Outcome]) -> None:
    """A job that runs again after the promotion: nothing moves, and what the promotion rests on stays."""
    assert told["better gated again"].code == 0
    assert "UNCHANGED: " in told["better gated again"].said
    assert told["better promoted again"].code == 0
    assert "production already points to this model" in told["better promoted again"].said
    compared = json.loads((story.run("better") / "against" / "production" / "compare.json").read_text())
    assert compared["baseline"]["weights_sha256"] != compared["candidate"]["weights_sha256"]


def test_a_checkpoint_between_base_and_trained_model_is_promoted(story: Story, told: dict[str, Outcome]) -> None:
    """Its chain goes from the data over the training and alpha to the promotion."""
    for act in ("half", "half verified", "half promoted", "canary"):
        assert told[act].code == 0, told[act].said
    kept = min(story.project.glob("registry/models/half-*"), key=lambda folder: folder.stat().st_mtime)
    chain = load(Chain, kept / "evidence.json")
    steps = {step.stage: step for step in chain.steps}
    assert steps["train"].inputs["data.dataset"] == steps["data"].outputs["dataset"]
    assert steps["scale"].inputs["train.weights"] == steps["train"].outputs["weights"]
    assert steps["evaluate_candidate"].inputs["scale.weights"] == steps["scale"].outputs["weights"]
    assert chain.promotion["weights"] == steps["scale"].outputs["weights"] != steps["train"].outputs["weights"]
    assert json.loads((kept / "checkpoint" / "origin.json").read_text()) == {"made_from": "../trained", "alpha": 0.5}


def test_a_checkpoint_named_with_alpha_is_linked_to_the_data_of_its_run(story: Story, told: dict[str, Outcome]) -> None:
    assert told["by hand"].code == 0, told["by hand"].said
    assert told["by hand verified"].code == 0, told["by hand verified"].said
    for link in ("data.dataset → train", "train.weights → scale", "scale.weights → evaluate_candidate"):
        assert f"OK      {link}: " in told["by hand verified"].said
    folders = (story.run("better"), story.project / "by-hand")
    better, half = ({step.stage: step for step in load(Chain, one / "evidence.json").steps} for one in folders)
    assert better["data"].outputs == half["data"].outputs


def stops(decision: Path) -> dict[str, int | None]:
    """How many items of each task the candidate was asked."""
    step = load(Chain, decision / "evidence.json").step("evaluate_candidate")
    assert step is not None
    record = json.loads((decision / step.folder / "evaluation.json").read_text())
    return {name: task["stopped_at"] for name, task in record["tasks"].items()}


def test_a_candidate_is_asked_until_it_is_decided(story: Story, told: dict[str, Outcome]) -> None:
    """Each task until it is decided against two baselines, whose answers are known; interrupted, and begun again."""
    assert told["looks interrupted"].code == 130
    assert "35 of 45 requests were answered before" in told["looks"].said
    assert told["looks"].code == 0, told["looks"].said
    decision = story.project / "in-looks"
    verdict = json.loads((decision / "verdict.json").read_text())
    lines = {(line["task"], line["against"], line["look"]) for line in verdict["metrics"]}
    assert lines == {("agree", None, 1), ("cite", None, 2), ("cite", "production", 2)}
    assert stops(decision) == {"agree": 15, "cite": 30}
    assert told["looks verified"].code == 0, told["looks verified"].said
    (production,) = (step for step in load(Chain, decision / "evidence.json").steps if "production" in step.stage)
    assert "registry" not in production.folder, "it was evaluated on these items, beside the candidate"


def test_looks_decide_where_everything_was_answered_before(story: Story, told: dict[str, Outcome]) -> None:
    """And their decision is good for a promotion."""
    for act in ("half in looks", "half in looks promoted", "looked"):
        assert told[act].code == 0, told[act].said
    assert "start vLLM" not in told["half in looks"].said
    assert stops(story.project / "in-looks-again") == {"agree": 30, "cite": 30}
    assert "stopped early (agree, cite). It cannot be a baseline" in told["half in looks promoted"].said


def test_those_who_watch_see_the_curve_in_the_run_that_is_completed_later(story: Story) -> None:
    live, *later = story.tracked
    curve = [json.loads(line) for line in (story.run("twin") / "checkpoint" / "train.jsonl").read_text().splitlines()]
    assert (live.stage, live.losses, live.made) == ("train", [row["loss"] for row in curve], [])
    assert {tracked.stage: tracked.made for tracked in later} == {
        "audit": ["dataset"], "train": ["model"], "evaluate": ["evaluation"], "gate": ["verdict"]
    }  # fmt: skip
    assert live.name == next(tracked.name for tracked in later if tracked.stage == "train")


def test_forgetting_that_the_base_model_cannot_show_is_refused(story: Story, told: dict[str, Outcome]) -> None:
    """It passes against the base model, which never had what it forgot; production had."""
    assert told["forgetful"].code == 0, told["forgetful"].said
    assert told["forgetful gated"].code == 10, told["forgetful gated"].said
    assert verdict_of(story.run("forgetful") / "against" / "production") == "FAIL"
    assert told["forgetful promoted"].code == 10, told["forgetful promoted"].said
    assert "cite/pass fell by 100.0 points" in told["forgetful promoted"].said


def test_another_template_is_refused(told: dict[str, Outcome]) -> None:
    assert told["otherwise"].code == 0, told["otherwise"].said
    assert told["otherwise gated"].code == 12, told["otherwise gated"].said
    assert told["otherwise promoted"].code == 12
    assert "the prompt contracts differ" in told["otherwise promoted"].said


def test_a_small_evaluation_is_undecided(told: dict[str, Outcome]) -> None:
    assert told["hasty"].code == 11, told["hasty"].said
    assert told["hasty gated"].code == 11, told["hasty gated"].said
    assert told["hasty promoted"].code == 11, told["hasty promoted"].said
    assert "items in all" in told["hasty promoted"].said


def test_tampered_weights_are_refused(told: dict[str, Outcome]) -> None:
    assert told["twin gated"].code == 0, told["twin gated"].said
    assert told["twin promoted"].code == 12
    assert "adapter_model.safetensors changed after it was written" in told["twin promoted"].said


def test_the_rollback_brings_the_first_back(told: dict[str, Outcome]) -> None:
    assert told["rollback"].code == 0, told["rollback"].said
    assert told["first in production"].code == 0, told["first in production"].said
    assert "production → first-" in told["list"].said


def test_the_history_verifies_and_tells_it_all(told: dict[str, Outcome]) -> None:
    assert told["verify"].code == 0, told["verify"].said
    acts = [line.split()[2] for line in told["list"].said.splitlines() if " by " in line and " init " not in line]
    assert acts == ["promote", "promote", "promote", "promote", "rollback"]
    assert "by grace: complaints" in told["list"].said


def test_production_carries_its_model_card(story: Story, told: dict[str, Outcome]) -> None:
    """With the promotion, it leaves the run's folder."""
    (card,) = story.project.glob("registry/models/better-*/MODEL_CARD.md")
    assert "model-index:" in card.read_text()


def test_production_is_served_from_the_registry(story: Story, told: dict[str, Outcome]) -> None:
    shown = call("serve", "production", "--print", "experiment=story")
    assert shown.code == 0, shown.said
    assert f"{story.project}/registry/models/first-" in shown.said


def test_an_edit_of_the_history_shows(story: Story, told: dict[str, Outcome]) -> None:
    path = story.project / "registry" / "history.jsonl"
    text = path.read_text()
    path.write_text(text.replace("complaints", "holidays!!"))
    try:
        assert call("registry", "verify").code == 12
        assert call("verify", "production").code == 12
    finally:
        path.write_text(text)
