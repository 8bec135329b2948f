"""`harness run` from data to verdict on the tiny model: what it leaves, what it reuses, how it is interrupted."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

import pytest
import tiny

from harness import cli
from harness.core.store import sha256_file
from harness.serve.server import launched

pytestmark = pytest.mark.integration

VERDICTS = {0: "PASS", 10: "FAIL", 11: "INCONCLUSIVE"}
EXPERIMENT = """\
# @package _global_
defaults:
  - override /model: pretrained
  - override /data: tiny
  - override /tracker: none
name: tiny
domain_tasks: [{name: disclaimer, limit: 8, max_new_tokens: 12}]
model: {path: MODEL}
train: {learning_rate: 1.0e-2, sequence_length: 256, sequences_per_step: 2, epochs: 2, lora: {r: 4}}
serve: {kv_cache_gib: 1}
"""
SOURCE = """\
sources: {rows: {path: rows.jsonl, licence: Apache-2.0, role: domain}}
seed: 0
"""
SUITE = """\
name: smoke
seed: 0
tasks: [{name: general_smoke, limit: 4, max_new_tokens: 12}]
"""


@dataclass(frozen=True)
class Outcome:
    """What one call of `harness` returned and said, and the processes of the servers it had started."""

    code: int
    said: str
    server_pids: tuple[int, ...] = ()


def write_project(folder: Path, base: Path) -> Path:
    """A user's working directory: own experiment, data and rows, and a suite that replaces the shipped one."""
    files = {
        "conf/experiment/tiny.yaml": EXPERIMENT.replace("MODEL", str(base)),
        "conf/data/tiny.yaml": SOURCE,
        "conf/suite/smoke.yaml": SUITE,
        "rows.jsonl": "".join(json.dumps(row) + "\n" for row in tiny.rows(24)),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def harness(*arguments: str) -> Outcome:
    """One call in this process."""
    said = io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with redirect_stderr(said), redirect_stdout(said), watched_servers() as pids:
            code = cli.main(arguments)
    finally:
        signal.signal(signal.SIGTERM, handler)
    return Outcome(code, said.getvalue(), tuple(pids))


@contextmanager
def watched_servers() -> Iterator[list[int]]:
    """The processes of every server started meanwhile."""
    pids: list[int] = []

    @contextmanager
    def watched(*arguments: Any) -> Iterator[Any]:
        with launched(*arguments) as server:
            try:
                yield server
            finally:
                pids.extend(tiny.group_of(f"--port {tiny.port_of(server.endpoint)}"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.serve.session.launched", watched)
        yield pids


@pytest.fixture(scope="module")
def project(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = write_project(tmp_path_factory.mktemp("project"), tiny_base)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def first(project: Path) -> Outcome:
    return harness("run", "experiment=tiny")


@pytest.fixture(scope="module")
def run_folder(project: Path, first: Outcome) -> Path:
    (folder,) = (path.parent for path in project.glob("runs/*/run.json"))
    return folder


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and serving fail the test."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the stage was to be reused")

    monkeypatch.setattr("harness.serve.session.launched", refuse)
    monkeypatch.setattr("harness.train.finetune.finetune", refuse)


class TestFirstRun:
    def test_it_ends_with_a_verdict(self, first: Outcome, run_folder: Path) -> None:
        verdict = json.loads((run_folder / "verdict.json").read_text())
        assert first.code in VERDICTS, first.said
        assert verdict["verdict"] == VERDICTS[first.code]
        assert verdict["exit_code"] == first.code
        assert "Traceback" not in first.said

    @pytest.mark.parametrize(
        "name",
        [
            "run.json",
            "config.yaml",
            "prompt_contract.json",
            "data/train.parquet",
            "data/quarantine.parquet",
            "data/audit.json",
            "data/data_card.md",
            "checkpoint/adapter_model.safetensors",
            "checkpoint/tokenizer.json",
            "checkpoint/chat_template.jinja",
            "checkpoint/generation_config.json",
            "eval/base/results.json",
            "eval/base/samples_disclaimer.jsonl",
            "eval/candidate/results.json",
            "eval/candidate/samples_general_smoke_reading.jsonl",
            "compare.json",
            "verdict.json",
            "report/index.html",
            "report/summary.md",
            "report/junit.xml",
            "logs/vllm.log",
        ],
    )
    def test_the_run_folder_holds(self, run_folder: Path, name: str) -> None:
        assert (run_folder / name).stat().st_size > 0

    def test_nothing_temporary_remains(self, run_folder: Path) -> None:
        assert [path for path in run_folder.rglob("*") if ".tmp" in path.name] == []

    def test_run_json_names_what_was_asked_and_digests(self, run_folder: Path) -> None:
        run = json.loads((run_folder / "run.json").read_text())
        assert run["run_id"] == run_folder.name
        assert run["asked"]["suite"]["tasks"][0]["limit"] == 4  # the user's suite, not the shipped one
        assert set(run["stages"]) == {"data", "checkpoint", "eval/base", "eval/candidate"}
        assert all(sha256_file(run_folder / name) == digest for name, digest in run["outputs"].items())
        assert {"torch", "transformers", "lm-eval"} <= set(run["versions"])

    def test_the_audit_counts_add_up(self, run_folder: Path) -> None:
        audit = json.loads((run_folder / "data" / "audit.json").read_text())
        (source,) = audit["sources"]
        assert source["read"] == 24 == source["kept"] + sum(source["quarantined"].values())
        assert audit["rows"] == source["kept"]

    def test_both_sides_were_asked_alike(self, run_folder: Path) -> None:
        base, candidate = (
            json.loads((run_folder / "eval" / side / "evaluation.json").read_text()) for side in ("base", "candidate")
        )
        assert base["contract_sha256"] == candidate["contract_sha256"]
        assert base["weights_sha256"] != candidate["weights_sha256"]
        assert json.loads((run_folder / "compare.json").read_text())["faults"] == []

    def test_junit_has_a_case_for_every_gated_metric(self, run_folder: Path) -> None:
        cases = ElementTree.parse(run_folder / "report" / "junit.xml").getroot().iter("testcase")
        metrics = json.loads((run_folder / "verdict.json").read_text())["metrics"]
        named = " ".join(case.get("name", "") + case.get("classname", "") for case in cases)
        assert all(metric["metric"] in named for metric in metrics if metric["role"] != "info")

    def test_no_process_of_the_server_is_left(self, first: Outcome) -> None:
        assert len(first.server_pids) > 1
        assert tiny.alive(first.server_pids) == []


class TestReuse:
    @pytest.mark.usefixtures("no_work")
    def test_the_same_again_does_no_work(self, first: Outcome, run_folder: Path) -> None:
        before = (run_folder / "run.json").read_bytes()
        again = harness("run", "experiment=tiny")
        assert again.code == first.code, again.said
        after = (run_folder / "run.json").read_bytes()
        changed = [n for n, d in json.loads(before)["outputs"].items() if json.loads(after)["outputs"][n] != d]
        assert changed == []
        assert after == before

    @pytest.mark.usefixtures("no_work")
    def test_another_policy_only_decides_anew(self, project: Path, run_folder: Path) -> None:
        strict = harness("run", "experiment=tiny", "gate=strict")
        assert strict.code in VERDICTS, strict.said
        (other,) = {path.parent for path in project.glob("runs/*/run.json")} - {run_folder}
        assert json.loads((other / "verdict.json").read_text())["policy"] == "strict"
        for stage in ("data", "checkpoint", "eval/base", "eval/candidate"):
            assert sha256_file(other / stage / "stage.json") == sha256_file(run_folder / stage / "stage.json")

    @pytest.mark.usefixtures("no_work")
    def test_gate_alone_comes_to_the_same_verdict(self, first: Outcome, run_folder: Path) -> None:
        alone = harness("gate", str(run_folder / "eval" / "base"), str(run_folder))
        assert alone.code == first.code, alone.said


class TestOtherTrainings:
    @pytest.mark.usefixtures("no_work", "first")
    def test_another_alpha_needs_no_other_training(self, project: Path, run_folder: Path) -> None:
        half = harness("train", "experiment=tiny", "alpha=0.5")
        assert half.code == 0, half.said
        checkpoint = Path(half.said.splitlines()[-1])
        trained = checkpoint.with_name("trained")
        assert sha256_file(trained / "stage.json") == sha256_file(run_folder / "checkpoint" / "stage.json")
        digests = {sha256_file(folder / "adapter_model.safetensors") for folder in (checkpoint, trained)}
        assert len(digests) == 2
        shutil.rmtree(checkpoint.parent)

    @pytest.mark.usefixtures("no_work", "first")
    def test_a_dry_run_trains_nothing(self, project: Path) -> None:
        before = set(project.glob("runs/*/checkpoint"))
        told = harness("train", "--dry-run", "experiment=tiny", "train.learning_rate=1e-3")
        assert told.code == 0, told.said
        for part in ("steps: ", "parameters trained: ", "expected memory: ", "expected time: ", "padding"):
            assert part in told.said
        assert set(project.glob("runs/*/checkpoint")) == before

    @pytest.mark.usefixtures("first")
    def test_a_whole_model_is_served_after_the_base_model(self, project: Path) -> None:
        found = harness("run", "experiment=tiny", "name=whole", "train.method=full", "train.learning_rate=2e-3")
        assert found.code in VERDICTS, found.said
        (folder,) = (path.parent for path in project.glob("runs/whole-*/run.json"))
        assert (folder / "checkpoint" / "model.safetensors").is_file()
        base, candidate = (
            json.loads((folder / "eval" / side / "evaluation.json").read_text()) for side in ("base", "candidate")
        )
        assert base["weights_sha256"] != candidate["weights_sha256"]
        assert json.loads((folder / "compare.json").read_text())["faults"] == []

    def test_checkpoints_are_examined_on_one_real_server(self, project: Path, first: Outcome) -> None:
        settings = ("name=examined", "train.eval_every=3", "train.eval_limit=2", "train.seed=5")
        found = harness("train", "experiment=tiny", *settings)
        assert found.code == 0, found.said
        (path,) = project.glob("runs/examined-*/checkpoint/training.json")
        summary = json.loads(path.read_text())
        steps = [examined["step"] for examined in summary["examined"]]
        assert steps == sorted({*range(3, summary["steps"] + 1, 3), summary["steps"]})
        assert len(steps) > 1
        assert summary["kept_step"] in steps
        assert found.said.count("start vLLM") == 1
        assert found.said.count("load into the running server: candidate") == len(steps) - 1
        assert len(found.server_pids) > 1
        assert tiny.alive(found.server_pids) == []
        assert not (path.parent.parent / ".training").exists()
        shutil.rmtree(path.parent.parent)


@contextmanager
def started(project: Path, log: Path, *overrides: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`harness run` as its own process group, as under a terminal; ended for certain.

    A job in the background of a shell inherits that Ctrl-C is ignored; at a terminal it is not.
    """
    environment = os.environ | {"PYTHONPATH": str(tiny.ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "harness.cli", "run", "experiment=tiny", *overrides]
    with log.open("w") as output:
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            process = subprocess.Popen(
                command, cwd=project, env=environment, stderr=output, stdout=output, start_new_session=True
            )
        finally:
            signal.signal(signal.SIGINT, before)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def interrupt(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Ctrl-C; asserts the exit code and the one clear message."""
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130, log.read_text()
    said = log.read_text()
    assert said.count("interrupted") == 1
    assert said.rstrip().splitlines()[-1].startswith("harness: interrupted. Finished stages are kept")
    assert "Traceback" not in said


def unfinished(project: Path) -> Path:
    (folder,) = (path.parent for path in project.glob("runs/*/config.yaml") if not (path.parent / "run.json").exists())
    assert [path for path in folder.rglob("*") if ".tmp" in path.name] == []
    return folder


class TestInterrupt:
    def test_during_training(self, tiny_base: Path, tmp_path: Path) -> None:
        project, log = write_project(tmp_path / "project", tiny_base), tmp_path / "log"
        with started(project, log, "train.epochs=100000") as process:

            def training() -> bool:
                assert process.poll() is None, log.read_text()
                return any(path.stat().st_size for path in project.glob("runs/*/.training/train.jsonl"))

            tiny.wait_for(training, 120, "the first optimiser step")
            interrupt(process, log)
        run = unfinished(project)
        assert (run / "data" / "stage.json").is_file()
        assert not (run / "checkpoint").exists()

    def test_while_the_server_evaluates(self, project: Path, run_folder: Path, tmp_path: Path) -> None:
        """The checkpoint is taken over from the run above; one item in flight at a time keeps the server busy."""
        log = tmp_path / "log"
        many = "suite.tasks=[{name: general_smoke, max_new_tokens: 64}]"
        with started(project, log, many, "serve.concurrency=1") as process:

            def evaluating() -> bool:
                assert process.poll() is None, log.read_text()
                return "server ready" in log.read_text()

            tiny.wait_for(evaluating, 180, "the evaluation's start")
            server = tiny.group_of(f"--chat-template {project}")
            assert len(server) > 1
            interrupt(process, log)
            assert tiny.alive(server) == []
        run = unfinished(project)
        assert (run / "checkpoint" / "stage.json").is_file()
        assert not (run / "eval" / "base").exists()
