"""`--init-policy`, `policy=any`, and what is said before an evaluation that could only end INVALID."""

import json
from pathlib import Path

import pytest

from harness.cli import main
from harness.config.experiment import validate
from harness.config.gate import GateConfig
from harness.core.errors import ConfigError
from harness.evaluate.tasks.index import members
from harness.evaluate.tasks.suite import metric_sizes
from harness.gate.power_plan import only_invalid
from harness.gate.propose import proposed_policy
from harness.workflows.compose import choices, config_for, gate_values
from harness.workflows.gate import compare_evaluations, policy_named
from harness.workflows.run import require_decidable

ODD = "task[1]*"  # a name with the characters of globs


def lm_eval_folder(folder: Path, wrong: int) -> str:
    """An output folder of lm-eval with a right/wrong metric and a perplexity; the first `wrong` items are wrong."""
    folder.mkdir()
    rows = [
        {
            "doc_id": i, "doc": {"q": str(i)}, "target": "x", "arguments": {}, "resps": [["a"]],
            "filtered_resps": ["a"], "filter": "none", "metrics": ["acc", "word_perplexity"],
            "doc_hash": str(i), "prompt_hash": "p", "target_hash": "t",
            "acc": float(i >= wrong), "word_perplexity": 12.0 + i % 5,
        }
        for i in range(200)
    ]  # fmt: skip
    (folder / f"samples_{ODD}_2026-01-01T00-00-00.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = {
        "results": {ODD: {"acc,none": 1 - wrong / 200, "word_perplexity,none": 14.0, "alias": ODD}},
        "configs": {ODD: {}}, "versions": {ODD: 1}, "n-shot": {ODD: 0}, "config": {"model": "m"},
        "higher_is_better": {ODD: {"acc": True, "word_perplexity": False}},
        "n-samples": {ODD: {"original": 200, "effective": 200}},
    }  # fmt: skip
    (folder / "results_2026-01-01T00-00-00.json").write_text(json.dumps(results))
    return str(folder)


@pytest.fixture
def sides(tmp_path: Path) -> tuple[str, str, str]:
    """A baseline, a candidate that is about as good, and one that collapsed."""
    return lm_eval_folder(tmp_path / "a", 20), lm_eval_folder(tmp_path / "b", 21), lm_eval_folder(tmp_path / "c", 120)


def test_a_policy_for_what_was_measured(
    sides: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline, candidate, worse = sides
    assert main(["gate", baseline, candidate]) == 12
    assert "--init-policy FILE" in capsys.readouterr().out
    path = tmp_path / "policies" / "mine.yaml"
    assert main(["gate", baseline, candidate, "--init-policy", str(path)]) == 0
    assert f"policy={path}" in capsys.readouterr().out
    rules = [rule for rule in policy_named(str(path)).rules if "task[[]1][*]" in rule.metric]
    assert [(rule.role, rule.margin) for rule in rules] == [("guard", "5 points"), ("info", None)]
    assert main(["gate", baseline, candidate, f"policy={path}"]) == 0
    assert main(["gate", baseline, worse, f"policy={path}"]) == 10
    assert main(["gate", baseline, candidate, "--init-policy", str(path)]) == 2  # nothing is overwritten
    assert "exists; name another file" in capsys.readouterr().err


def test_a_shipped_policy_guards_whatever_was_measured(
    sides: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    baseline, candidate, worse = sides
    assert main(["gate", baseline, candidate, "policy=any"]) == 0
    assert main(["gate", baseline, worse, "policy=any"]) == 10
    assert all(rule.metric.startswith("*/*/") for rule in policy_named("any").rules)  # no task's own rules


def test_the_proposal_does_not_depend_on_who_is_better(sides: tuple[str, str, str], tmp_path: Path) -> None:
    there, back = (compare_evaluations(*pair, tmp_path) for pair in (sides[::2], sides[::-2]))
    assert proposed_policy(there, "x") == proposed_policy(back, "x")


def test_an_evaluation_that_can_only_be_invalid_is_not_started() -> None:
    without = config_for(["experiment=finance_disclaimer", "suite.tasks=[{name: arc_challenge}]"])
    with pytest.raises(ConfigError, match="only be INVALID, so nothing was started: policy default requires a guard"):
        require_decidable(without)
    waived = {
        "name": "waived", "require": [],
        "rules": [
            {"metric": "*/gone/acc", "role": "guard", "margin": "1 points",
             "on_missing": {"name": "w", "reason": "r", "expires": "2999-01-01"}},
            {"metric": "*/here/acc", "role": "guard", "margin": "1 points"},
        ],
    }  # fmt: skip
    assert only_invalid(validate(GateConfig, waived), "s", ["here"]) == []
    del waived["rules"][0]["on_missing"]  # type: ignore[attr-defined]
    (why,) = only_invalid(validate(GateConfig, waived), "s", ["here"])
    assert why.startswith("rule */gone/acc: suite=s has no task with this metric")


@pytest.mark.parametrize("suite", choices("suite"))
@pytest.mark.parametrize("experiment", ["finance_disclaimer", "support_desk", "clinical_notes"])
def test_the_shipped_suites_can_be_decided_on(experiment: str, suite: str) -> None:
    config = config_for([f"experiment={experiment}", f"suite={suite}"])
    assert only_invalid(config.gate, suite, members([task.name for task in config.tasks])) == []
    require_decidable(config)


@pytest.mark.parametrize("suite", ["finance", "domain", "clinical", "full"])
def test_suites_of_domain_tasks_hold_a_guard(suite: str) -> None:
    policy = validate(GateConfig, gate_values("default"))
    assert only_invalid(policy, suite, [task.name for task in config_for([f"suite={suite}"]).tasks]) == []


def test_items_of_each_metric() -> None:
    config = config_for(["experiment=finance_disclaimer"])
    sizes = metric_sizes(config.tasks, config.suite.seed)["disclaimer"]
    assert (sizes["recall"], sizes["recall_adversarial"], sizes["specificity"]) == (212, 40, 150)
    few = config_for(["experiment=finance_disclaimer", "domain_tasks=[{name: disclaimer, limit: 50}]"])
    sizes = metric_sizes(few.tasks, few.suite.seed)["disclaimer"]
    assert sum(sizes[name] for name in ("recall", "recall_adversarial", "specificity")) == 50


def test_a_plan_needs_no_lm_eval(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.cli.gate.find_spec", lambda name: None)
    assert main(["gate", "--plan", "experiment=finance_disclaimer"]) == 0
    printed = capsys.readouterr()
    assert "disclaimer/recall (floor 0.9): 402 items" in printed.out
    assert "it may have fewer" in printed.err


@pytest.mark.parametrize("beside", [["policy=strict"], ["--out", "d"], ["--anchor", "x"], ["--plan"], ["--like", "r"]])
def test_nothing_beside_init_policy_is_ignored(beside: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "a", "b", "--init-policy", "p.yaml", *beside]) == 2
    assert beside[0] in capsys.readouterr().err
    assert not Path("p.yaml").exists()
