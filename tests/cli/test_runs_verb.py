"""`harness runs` lists finished, unfinished and damaged runs, as text, JSON and CSV."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from harness.cli import main

GOLDEN = Path(__file__).parents[1] / "lineage" / "golden"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of an earlier release, one that was begun, and one whose record is damaged."""
    (source,) = [path.parent for path in GOLDEN.glob("**/run.json")][:1]
    shutil.copytree(source, tmp_path / "whole")
    shutil.copytree(source, tmp_path / "damaged")
    (tmp_path / "damaged" / "run.json").write_text("{")
    (tmp_path / "=begun").mkdir()
    (tmp_path / "=begun" / "config.yaml").write_text("name: begun\n")
    (tmp_path / "not a run").mkdir()
    return tmp_path


def test_every_run_is_listed_with_what_is_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "3 runs in" in printed
    assert "=begun  missing: data" in printed
    assert "run.json (damaged)" in printed
    assert "not a run" not in printed


def test_json_and_csv_hold_every_metric(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(folder), "--json"]) == 0
    rows = {row["run_id"]: row for row in json.loads(capsys.readouterr().out)}
    verdict = json.loads((folder / "whole" / "verdict.json").read_text())
    assert rows["whole"]["verdict"] == verdict["verdict"]
    assert rows["whole"]["bytes"] == sum(
        path.stat().st_size for path in (folder / "whole").rglob("*") if path.is_file()
    )
    metric = next(one for one in verdict["metrics"] if one["slice"] == "all")
    key = f"{metric['suite']}/{metric['task']}/{metric['metric']}"
    assert rows["whole"][key] == metric["candidate"]
    assert main(["runs", str(folder), "--csv"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["run_id"] for row in table} == {"whole", "damaged", "'=begun"}  # no spreadsheet takes it for a formula
    assert float(next(row for row in table if row["run_id"] == "whole")[key]) == metric["candidate"]


def test_a_folder_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path / "gone")]) == 2
    assert "is not a folder. Name the folder of the runs: harness runs DIR" in capsys.readouterr().err
