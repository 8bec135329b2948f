"""Under which configuration a candidate is judged, and where its decision goes."""

import json
from pathlib import Path

import pytest

from harness.checkpoint.origin import write_origin
from harness.core.errors import ConfigError
from harness.workflows.ci import ci_config, out_folder
from harness.workflows.compose import config_for


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of the clinical experiment on its own suite."""
    monkeypatch.chdir(tmp_path)
    config = config_for(["experiment=clinical_notes", "suite=clinical", "train.seed=7"])
    (tmp_path / "runs" / "note" / "checkpoint").mkdir(parents=True)
    (tmp_path / "runs" / "note" / "config.yaml").write_text(json.dumps(config.model_dump()))
    (tmp_path / "copied").mkdir()
    write_origin(tmp_path / "copied", tmp_path / "runs/note/checkpoint")
    return tmp_path / "runs"


@pytest.mark.parametrize(
    "name", ["note", "runs/note", "runs/note/checkpoint", "note/checkpoint", "note@0.5", "runs/note@0.5", "copied"]
)
def test_a_run_is_judged_under_its_own_configuration(name: str, runs: Path) -> None:
    config = ci_config(name, [], runs, smoke=False)
    assert (config.name, config.suite.name, config.train.seed) == ("clinical_notes", "clinical", 7)
    assert config.runs_dir == str(runs)


def test_a_model_from_elsewhere_is_judged_under_the_defaults_and_that_is_said(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ci_config("owner/model", [], runs, smoke=False) == config_for([]).model_copy(update={"runs_dir": str(runs)})
    assert "owner/model does not come from a run" in capsys.readouterr().err


def test_smoke_takes_the_smoke_suite_and_keeps_the_run_s_own_tasks(runs: Path) -> None:
    config = ci_config("note", [], runs, smoke=True)
    assert config.suite.name == "smoke"
    assert {task.name for task in config.domain_tasks} <= {task.name for task in config.tasks}
    assert "general_smoke" in {task.name for task in config.tasks}


def test_overrides_replace_it(runs: Path) -> None:
    config = ci_config("note", ["experiment=finance_disclaimer"], runs, smoke=True)
    assert (config.name, config.suite.name) == ("finance_disclaimer", "smoke")
    assert ci_config("note", ["suite=finance"], runs, smoke=True).suite.name == "finance", "what is named last wins"


def test_a_misspelt_override(runs: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'finance_disclaimer'"):
        ci_config("note", ["experiment=finance_disclamer"], runs, smoke=False)


def test_the_decision_lies_where_promote_looks(runs: Path) -> None:
    assert out_folder("note", "production", runs) == runs / "note" / "against" / "production"
    of_checkpoint = out_folder("runs/note/checkpoint", "production", runs)
    assert of_checkpoint.resolve() == runs / "note" / "against" / "production"
    assert out_folder("note@0.5", "production", runs) == Path("ci-report"), "it is another model than the run's"
    assert out_folder("owner/model", "production", runs) == Path("ci-report")
    assert out_folder("note", "runs/other", runs) == Path("ci-report")
