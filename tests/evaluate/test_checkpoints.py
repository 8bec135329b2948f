"""What decides whether an evaluation is reused: contents, never paths or names."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.config.experiment import Config, JudgeConfig
from harness.core.layout import EVALUATION
from harness.core.store import sha256_json
from harness.evaluate import checkpoints
from harness.evaluate.checkpoints import evaluate_checkpoints, judge_scope
from harness.evaluate.fingerprint import answer_scope, evaluation_inputs
from harness.evaluate.interim_looks import InterimLooks
from harness.model.load import weights_sha256
from harness.records.stages import Checkpoint, Evaluation
from harness.workflows.compose import config_for

CONTRACT: Any = SimpleNamespace(digest="c" * 64)


@pytest.fixture(scope="module")
def config() -> Config:
    return config_for(["tracker=none", "domain_tasks=[]"])


def model(folder: Path, weights: bytes = b"weights") -> Checkpoint:
    """The record of a folder that is a full model as far as digests go."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 1}))
    digest = weights_sha256(folder)
    return Checkpoint(
        path=str(folder),
        kind="full",
        base_path=str(folder),
        weights_sha256=digest,
        base_sha256=digest,
        contract_sha256=CONTRACT.digest,
    )


def digests(checkpoint: Checkpoint, config: Config) -> tuple[str, str]:
    """What names the journal, and what the evaluation's fingerprint is made of."""
    inputs = evaluation_inputs(checkpoint, CONTRACT, config.evaluation)
    return sha256_json(answer_scope(checkpoint, CONTRACT, config.evaluation)), sha256_json(inputs)


def test_the_same_contents_elsewhere_are_the_same_model(tmp_path: Path, config: Config) -> None:
    assert digests(model(tmp_path / "a"), config) == digests(model(tmp_path / "b" / "c"), config)


