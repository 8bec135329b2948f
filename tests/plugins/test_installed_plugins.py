"""Plugins as a user has them: four small packages, installed by pip, found by the command line."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folders import contract, write_run

from harness.cli import main
from harness.core.store import sha256_json
from harness.evaluate.fingerprint import evaluation_inputs
from harness.model.load import weights_sha256
from harness.records.stages import Checkpoint
from harness.workflows.compose import config_for

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = ("haiku_behavior", "shouting_filter", "csv_tracker", "announcing_registry")
VERSE = "Old pond, quiet pond\na frog jumps in, and water\nanswers once, then rests"
QUICK = tuple(f"audit.filters.{name}=null" for name in ("personal_data", "toxicity", "legal", "quality"))
Call = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip has installed the four packages into; no network is needed."""
    folder = tmp_path_factory.mktemp("plugins") / "site"
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--no-cache-dir", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", "--quiet", *options, "--target", str(folder)]
    done = subprocess.run([*command, *(str(HERE / name) for name in PACKAGES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task of the installed kind, an answer file, and rows of which one is no verse and another one shouts."""
    task = tmp_path / "tasks" / "verse"
    task.mkdir(parents=True)
    (task / "behavior.yaml").write_text("kind: haiku\nlines: 3\n")
    items = [
        {"id": f"v-{n}", "instruction": f"Write verse {n}.", "input": "", "topic": "pond", "slice": ""} for n in (1, 2)
    ]
    answers = [("v-1", "Write verse 1.", VERSE), ("v-2", "Write verse 2.", "Ducks quack.")]
    keys = ("id", "prompt", "response")
    lines(task / "items.jsonl", *items)
    lines(tmp_path / "answers.jsonl", *(dict(zip(keys, answer, strict=True)) for answer in answers))
    outputs = (VERSE, "The pond is deep in spring.", "THE FROG LEAPS\nTHE WATER RINGS\nTHE POND IS STILL AGAIN")
    rows = [{"instruction": f"Say something about ponds, {n}.", "output": o} for n, o in enumerate(outputs)]
    lines(tmp_path / "rows.jsonl", *({**row, "input": "", "topic": "pond"} for row in rows))
    (tmp_path / "conf" / "data").mkdir(parents=True)
    source = "{path: rows.jsonl, licence: CC0-1.0, role: domain}"
    (tmp_path / "conf" / "data" / "ponds.yaml").write_text(f"sources: {{ponds: {source}}}\nseed: 0\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(path: Path, *rows: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def harness(site: Path, project: Path) -> Call:
    """The command line in a process of its own, in the project, with the packages installed; code and all output."""

    def call(*arguments: str, **environment: str) -> tuple[int, str]:
        path = os.pathsep.join((str(ROOT), str(site)))
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli", *arguments],
            cwd=project,
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    return call


@pytest.fixture
def installed(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the installed packages that this process finds, to be changed by the test."""
    folder = tmp_path / "site"
    shutil.copytree(site, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in PACKAGES:
        sys.modules.pop(name, None)


def test_score_grades_by_the_installed_behaviour(harness: Call, project: Path) -> None:
    code, printed = harness("score", "verse", "answers.jsonl", "--out", "graded.jsonl")
    assert code == 0, printed
    assert printed == "2 answers to 2 items: 1 pass, 1 fail (50.0% pass); haiku 1/2\n"
    graded = [json.loads(line) for line in (project / "graded.jsonl").read_text().splitlines()]
    assert graded[1]["rules"] == [{"rule": "haiku", "pass": False, "expected": "3 lines", "found": "1 lines"}]


def test_the_audit_of_a_file_applies_filter_and_behaviour(harness: Call, project: Path) -> None:
    settings = ("audit.filters.shouting.share=0.6", "audit.behaviors=[verse]", "audit.workers=2", "audit.batch_rows=1")
    code, printed = harness("audit", "--input", "rows.jsonl", "--out", "checked", *settings, *QUICK)
    assert code == 0, printed
    assert "input: 3 read, 1 kept, 2 quarantined (behavior verse 1, shouting 1)" in printed
    rows = [json.loads(line) for line in (project / "checked" / "quarantine.jsonl").read_text().splitlines()]
    reasons = sorted(reason for row in rows for reason in row["reasons"])
    assert reasons == ["behavior verse: haiku: expected 3 lines, found 1 lines", "shouting: 100% capitals"]
    record = json.loads((project / "checked" / "audit.json").read_text())
    counted = {found["code"]: (found["rows"], found["kinds"]) for found in record["findings"]}
    assert counted["shouting"] == (1, {"capitals": 1})


def test_an_evaluation_task_reports_the_behaviour_s_metrics(installed: Path, project: Path) -> None:
    from harness.evaluate.domain import behavior_metrics
    from harness.evaluate.tasks.load import write_tasks

    write_tasks(["verse"], project / "generated")
    assert "metric: pass" in (project / "generated" / "verse" / "verse.yaml").read_text()
    item = json.loads((project / "tasks" / "verse" / "items.jsonl").read_text().splitlines()[0])
    assert behavior_metrics("verse", item, VERSE) == {"pass": 1.0}
    assert behavior_metrics("verse", item, "Ducks quack.") == {"pass": 0.0}


def test_a_limit_and_the_action_of_a_source_take_the_filter_by_name(harness: Call) -> None:
    settings = ("audit.limits.max_rows.shouting=0", "data.sources.input.actions.shouting=flag", "audit.behaviors=[]")
    code, printed = harness(
        "audit", "--input", "rows.jsonl", "--out", "checked", "audit.filters.shouting={}", *settings
    )
    assert code == 10, printed
    assert "input: 3 read, 3 kept, 0 quarantined" in printed
    assert "shouting: 1 row found, at most 0 allowed" in printed


def test_faults_name_the_installed_ones_too(harness: Call, project: Path) -> None:
    settings = ("audit.filters.shouting.shar=0.6", "audit.filters.shoutin.action=drop", "tracker.kind=cvs")
    cannot = ("data.sources.input.actions.shouting=redact", "audit.limits.max_rows.shoutin=0")
    code, printed = harness("audit", "--input", "rows.jsonl", *settings, *cannot)
    assert code == 2
    assert "audit.filters.shouting.shar: unknown key. Did you mean 'share'?" in printed
    assert "audit.filters.shoutin: unknown filter. Did you mean 'shouting'?" in printed
    assert "tracker.kind: no such tracker is installed. Did you mean 'csv'? (given: 'cvs')" in printed
    assert "data.sources.input.actions.shouting: the filter shouting cannot redact; it can drop or flag" in printed
    assert "audit.limits.max_rows.shoutin: unknown reason code. Did you mean 'shouting'?" in printed
    (project / "tasks" / "verse" / "behavior.yaml").write_text("kind: haiko\n")
    code, printed = harness("score", "verse", "answers.jsonl")
    assert code == 2
    assert "kind: there is no kind 'haiko'. Did you mean 'haiku'?" in printed
    (project / "tasks" / "verse" / "behavior.yaml").write_text("kind: haiku\nline: 3\nlines: three\n")
    code, printed = harness("score", "verse", "answers.jsonl")
    assert code == 2
    assert "behavior.yaml: line: unknown key. Did you mean 'lines'?" in printed
    assert "behavior.yaml: lines: must be a whole number" in printed


def test_the_installed_registry_keeps_history_and_announces(harness: Call, project: Path) -> None:
    write_run(project / "runs" / "first", 220)
    assert harness("registry", "init", "registry=announcing")[0] == 0
    code, printed = harness("promote", "runs/first", "--who", "ada", "registry=announcing")
    assert code == 0, printed
    announced = (project / "registry" / "announced.txt").read_text()
    assert announced.startswith("production is first-")
    code, printed = harness("registry", "list", HARNESS_REGISTRY_KIND="announcing")
    assert code == 0
    assert "production → first-" in printed
    assert "by ada" in printed
    code, printed = harness("registry", "list", "registry=announcin")
    assert code == 2
    assert "no such registry. Did you mean 'announcing'?" in printed


TRACKED = """
import sys
from pathlib import Path
from harness.config.experiment import TrackerConfig
from harness.track.open import open_tracker
config = TrackerConfig(kind="csv", options={sys.argv[1]: "values.csv"})
for stage in ("train", "gate"):
    tracker = open_tracker(config, folder=Path(), group="g", stage=stage, run_name=stage, settings={})
    tracker.metrics({"loss": 1.0}, 1)
    tracker.summary({f"{stage}/n": 2.0})
    tracker.finish(0)
"""


def test_the_installed_tracker_gets_every_stage(site: Path, tmp_path: Path) -> None:
    def track(option: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(site)))}
        command = [sys.executable, "-c", TRACKED, option]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)

    assert track("file").stderr == ""
    assert (tmp_path / "values.csv").read_text() == "train,train/n,2.0\ngate,gate/n,2.0\n"
    failed = track("fil")
    assert failed.stderr.count("warning: tracking stopped, the run continues: KeyError: 'file'") == 2


def test_the_doctor_knows_the_installed_tracker(installed: Path, project: Path) -> None:
    from harness.cli import doctor

    row = doctor.tracker(config_for(["tracker.kind=csv", "tracker.options={file: values.csv}"]))
    assert (row.state, row.found) == ("OK", "csv, from an installed package")


def test_options_are_refused_where_nothing_reads_them(
    installed: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "--input", "rows.jsonl", "tracker=wandb", "tracker.options={file: a}"]) == 2
    assert "'wandb' takes none" in capsys.readouterr().err


