"""Suites: what they hold, what their sizes can show, what is skipped; and judging an evaluation's answers."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_server import judge_server

from harness.cli import main
from harness.config.experiment import JudgeConfig
from harness.core.errors import ConfigError
from harness.core.resources import TASKS
from harness.data.evaluation_items import read_items
from harness.evaluate import llm_judge
from harness.evaluate.checkpoints import _is_final
from harness.evaluate.judging import SampleJudge, sample_judge
from harness.evaluate.tasks.suite import detectable_drops, smallest_drop
from harness.records.base import load
from harness.records.stages import Evaluation, TaskIdentity
from harness.serve.server import Endpoint
from harness.stats.power import n_for_noninferiority
from harness.workflows.compose import choices, config_for

ABILITIES = {
    "knowledge": {"arc_easy", "openbookqa", "general_mmlu"},
    "reasoning": {"hellaswag", "piqa"},
    "reading": {"general_smoke_reading", "lambada_openai"},
    "mathematics": {"gsm8k"},
    "instructions": {"ifeval"},
    "truthfulness": {"truthfulqa_mc2"},
}
LABELS = read_items(TASKS / "tone" / "labelled" / "answers.jsonl")
ITEM = read_items(TASKS / "tone" / "items.jsonl")[0]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def names(suite: str) -> list[str]:
    return [task.name for task in config_for([f"suite={suite}"]).tasks]


class TestComposition:
    def test_the_suites_that_users_rely_on(self) -> None:
        assert set(choices("suite")) >= {"smoke", "general", "clinical", "finance", "domain", "full"}

    def test_general_covers_every_ability(self) -> None:
        assert set(names("general")) == set().union(*ABILITIES.values())

    def test_full_is_general_and_domain(self) -> None:
        full = {task.name: task for task in config_for(["suite=full"]).tasks}
        parts = {t.name: t for suite in ("general", "domain") for t in config_for([f"suite={suite}"]).tasks}
        del parts["general_smoke"]  # the guard of the domain suites; in the full suite the general tasks are guards
        assert full == parts
        assert list(full) == [*names("general"), *(name for name in names("domain") if name != "general_smoke")]

    @pytest.mark.parametrize("policy", ["default", "strict", "clinical"])
    def test_general_is_guarded_by_the_policies(self, policy: str) -> None:
        rules = config_for([f"gate={policy}"]).gate.rules
        guarded = {rule.metric.split("/")[1] for rule in rules if rule.role == "guard"}
        assert guarded >= set(names("general")) - {"general_smoke_reading"}

    def test_a_task_is_left_out_by_name_only(self) -> None:
        config = config_for(["suite=general", "suite.skip=[truthfulqa_mc2, ifeval]"])
        assert {task.name for task in config.tasks} == set(names("general")) - {"truthfulqa_mc2", "ifeval"}
        with pytest.raises(ConfigError, match=r"skip names no task of the suite: truthfulqa\. Did you mean 'truthful"):
            config_for(["suite=general", "suite.skip=[truthfulqa]"])
        with pytest.raises(ConfigError, match="skip leaves no task"):
            config_for(["suite=smoke", "suite.skip=[general_smoke]"])


class TestDetectableDrop:
    @given(st.integers(1, 20_000), st.sampled_from([0.05, 0.1, 0.2, 0.5]))
    def test_it_is_the_smallest_margin_that_so_many_items_show(self, items: int, discordance: float) -> None:
        drop = smallest_drop(items, discordance, 0.05, 0.9)
        if drop is None:
            assert n_for_noninferiority(0.999, discordance, 0.05, 0.9) > items
            return
        assert n_for_noninferiority(drop, discordance, 0.05, 0.9) <= items
        if drop > 2e-4:
            assert n_for_noninferiority(drop - 2e-4, discordance, 0.05, 0.9) > items

    def test_350_items_show_the_default_margin(self) -> None:
        assert smallest_drop(350, 0.10, 0.05, 0.9) == pytest.approx(0.0495, abs=1e-4)

    def test_it_uses_the_policys_error_rates(self) -> None:
        default, strict = (
            detectable_drops(
                config_for(["suite=smoke", f"gate.alpha_pass={alpha}"]).evaluation, {"general_smoke": 520}
            )[0].drops
            for alpha in (0.05, 0.01)
        )
        assert all(a is not None and b is not None and a < b for a, b in zip(default, strict, strict=True))

    def test_a_user_sees_it_before_anything_is_evaluated(self, capsys: pytest.CaptureFixture[str]) -> None:
        tasks = "suite.tasks=[{name: general_smoke}, {name: disclaimer, limit: 100}]"
        assert main(["evaluate", "--describe", tasks]) == 0
        lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
        assert lines["general_smoke"] == ["520", "4.1", "/", "5.7"]
        assert lines["disclaimer"] == ["100", "9.3", "/", "13.1"]

    def test_evaluate_without_a_checkpoint_says_what_to_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["evaluate", "suite=smoke"]) == 2
        assert "harness evaluate CHECKPOINT" in capsys.readouterr().err


def evaluation(folder: Path, answers: list[str]) -> Path:
    """An evaluation of `tone` as `evaluate` leaves it."""
    rows: list[dict[str, Any]] = [
        {"doc_id": n, "doc_hash": f"h{n}", "doc": ITEM, "filtered_resps": [said], "metrics": ["clean"], "clean": 1.0}
        for n, said in enumerate(answers)
    ]
    (folder / "samples_tone.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    identity = TaskIdentity(
        version="1", num_fewshot=0, generation="{}", samples_sha256="s", asked=len(rows), scored=len(rows), failed=0
    )
    record = Evaluation(
        label="base", suite="domain", weights_sha256="w", contract_sha256="c", tasks={"tone": identity}, groups={},
        scores=[], prompts_checked=0, seconds=0.0,
    )  # fmt: skip
    record.save(folder / "evaluation.json")
    return folder


def reply(body: dict[str, Any]) -> str:
    """A perfect judge of the labelled answers, who passes 'good', fails 'bad' and mumbles otherwise."""
    right = {row["response"]: "PASS" if row["pass"] else "FAIL" for row in LABELS}
    answer = body["messages"][1]["content"].split("<answer>\n")[1].partition("\n</answer>")[0]
    return {"good": "PASS", "bad": "FAIL"}.get(answer) or right.get(answer, "hm")


def never() -> Endpoint:
    raise AssertionError("the evaluation's own server was asked")


class TestJudge:
    def test_its_verdicts_stand_beside_the_samples(self, tmp_path: Path) -> None:
        folder = evaluation(tmp_path, ["good", "bad", "good", "odd"])
        before = (folder / "samples_tone.jsonl").read_text()
        with judge_server(reply, []) as url:
            SampleJudge(JudgeConfig(url=f"{url}/v1", model="big"), never, None).judge(folder)
        (score,) = load(Evaluation, folder / "evaluation.json").scores
        assert (score.task, score.metric, score.n) == ("tone", "judge", 3)
        assert score.value == pytest.approx(2 / 3)
        verdicts = [json.loads(line) for line in (folder / "judge_tone.jsonl").read_text().splitlines()]
        assert [row["pass"] for row in verdicts] == [True, False, True, None]
        assert [row["reply"] for row in verdicts] == ["PASS", "FAIL", "PASS", "hm"]
        told = json.loads((folder / "judge.json").read_text())["tasks"]["tone"]
        assert (told["passed"], told["judged"], told["unreadable"]) == (2, 4, 1)
        assert (told["agreement_with_labels"], told["kappa"]) == (1.0, 1.0)
        assert (folder / "samples_tone.jsonl").read_text() == before

    def test_the_evaluations_own_server_can_judge(self, tmp_path: Path) -> None:
        """Its worth is found out once for all models of a server."""
        seen: list[dict[str, Any]] = []
        with judge_server(reply, seen) as url:
            own = SampleJudge(JudgeConfig(), lambda: Endpoint(url, "secret", ("base",)), "base")
            for _ in range(2):
                own.judge(evaluation(tmp_path, ["good"]))
        assert {(asked["model"], asked["key"]) for asked in seen} == {("base", "Bearer secret")}
        assert len(seen) == len(LABELS) + 2
        assert {str(asked["structured_outputs"]) for asked in seen} == {"{'choice': ['PASS', 'FAIL']}"}

    def test_a_judge_that_fails_leaves_the_evaluation_and_is_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(llm_judge, "FIRST_PAUSE_S", 0.01)
        folder = evaluation(tmp_path, ["good"])
        before = load(Evaluation, folder / "evaluation.json")
        SampleJudge(JudgeConfig(url="http://127.0.0.1:9"), never, None).judge(folder)
        after = load(Evaluation, folder / "evaluation.json")
        assert "http://127.0.0.1:9 did not answer" in str(after.judge_fault)
        assert after.model_copy(update={"judge_fault": None}) == before
        assert sorted(path.name for path in folder.iterdir()) == ["evaluation.json", "samples_tone.jsonl"]
        assert "base is not judged; run the same command to try again: the judge at" in capsys.readouterr().err
        assert not _is_final(folder)

    def test_a_judge_on_another_server_is_reported(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = evaluation(tmp_path, ["good"])
        SampleJudge(JudgeConfig(), never, None).judge(folder)
        assert "set suite.judge.url" in capsys.readouterr().err
        assert _is_final(folder)

    @pytest.mark.parametrize(
        ("model", "served", "name"),
        [
            ("base", {"base": "full"}, "base"),
            ("base", {"one": "adapter"}, "base"),
            ("one", {"one": "adapter"}, "one"),
            ("big", {"big": "full", "one": "adapter"}, "base"),  # what the server calls it
            ("base", {"other": "full"}, None),  # a full model on a server of its own would judge itself
        ],
    )
    def test_which_model_of_the_server_judges(self, model: str, served: dict[str, str], name: str | None) -> None:
        models: Any = {label: SimpleNamespace(kind=kind) for label, kind in served.items()}
        found = sample_judge(JudgeConfig(model=model), models, never)
        assert found is not None
        assert found.name == name

    def test_a_judge_that_is_not_evaluated_is_refused_first(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("{}")
        (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
        command = ["evaluate", "model", "tracker=none", "model=pretrained", "model.path=model", "suite.judge.model=bse"]
        assert main(command) == 2
        assert "suite.judge.model: 'bse' is not one of the evaluated models" in capsys.readouterr().err

    def test_without_a_judge_there_is_none(self) -> None:
        assert sample_judge(None, {}, never) is None