def test_an_overwritten_folder_is_another_model(tmp_path: Path, config: Config) -> None:
    before = digests(model(tmp_path / "a"), config)
    after = digests(model(tmp_path / "a", b"Weights"), config)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_another_template_in_the_folder_is_evaluated_again(tmp_path: Path, config: Config) -> None:
    checkpoint = model(tmp_path / "a")
    before = digests(checkpoint, config)
    (tmp_path / "a" / "chat_template.jinja").write_text("changed")
    after = digests(checkpoint, config)
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_a_task_is_evaluated_again_for_its_items_and_not_for_its_gate_file(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = tmp_path / "tasks" / "own"
    task.mkdir(parents=True)
    checkpoint = model(tmp_path / "a")
    before = digests(checkpoint, config)
    (task / "gate.yaml").write_text("default: []\n")
    assert digests(checkpoint, config) == before
    (task / "items.jsonl").write_text("{}\n")
    assert digests(checkpoint, config)[1] != before[1]


def test_answers_are_shared_by_suites_and_evaluations_are_not(tmp_path: Path, config: Config) -> None:
    checkpoint = model(tmp_path / "a")
    other = config_for(["tracker=none", "domain_tasks=[]", "suite.tasks=[{name: general_smoke, limit: 3}]"])
    before, after = digests(checkpoint, config), digests(checkpoint, other)
    assert before[0] == after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize("override", ["serve.max_model_len=4096", "model.dtype=float32", "serve.enforce_eager=false"])
def test_what_changes_numbers_changes_the_journal(tmp_path: Path, config: Config, override: str) -> None:
    checkpoint = model(tmp_path / "a")
    other = config_for(["tracker=none", "domain_tasks=[]", override])
    assert digests(checkpoint, config)[0] != digests(checkpoint, other)[0]


def judged(config: Config, judge: JudgeConfig | None, **sides: Checkpoint) -> dict[str, Any] | None:
    """The scope of the judge's replies about the last checkpoint."""
    suite = config.suite.model_copy(update={"judge": judge})
    where = Path("eval"), Path("log"), dict
    job = checkpoints.Job(sides, CONTRACT, config.model_copy(update={"suite": suite}).evaluation, *where, None)
    return judge_scope(job, dict(list(sides.items())[-1:]))


def test_replies_of_a_judge_on_the_server_are_kept_by_its_weights(tmp_path: Path, config: Config) -> None:
    base = model(tmp_path / "a")
    adapter = base.model_copy(update={"kind": "adapter", "path": str(tmp_path), "weights_sha256": "one"})
    other = adapter.model_copy(update={"weights_sha256": "two"})
    own = answer_scope(base, CONTRACT, config.evaluation)
    assert judged(config, None, base=base, one=adapter) is None
    assert judged(config, JudgeConfig(), base=base, one=adapter) == own
    assert judged(config, JudgeConfig(), one=adapter) == own  # the adapters' base model, which is not evaluated
    found = judged(config, JudgeConfig(model="one"), one=adapter, two=other)
    assert found == answer_scope(adapter, CONTRACT, config.evaluation) != own


def test_replies_of_a_judge_behind_a_url_are_kept_for_these_evaluations(tmp_path: Path, config: Config) -> None:
    judge = JudgeConfig(url="http://127.0.0.1:9", model="big")
    first = judged(config, judge, base=model(tmp_path / "a"))
    assert first == judged(config, judge, base=model(tmp_path / "b"))
    assert first != judged(config, judge, base=model(tmp_path / "c", b"other"))
    assert first != judged(config, judge.model_copy(update={"model": "small"}), base=model(tmp_path / "a"))


@pytest.mark.parametrize(("known", "groups"), [([], [["base"], ["candidate"]]), (["base"], [["candidate"]])])
def test_looks_at_a_whole_model_see_its_baseline_finished(
    known: list[str], groups: list[list[str]], tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models without a common base have two servers: the baseline is evaluated first, or was before."""
    asked: list[list[str]] = []

    def evaluate(job: Any, group: Any, sound: Any, done: dict[str, Path]) -> dict[str, Path]:
        assert "candidate" not in group or "base" in done
        asked.append(list(group))
        return {label: tmp_path / "made" / label for label in group}

    monkeypatch.setattr(checkpoints, "contract_of", lambda *_: CONTRACT)
    monkeypatch.setattr(checkpoints, "_evaluate", evaluate)
    looks = InterimLooks(
        lambda n: [n], lambda task, items: list(items), 1, "none", lambda folders: [], in_full={"base"}
    )
    sides = {"base": model(tmp_path / "a"), "candidate": model(tmp_path / "b", b"other")}
    at_hand = {label: tmp_path / "known" / label for label in known}
    where = tmp_path / "eval", tmp_path / "vllm.log", dict
    folders = evaluate_checkpoints(sides, config.evaluation, *where, looks, at_hand)
    assert asked == groups
    assert folders == {label: tmp_path / "made" / label for label in sides} | at_hand


@pytest.mark.parametrize("vanished", [False, True])
def test_an_evaluation_that_vanishes_while_it_is_reused_is_made_again(
    vanished: bool, tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may replace it at any moment."""
    runs = config.model_copy(update={"runs_dir": str(tmp_path / "runs")})
    sides = {"base": model(tmp_path / "a")}
    monkeypatch.setattr(checkpoints, "contract_of", lambda *_: CONTRACT)
    where = tmp_path / "runs" / "first" / "eval", tmp_path / "log", dict
    job = checkpoints.Job(sides, CONTRACT, runs.evaluation, *where, None)
    record = Evaluation(
        label="base", suite="smoke", weights_sha256="w", contract_sha256="c", tasks={}, groups={}, scores=[],
        prompts_checked=0, seconds=1.0,
    )  # fmt: skip
    checkpoints._finished(job, "base", lambda folder: record.save(folder / EVALUATION))
    asked: list[str] = []

    def evaluate(job: Any, group: Any, sound: Any, done: dict[str, Path]) -> dict[str, Path]:
        asked.extend(group)
        return dict.fromkeys(group, tmp_path / "made")

    monkeypatch.setattr(checkpoints, "_evaluate", evaluate)
    if vanished:
        monkeypatch.setattr("harness.core.store._taken_over", lambda *_: False)
    out = tmp_path / "runs" / "second" / "eval"
    folders = evaluate_checkpoints(sides, runs.evaluation, out, tmp_path / "log", dict)
    assert (asked, folders["base"]) == ((["base"], tmp_path / "made") if vanished else ([], out / "base"))


def test_items_grow_look_by_look_in_one_order() -> None:
    def order(task: str, items: Sequence[int]) -> list[int]:
        return sorted(items, reverse=True)

    looks = InterimLooks(lambda planned: [2, planned // 2], order, seed=1, rule="none", decided=lambda folders: [])
    asked: list[dict[str, list[int]]] = []
    items = looks.run({"a": range(10), "b": range(6)}, lambda items: asked.append(dict(items)), lambda items: {})
    assert [(len(look["a"]), len(look["b"])) for look in asked] == [(2, 2), (5, 3), (10, 6)]
    assert all(look["a"] == list(range(9, -1, -1))[: len(look["a"])] for look in asked)
    assert sorted(items["a"]) == list(range(10))
