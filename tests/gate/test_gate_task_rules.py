"""A task is one folder: the rules of its gate.yaml join every policy, and are recorded with what they decided."""

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import Folder, answers, guard, policy, samples

from harness.cli import main
from harness.config.experiment import Config, validate
from harness.config.gate import GateConfig
from harness.core.errors import ConfigError
from harness.registry.policy import at_least_as_strict
from harness.workflows.compose import config_for, gate_values, sweep

GATE = "default:\n  - {metric: pass, role: target, floor: 0.90}\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of somebody who has a task of their own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks" / "refund").mkdir(parents=True)
    return tmp_path


def task(text: str, name: str = "refund") -> Path:
    path = Path("tasks", name, "gate.yaml")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def own_policy(*rules: dict[str, Any], **keys: Any) -> GateConfig:
    """A policy in a file of its own, as the gate reads it."""
    Path("mine.yaml").write_text(json.dumps({"name": "mine", "rules": rules, **keys}))
    return validate(GateConfig, gate_values("mine.yaml"))


def evaluations(passed: int, metric: str = "pass") -> None:
    """Evaluations `a` and `b` of the task and of a general one; the candidate has `passed` of 200 items."""
    for name, right in (("a", 20), ("b", passed)):
        tasks = {"refund": samples(answers(right, 200), metric), "arc_easy": samples(answers(350, 350))}
        Folder(tasks, label=name).write(Path(name))


def roles(out: str = "out") -> dict[str, str]:
    verdict = json.loads(Path(out, "verdict.json").read_text())
    return {f"{line['task']}/{line['metric']}": line["role"] for line in verdict["metrics"]}


def rules_of(gate: GateConfig, name: str) -> list[tuple[str, float | None]]:
    return [(rule.metric, rule.floor) for rule in gate.rules if f"/{name}/" in rule.metric]


@pytest.mark.parametrize(("passed", "code"), [(198, 0), (100, 10)])
@pytest.mark.parametrize("options", [[], ["policy=default"]])
def test_a_task_with_a_gate_file_is_gated_by_every_policy(options: list[str], passed: int, code: int) -> None:
    task(GATE)
    evaluations(passed)
    assert main(["gate", "a", "b", *options, "--out", "out"]) == code
    assert roles() == {"refund/pass": "target", "arc_easy/acc": "guard"}


def test_a_task_without_a_gate_file_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    evaluations(100)
    assert main(["gate", "a", "b", "policy=smoke", "--out", "out"]) == 0
    assert roles() == {"refund/pass": "info", "arc_easy/acc": "guard"}
    assert main(["gate", "a", "b"]) == 12
    assert "requires a target, but none was measured" in capsys.readouterr().out


def test_a_verdict_holds_its_rules_whatever_becomes_of_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    path = task(GATE)
    evaluations(198)
    assert main(["gate", "a", "b", "--out", "out"]) == 0
    recorded = json.loads(Path("out/policy.json").read_text())
    (rule,) = [rule for rule in recorded["rules"] if rule["metric"] == "*/refund/pass"]
    assert (rule["role"], rule["floor"], rule["optional"]) == ("target", 0.9, True)
    verdict = Path("out/verdict.json").read_bytes()
    path.write_text(GATE.replace("0.90", "0.999"))
    assert main(["report", "out"]) == 0
    assert Path("out/verdict.json").read_bytes() == verdict
    assert main(["gate", "a", "b"]) == 10


def test_a_metric_that_the_task_does_not_have_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    task(GATE)
    evaluations(198, metric="passed")
    assert main(["gate", "a", "b"]) == 12
    assert "*/refund/pass" in capsys.readouterr().out


def test_the_plan_knows_the_tasks_own_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "--plan", "policy=strict", "suite=domain"]) == 0
    out = capsys.readouterr().out
    assert "target domain/tone/clean" in out
    assert "target domain/disclaimer/recall" in out


