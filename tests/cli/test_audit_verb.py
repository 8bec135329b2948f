"""`harness audit` on any file, as a CI job of a data repository meets it."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main

Harness = Callable[..., tuple[int, str]]
GOOD = [
    {"instruction": "How do I open a savings account?", "output": "Bring an identity card to any of our branches."},
    {"instruction": "Where can I change my address?", "output": "In the app, under your profile and personal details."},
    {"instruction": "What does a standing order do?", "output": "It pays a fixed sum to the same person every month."},
]
MAIL = {"instruction": "Whom do I ask about a lost card?", "output": "Write to jane.roe@northgate.com, who blocks it."}


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Harness]:
    """Calls the command in an empty folder; returns exit code and all that was printed."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: str) -> tuple[int, str]:
        code = main(arguments)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    yield call
    signal.signal(signal.SIGTERM, before)


def write(path: Path, rows: list[Any]) -> None:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_clean_file_passes_the_strict_policy(harness: Harness, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", GOOD)
    code, printed = harness("audit", "--input", "rows.jsonl", "--out", "checked", "audit=strict")
    assert code == 0, printed
    assert "input: 3 read, 3 kept, 0 quarantined" in printed
    out = tmp_path / "checked"
    assert [row["instruction"] for row in lines(out / "kept.jsonl")] == [row["instruction"] for row in GOOD]
    assert lines(out / "quarantine.jsonl") == []
    assert json.loads((out / "audit.json").read_text())["broken_limits"] == []
    assert (out / "data_card.md").read_text().startswith("# Data card")


def test_a_broken_policy_ends_with_10_and_names_every_limit(harness: Harness, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [*GOOD, MAIL, "{cut"])
    code, printed = harness("audit", "--input", "rows.jsonl", "--out", "checked", "audit=strict")
    assert code == 10
    assert "limit broken: personal_data: 1 row found, at most 0 allowed" in printed
    assert "limit broken: malformed: 1 row found, at most 0 allowed" in printed
    reasons = {row["id"]: row["reasons"] for row in lines(tmp_path / "checked" / "quarantine.jsonl")}
    assert reasons["input-4"][0].startswith("personal_data: ")
    assert reasons["input-5"][0].startswith("malformed: ")
    assert "line 5" in reasons["input-5"][0]
    counts = json.loads((tmp_path / "checked" / "audit.json").read_text())["sources"][0]
    assert counts["read"] == 5 == counts["kept"] + sum(counts["quarantined"].values())


def test_limits_are_configuration(harness: Harness, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [*GOOD, MAIL])
    code, printed = harness("audit", "--input", "rows.jsonl", "audit=strict", "audit.limits.max_rows.personal_data=1")
    assert code == 0, printed
    assert len(lines(tmp_path / "audit" / "kept.jsonl")) == 3


def test_the_default_policy_masks_and_passes(harness: Harness, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [*GOOD, MAIL])
    code, _ = harness("audit", "--input", "rows.jsonl")
    assert code == 0
    assert "<EMAIL_ADDRESS>" in lines(tmp_path / "audit" / "kept.jsonl")[3]["output"]


def test_settings_of_the_source_are_overrides(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("q;x,a\n" + "".join(f"{r['instruction']},{r['output']}\n" for r in GOOD[:1]))
    columns = "data.sources.input.columns={instruction: 'q;x', output: a}"
    code, printed = harness("audit", "--input", "rows.csv", columns, "data.sources.input.licence=CC0-1.0")
    assert code == 0, printed
    assert "| input | domain | CC0-1.0 | 1 | 1 |" in (tmp_path / "audit" / "data_card.md").read_text()


def test_a_missing_file(harness: Harness) -> None:
    code, printed = harness("audit", "--input", "absent.jsonl")
    assert code == 2
    assert "absent.jsonl does not exist" in printed


def test_faults_of_filters_are_told_with_all_others(harness: Harness, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", GOOD)
    code, printed = harness("audit", "--input", "rows.jsonl", "audit.filters.toxicity.treshold=1", "serve.port=-7")
    assert code == 2
    assert "2 configuration errors" in printed
    assert "audit.filters.toxicity.treshold: unknown key. Did you mean 'threshold'?" in printed


def test_an_audit_that_fails_leaves_an_earlier_one_whole(harness: Harness, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", GOOD)
    assert harness("audit", "--input", "rows.jsonl")[0] == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "audit").iterdir()}
    write(tmp_path / "rows.jsonl", ["{cut"])
    assert harness("audit", "--input", "rows.jsonl")[0] == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "audit").iterdir()} == before


def test_a_run_on_data_that_break_the_policy_stops_before_training(harness: Harness, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [*GOOD, MAIL])
    folder = tmp_path / "conf" / "data"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("sources: {mine: {path: rows.jsonl, licence: CC0-1.0}}\n")
    code, printed = harness("train", "experiment=finance_disclaimer", "data=mine", "audit=strict", "tracker=none")
    assert code == 10
    assert "audit.limits.max_rows.personal_data" in printed
    assert not list(tmp_path.glob("runs/*/checkpoint"))


def test_a_secret_does_not_reach_the_config_of_a_run(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINIC_API_KEY", "correct-horse-7")
    write(tmp_path / "rows.jsonl", [*GOOD, MAIL])
    key = "sk-abcdefghijklmnopqrstuvwxyz0123456789"
    system = ["template.system_policy=fixed", "template.system=correct-horse-7"]
    folder = tmp_path / "conf" / "data"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("sources: {mine: {path: rows.jsonl, licence: CC0-1.0}}\n")
    code, printed = harness(
        "train",
        "experiment=finance_disclaimer",
        "data=mine",
        "audit=strict",
        "tracker=none",
        f"tracker.project={key}",
        *system,
    )
    assert code == 10, printed
    (written,) = tmp_path.glob("runs/*/config.yaml")
    for text in (written.read_text(), printed):
        assert key not in text
        assert "correct-horse-7" not in text
    assert "[removed]" in written.read_text()