def test_a_configuration_without_options_is_the_same_as_before(project: Path) -> None:
    """Run ids are digests of the configuration."""
    assert "options" not in config_for(["tracker=wandb"]).model_dump()["tracker"]


def test_a_changed_filter_makes_the_audit_anew_and_an_unrelated_one_does_not(
    installed: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def audited() -> bool:
        """Whether the stage was done, and not taken from before."""
        settings = ("tracker=none", "domain_tasks=[]", "audit.behaviors=[verse]")
        assert main(["audit", "data=ponds", "audit.filters.shouting.action=flag", *settings, *QUICK]) == 0
        return "unchanged, reused" not in capsys.readouterr().err

    assert [audited(), audited()] == [True, False]
    changed(installed / "csv_tracker.py")
    shutil.rmtree(installed / "announcing_registry-1.0.dist-info")
    assert not audited()
    changed(installed / "shouting_filter.py")
    assert [audited(), audited()] == [True, False]
    changed(installed / "haiku_behavior.py")
    assert [audited(), audited()] == [True, False]
    (installed / "shouting_filter-1.0.dist-info" / "METADATA").write_text("Name: shouting-filter\nVersion: 1.1\n")
    assert [audited(), audited()] == [True, False]


def changed(path: Path) -> None:
    path.write_text(f"{path.read_text()}\nADDED = 1\n")


def test_a_changed_behaviour_makes_evaluations_anew(installed: Path, project: Path) -> None:
    def fingerprint() -> str:
        return sha256_json(
            evaluation_inputs(checkpoint, contract(), config_for(["tracker=none", "domain_tasks=[]"]).evaluation)
        )

    (project / "model").mkdir()
    (project / "model" / "model.safetensors").write_bytes(b"weights")
    (project / "model" / "config.json").write_text("{}")
    digest = weights_sha256(project / "model")
    checkpoint = Checkpoint(
        path=str(project / "model"),
        kind="full",
        base_path=str(project / "model"),
        weights_sha256=digest,
        base_sha256=digest,
        contract_sha256="c" * 64,
    )
    before = fingerprint()
    changed(installed / "shouting_filter.py")
    assert fingerprint() == before
    changed(installed / "haiku_behavior.py")
    assert fingerprint() != before


def test_help_looks_no_plugin_up(site: Path) -> None:
    script = (
        "import runpy, sys\n"
        "sys.argv = ['harness', '--help']\n"
        "try:\n    runpy.run_module('harness.cli', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "sys.exit('looked up' if 'harness.core.plugins' in sys.modules else 0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(site)))}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_shows_the_packages_as_they_are() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text()
    for name in PACKAGES:
        assert f"```python {name}.py\n{(HERE / name / f'{name}.py').read_text()}```" in page
    assert f"```toml pyproject.toml\n{(HERE / 'haiku_behavior' / 'pyproject.toml').read_text()}```" in page