def test_a_policy_takes_its_section_or_else_the_default_one() -> None:
    task(GATE + "strict:\n  - {metric: pass, role: target, floor: 0.97}\nsmoke: []\n")
    task("default:\n  - {metric: acc, role: target, floor: 0.6}\n", "plain")
    found = {}
    for name in ("default", "strict", "clinical", "smoke"):
        gate = validate(GateConfig, gate_values(name))
        found[name] = [floor for task_name in ("refund", "plain") for _, floor in rules_of(gate, task_name)]
    assert found == {"default": [0.9, 0.6], "strict": [0.97, 0.6], "clinical": [0.97, 0.6], "smoke": [0.6]}


def test_rules_of_the_policy_come_first_and_its_catch_all_last() -> None:
    task(GATE)
    everything = {"metric": "*/*/*", "role": "guard", "margin": "2 points"}
    gate = own_policy({"metric": "*/quiz/acc", "role": "guard", "margin": "1 points"}, everything)
    order = [rule.metric for rule in gate.rules]
    assert order[0] == "*/quiz/acc"
    assert "*/refund/pass" in order[1:-1]
    assert order[-1] == "*/*/*"


@pytest.mark.parametrize("pattern", ["*/refund/pass", "smoke/refund/pass", "*/refund/*", "*/pass", "*/*/pass"])
def test_a_rule_of_the_policy_replaces_the_tasks(pattern: str) -> None:
    task(GATE)
    gate = own_policy({"metric": pattern, "role": "target", "floor": 0.3}, require=["target"])
    assert [floor for metric, floor in rules_of(gate, "refund")] == ([0.3] if "refund" in pattern else [])
    evaluations(100)
    assert main(["gate", "a", "b", "policy=mine.yaml"]) == 0


def test_a_guard_of_the_policy_stands_beside_a_target_of_the_task() -> None:
    task(GATE)
    evaluations(198)
    own_policy({"metric": "*/refund/*", "role": "guard", "margin": "5 points"})
    main(["gate", "a", "b", "policy=mine.yaml", "--out", "out"])
    verdict = json.loads(Path("out/verdict.json").read_text())
    assert sorted(line["role"] for line in verdict["metrics"] if line["task"] == "refund") == ["guard", "target"]


def test_a_policy_may_only_show_a_task() -> None:
    task(GATE)
    evaluations(20)
    shown = {"metric": "*/refund/*", "role": "info", "optional": True}
    own_policy(shown, {"metric": "*/arc_easy/acc", "role": "guard", "margin": "5 points"})
    assert main(["gate", "a", "b", "policy=mine.yaml", "--out", "out"]) == 0
    assert roles() == {"refund/pass": "info", "arc_easy/acc": "guard"}


def test_a_policy_may_leave_everything_to_the_tasks() -> None:
    task(GATE)
    Path("mine.yaml").write_text("name: mine\ntask_rules: strict\nrequire: [target]\n")
    evaluations(198)
    assert main(["gate", "a", "b", "policy=mine.yaml"]) == 0


def test_ones_own_gate_file_replaces_the_shipped_one_and_a_folder_without_one_does_not() -> None:
    task("default:\n  - {metric: clean, role: target, floor: 0.5}\n", "tone")
    Path("tasks/vocabulary").mkdir()
    gate = validate(GateConfig, gate_values("default"))
    assert rules_of(gate, "tone") == [("*/tone/clean", 0.5)]
    assert rules_of(gate, "vocabulary") == [("*/vocabulary/clean", 0.9)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "default:\n  - {metric: pass, role: target, flor: 0.9}\n",
            "default.0.flor: unknown key. Did you mean 'floor'",
        ),
        ("default:\n  - {metric: pass, role: target}\n", "default.0: a target needs a floor"),
        ("default:\n  - {metric: pass, role: guard, margin: 5}\n", "default.0.margin: a margin needs a unit"),
        (
            "default:\n  - {metric: '*/refund/pass', role: target, floor: 0.9}\n",
            "default.0.metric: give the metric alone",
        ),
        ("default:\n  - {metric: pass, role: info}\n", "default.0.role: "),
        (GATE.replace("role", "optional: false, role"), "default.0.optional: "),
        (GATE + "  - {metric: pass, role: target, floor: 0.5}\n", "default: the target rule 'pass' never applies"),
        (GATE + "strickt: []\n", "strickt: unknown key. Did you mean 'strict'"),
        ("strict: []\n", "default: missing"),
        ("", "default: missing"),
        ("- 1\n", ""),
        ("default: [", ""),
        ("default: ${nowhere}\n", ""),
    ],
)
def test_a_faulty_gate_file_is_told_by_file_and_key(capsys: pytest.CaptureFixture[str], text: str, told: str) -> None:
    path = task(text)
    evaluations(198)
    assert main(["gate", "a", "b"]) == 2
    expected = f"{path.resolve()}: {told}"
    assert expected in capsys.readouterr().err
    with pytest.raises(ConfigError) as caught:
        config_for(["train.lerning_rate=1"])
    assert any(fault.startswith(expected) for fault in caught.value.errors)
    assert any("lerning_rate" in fault for fault in caught.value.errors), "every fault is told at once"


