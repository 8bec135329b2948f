"""Verbs, messages and exit codes, as a user at a terminal meets them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cli import main
from harness.cli.parser import parser

VERBS = (
    "run", "audit", "train", "evaluate", "compare", "gate", "report", "serve", "template", "mirror", "doctor",
    "promote", "registry", "verify", "ci", "score", "config", "clean",
)  # fmt: skip
HEAVY = ("torch", "transformers", "vllm", "lm_eval", "wandb", "datasets", "hydra", "scipy", "matplotlib", "pydantic")
ROOT = Path(__file__).resolve().parents[2]
ROW = {"instruction": "How do I open a savings account?", "output": "Bring an identity card to a branch.", "topic": "b"}

Harness = Callable[..., tuple[int, str]]


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Harness]:
    """Calls the command in an empty folder; returns exit code and all that was printed."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def audit_rows(harness: Harness, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """`harness audit` on a file with the given lines as the only source."""

    def call(text: str, *overrides: str) -> tuple[int, str]:
        (tmp_path / "rows.jsonl").write_text(text)
        (tmp_path / "conf" / "data").mkdir(parents=True, exist_ok=True)
        source = "sources: {mine: {path: rows.jsonl, licence: CC0-1.0}}\n"
        (tmp_path / "conf" / "data" / "mine.yaml").write_text(source)
        return harness("audit", "data=mine", "tracker=none", *overrides)

    return call


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import runpy, sys\n"
        "sys.argv = ['harness', '--help']\n"
        "try:\n    runpy.run_module('harness.cli', run_name='__main__')\n"
        "except SystemExit as exit_:\n    assert not exit_.code, exit_.code\n"
        f"loaded = [name for name in {HEAVY} if name in sys.modules]\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(harness: Harness, verb: str) -> None:
    code, printed = harness(verb, "--help")
    assert code == 0
    assert f"example: harness {verb}" in printed


def test_main_help_tells_the_exit_codes(harness: Harness) -> None:
    code, printed = harness("--help")
    assert code == 0
    assert all(text in printed for text in ("0 done", "10 FAIL", "11 INCONCLUSIVE", "12 INVALID"))


def test_unknown_verb(harness: Harness) -> None:
    code, printed = harness("frobnicate")
    assert code == 2
    assert "frobnicate" in printed
    assert "evaluate" in printed


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("evalaute base", "there is no verb 'evalaute'. Did you mean 'evaluate'?"),
        ("registry lst", "registry: there is no action 'lst'. Did you mean 'list'?"),
        ("evaluate --dry-run", "evaluate has no --dry-run; run, train have it: harness run … --dry-run"),
        ("--dry-run train", "there is no --dry-run before the verb; run, train have it: harness run … --dry-run"),
        ("serve runs/NAME --out=there", "serve has no --out; audit, score, compare, gate, ci have it: harness audit …"),
        ("train --dri-run", "train has no --dri-run. Did you mean '--dry-run'?"),
        ("doctor --frobnicate", "doctor has no --frobnicate. Valid: --help, --json, --deep, --online."),
        ("run finance_disclaimer", "run does not take 'finance_disclaimer'. It takes only options and key=value"),
        ("compare one two three", "compare does not take 'three'. It takes BASELINE and CANDIDATE."),
    ],
)
def test_what_a_verb_does_not_take(harness: Harness, typed: str, told: str) -> None:
    code, printed = harness(*typed.split())
    assert code == 2
    assert printed.startswith(f"harness: {told}")
    assert "\nexample: harness " in printed
    assert "usage:" not in printed, "one message"


def test_every_unknown_option_is_named_at_once(harness: Harness) -> None:
    code, printed = harness("audit", "--dry-run", "--judge", "http://127.0.0.1:8000")
    assert code == 2
    assert "audit has no --dry-run; run, train have it" in printed
    assert "audit has no --judge; score has it" in printed


@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        ("", ["VERB", "VERB: one of run, sweep, train,", "example: harness run experiment="]),
        (
            "score disclaimer",
            ["RESPONSES", "RESPONSES: JSON lines, CSV, TSV or .xlsx", "example: harness score discl"],
        ),
        (
            "registry",
            [
                "ACTION",
                "ACTION: init: make the registry and an alias; list: aliases and their history;",
                "example: harness registry rollback",
            ],
        ),
        ("mirror general", ["--to", "--to DIR: folder to copy to", "example: harness mirror general --to hub"]),
    ],
)
def test_a_missing_argument_is_explained(harness: Harness, typed: str, lines: list[str]) -> None:
    code, printed = harness(*typed.split())
    assert code == 2
    first, *rest = printed.splitlines()
    assert first.endswith(f"the following arguments are required: {lines[0]}")
    assert [line.strip()[: len(start)] for line, start in zip(rest, lines[1:], strict=True)] == lines[1:]


def test_an_option_without_its_value_is_explained(harness: Harness) -> None:
    code, printed = harness("mirror", "general", "--to")
    assert code == 2
    assert printed.startswith("harness: mirror: argument --to: expected one argument\n  --to DIR: folder to copy to")


def test_every_argument_has_a_help_text() -> None:
    silent = [
        f"{verb} {action.dest}" for verb, one in parser().verbs.items() for action in one._actions if not action.help
    ]
    assert silent == []


def test_unknown_experiment_names_the_nearest(harness: Harness) -> None:
    code, printed = harness("run", "experiment=finance_disclamer")
    assert code == 2
    assert "Did you mean 'finance_disclaimer'?" in printed


def test_run_without_experiment_lists_them(harness: Harness) -> None:
    code, printed = harness("run")
    assert code == 2
    assert "finance_disclaimer" in printed
    assert "finance_naive" in printed


def test_all_configuration_faults_are_told_at_once(harness: Harness, tmp_path: Path) -> None:
    code, printed = harness("audit", "model=nope", "train.learing_rate=1", "serve.port=-7")
    assert code == 2
    assert "3 configuration errors" in printed
    assert "model=nope" in printed
    assert "'learning_rate'" in printed
    assert "serve.port" in printed
    assert list(tmp_path.iterdir()) == []


def test_missing_data_file(harness: Harness) -> None:
    code, printed = harness("audit", "data.sources.finance.path=absent.jsonl", "tracker=none")
    assert code == 2
    assert "absent.jsonl does not exist" in printed
    assert "data.sources.finance.path" in printed


def test_row_without_output_is_named_by_file_and_line(audit_rows: Callable[..., tuple[int, str]]) -> None:
    bad = {"instruction": "What is a fee?", "answer": "A charge."}
    code, printed = audit_rows(json.dumps(ROW) + "\n" + json.dumps(bad) + "\n")
    assert code == 2
    assert "rows.jsonl line 2" in printed
    assert "output" in printed
    assert "answer" in printed, "the columns that are there help to find the mapping"


@pytest.mark.parametrize(("text", "told"), [("", "rows.jsonl is empty"), ("\n\n", "no row is left")])
def test_empty_dataset(audit_rows: Callable[..., tuple[int, str]], text: str, told: str) -> None:
    code, printed = audit_rows(text)
    assert code == 2
    assert told in printed


def test_audit_of_good_rows(audit_rows: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, printed = audit_rows(json.dumps(ROW) + "\n")
    assert code == 0
    assert "mine: 1 read, 1 kept, 0 quarantined" in printed
    assert len(list(tmp_path.glob("runs/*/data/train.parquet"))) == 1


def test_report_of_a_missing_run(harness: Harness) -> None:
    code, printed = harness("report", "yesterday")
    assert code == 2
    assert "yesterday: no such run folder. There is none in runs." in printed


def test_report_of_a_misspelt_run_names_the_nearest(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "runs" / "yesterday").mkdir(parents=True)
    (tmp_path / "runs" / "yesterday" / "verdict.json").write_text("{}")
    code, printed = harness("report", "yesterdy")
    assert code == 2
    assert "Did you mean 'yesterday'?" in printed


def test_report_of_a_folder_without_a_verdict(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    code, printed = harness("report", "half")
    assert code == 2
    assert "verdict.json" in printed


def test_gate_of_a_missing_folder(harness: Harness) -> None:
    code, printed = harness("gate", "no_such_baseline", "no_such_candidate")
    assert code == 2
    assert "no_such_baseline" in printed


def test_gate_of_a_folder_without_an_evaluation(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    code, printed = harness("gate", "half", "half")
    assert code == 2
    assert "no evaluation" in printed


def test_gate_refuses_other_overrides(harness: Harness) -> None:
    code, printed = harness("gate", "a", "b", "gate=strict")
    assert code == 2
    assert "policy=" in printed


def _fails_with(error: BaseException) -> Callable[..., Path]:
    def work(*_: object) -> Path:
        raise error

    return work


def test_ctrl_c_ends_with_130(harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setattr("harness.report.write.write_report", _fails_with(KeyboardInterrupt()))
    code, printed = harness("report", "run")
    assert code == 130
    assert "Traceback" not in printed


def test_sigterm_ends_like_ctrl_c(harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()

    def terminate(*_: object) -> Path:
        os.kill(os.getpid(), signal.SIGTERM)
        return tmp_path

    monkeypatch.setattr("harness.report.write.write_report", terminate)
    before = signal.getsignal(signal.SIGTERM)
    code, _ = harness("report", "run")
    assert code == 130
    assert signal.getsignal(signal.SIGTERM) is before, "who called goes on as before"


def test_a_defect_is_not_swallowed(harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setattr("harness.report.write.write_report", _fails_with(ZeroDivisionError("a defect")))
    with pytest.raises(ZeroDivisionError, match="a defect"):
        harness("report", "run")


def test_the_version_names_the_commit(harness: Harness) -> None:
    from harness.core.store import git_commit
    from harness.core.version import __version__

    commit = git_commit()
    code, printed = harness("--version")
    assert code == 0
    assert printed.strip() == (f"{__version__} (commit {commit[:12]})" if commit else __version__)
