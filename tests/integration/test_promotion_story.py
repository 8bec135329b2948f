"""From the first promotion to a rollback, with real (tiny) models that really learn and forget, and the real server."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from story import KeptServers, Outcome, Story, call, write_story

pytestmark = pytest.mark.integration

Told = dict[str, Outcome]


@pytest.fixture(scope="module")
def story(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    project = write_story(tmp_path_factory.mktemp("story"), tiny_base)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.chdir(project)
        patch.setattr("harness.evaluate.several.vllm_server", KeptServers(stack).serve)
        yield Story(project)


@pytest.fixture(scope="module")
def told(story: Story) -> Told:
    """The whole story, step by step."""
    told = {"first": story.train("first", "grant"), "first promoted": story.promote("first")}
    told |= {"better": story.train("better", "licence")}
    told |= {"better too early": story.promote("better"), "better gated": story.gate("better")}
    told |= {"better promoted": story.promote("better"), "better in production": call("verify", "production")}
    told |= _candidate(story, "forgetful", "grant", "train.seed=1")
    told |= _candidate(story, "otherwise", "licence", "template=alpaca")
    told |= _candidate(story, "hasty", "licence", "suite=few")
    told |= _tampered(story)
    told |= {"rollback": call("registry", "rollback", "--who", "grace", "--why", "complaints")}
    told |= {"first in production": call("verify", "production")}
    return told | {"list": call("registry", "list"), "verify": call("registry", "verify")}


def _candidate(story: Story, name: str, rows: str, *overrides: str) -> Told:
    return {
        name: story.train(name, rows, *overrides),
        f"{name} gated": story.gate(name),
        f"{name} promoted": story.promote(name),
    }


def _tampered(story: Story) -> Told:
    """The better candidate once more, under another name; its weights are changed after its verdict."""
    better = story.run("better")
    twin = better.with_name("twin-of-better")
    shutil.copytree(better, twin, ignore=shutil.ignore_patterns("against"))
    told = {"twin gated": story.gate("twin")}
    path = twin / "checkpoint" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return told | {"twin promoted": story.promote("twin")}


def verdict_of(folder: Path) -> str:
    return str(json.loads((folder / "verdict.json").read_text())["verdict"])


def test_the_first_candidate_learnt_its_task_and_is_promoted(told: Told) -> None:
    assert told["first"].code == 0, told["first"].said
    assert told["first promoted"].code == 0, told["first promoted"].said


def test_a_candidate_that_was_only_held_against_its_base_model_is_refused(told: Told) -> None:
    assert told["better"].code == 0, told["better"].said
    assert told["better too early"].code == 12
    assert "the verdict's baseline is base, not production" in told["better too early"].said


def test_a_better_candidate_is_promoted(told: Told) -> None:
    assert told["better gated"].code == 0, told["better gated"].said
    assert told["better promoted"].code == 0, told["better promoted"].said
    assert told["better in production"].code == 0, told["better in production"].said


def test_forgetting_that_the_base_model_cannot_show_is_refused(story: Story, told: Told) -> None:
    """It passes against the base model, which never had what it forgot; production had."""
    assert told["forgetful"].code == 0, told["forgetful"].said
    assert told["forgetful gated"].code == 10, told["forgetful gated"].said
    assert verdict_of(story.run("forgetful") / "against" / "production") == "FAIL"
    assert told["forgetful promoted"].code == 10, told["forgetful promoted"].said
    assert "cite/pass fell by 100.0 points" in told["forgetful promoted"].said


def test_another_template_is_refused(told: Told) -> None:
    assert told["otherwise"].code == 0, told["otherwise"].said
    assert told["otherwise gated"].code == 12, told["otherwise gated"].said
    assert told["otherwise promoted"].code == 12
    assert "the prompt contracts differ" in told["otherwise promoted"].said


def test_a_small_evaluation_is_undecided(told: Told) -> None:
    assert told["hasty"].code == 11, told["hasty"].said
    assert told["hasty gated"].code == 11, told["hasty gated"].said
    assert told["hasty promoted"].code == 11, told["hasty promoted"].said
    assert "items would decide" in told["hasty promoted"].said


def test_tampered_weights_are_refused(told: Told) -> None:
    assert told["twin gated"].code == 0, told["twin gated"].said
    assert told["twin promoted"].code == 12
    assert "adapter_model.safetensors changed after it was written" in told["twin promoted"].said


def test_the_rollback_brings_the_first_back(told: Told) -> None:
    assert told["rollback"].code == 0, told["rollback"].said
    assert told["first in production"].code == 0, told["first in production"].said
    assert "production → first-" in told["list"].said


def test_the_history_verifies_and_tells_it_all(told: Told) -> None:
    assert told["verify"].code == 0, told["verify"].said
    acts = [line.split()[2] for line in told["list"].said.splitlines() if " by " in line]
    assert acts == ["promote", "promote", "rollback"]
    assert "by grace: complaints" in told["list"].said


def test_production_carries_its_model_card(story: Story, told: Told) -> None:
    """With the promotion, it leaves the run's folder."""
    (card,) = story.project.glob("registry/models/better-*/MODEL_CARD.md")
    assert "model-index:" in card.read_text()


def test_production_is_served_from_the_registry(story: Story, told: Told) -> None:
    shown = call("serve", "production", "--print", "experiment=story")
    assert shown.code == 0, shown.said
    assert f"{story.project}/registry/models/first-" in shown.said


def test_an_edit_of_the_history_shows(story: Story, told: Told) -> None:
    path = story.project / "registry" / "history.jsonl"
    text = path.read_text()
    path.write_text(text.replace("complaints", "holidays!!"))
    try:
        assert call("registry", "verify").code == 12
        assert call("verify", "production").code == 12
    finally:
        path.write_text(text)