def test_every_faulty_gate_file_is_told() -> None:
    task("default: 1\n")
    task("default: 2\n", "other")
    with pytest.raises(ConfigError) as caught:
        gate_values("default")
    assert len(caught.value.errors) == 2


def test_faults_of_a_policy_keep_their_places() -> None:
    task(GATE)
    everything = {"metric": "*/*/*", "role": "info", "margn": "2 points"}
    with pytest.raises(ConfigError, match=r"rules\.1\.margn"):
        own_policy({"metric": "*/quiz/acc", "role": "guard", "margin": "1 points"}, everything)
    with pytest.raises(ConfigError, match=r"task_rules: .*'default', 'strict', 'smoke' or 'none'"):
        own_policy({"metric": "*/quiz/acc", "role": "guard", "margin": "1 points"}, task_rules="strikt")


def test_a_run_records_the_rules_that_its_tasks_bring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    task(GATE)
    config = config_for(["gate=strict", "gate.alpha_pass=0.01"])
    assert rules_of(config.gate, "refund") == [("*/refund/pass", 0.9)]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = validate(Config, config.model_dump())
    assert again.gate.rules == config.gate.rules
    assert rules_of(config_for(["gate=strict"]).gate, "refund") == []


def test_the_runs_of_a_sweep_have_them_too(tmp_path: Path) -> None:
    task(GATE)
    found: list[list[tuple[str, float | None]]] = []

    def job(config: Config) -> int:
        found.append(rules_of(config.gate, "refund"))
        return 0

    assert sweep(["experiment=finance_disclaimer", "train.seed=1,2"], tmp_path, job) == [0, 0]
    assert found == [[("*/refund/pass", 0.9)]] * 2


def test_an_alias_goes_on_demanding_what_a_task_demanded() -> None:
    path = task(GATE)
    demanded = validate(GateConfig, gate_values("default"))
    path.write_text(GATE.replace("0.90", "0.5"))
    lax = validate(GateConfig, gate_values("default"))
    assert at_least_as_strict(lax, demanded) == [
        "policy default: rule '*/refund/pass' has floor 0.5, at least 0.9 is required"
    ]
    path.unlink()
    assert at_least_as_strict(validate(GateConfig, gate_values("default")), demanded) == [
        "policy default: there is no target rule for '*/refund/pass'"
    ]


def test_digests_of_policies_recorded_before_stay() -> None:
    assert "task_rules" not in policy(guard(), task_rules="strict").model_dump()


def test_a_policy_under_conf_may_extend_another() -> None:
    Path("conf/gate").mkdir(parents=True)
    Path("conf/gate/mine.yaml").write_text("defaults: [strict, _self_]\nname: mine\nminimum_n: 100\n")
    strict = validate(GateConfig, gate_values("strict"))
    for name in ("mine", "conf/gate/mine.yaml"):
        found = validate(GateConfig, gate_values(name))
        assert found == strict.model_copy(update={"name": "mine", "minimum_n": 100})
    Path("conf/gate/mine.yaml").rename("mine.yaml")
    with pytest.raises(ConfigError, match=r"mine\.yaml: defaults: only a policy under conf/gate/"):
        gate_values("mine.yaml")
