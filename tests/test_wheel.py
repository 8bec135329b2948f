"""The installed wheel brings its own conf/, tasks/ and data/, and works from any working directory."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what an installation of the wheel would put into site-packages."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        wheel.extractall(out / "site")
    return out / "site"


def harness(installed: Path, cwd: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_shipped_files_are_found_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    done = harness(installed, tmp_path, "audit", "experiment=finance_disclaimer")
    assert done.returncode == 0, done.stderr
    counts = json.loads(next(tmp_path.glob("runs/*/data/audit.json")).read_text())
    assert counts["rows"] > 600
    assert counts["evaluation_items"] > 600


def test_own_conf_folder_is_searched_before_the_wheel(installed: Path, tmp_path: Path) -> None:
    own = tmp_path / "conf" / "data"
    own.mkdir(parents=True)
    (own / "finance.yaml").write_text("sources: {mine: {path: rows.jsonl, licence: CC0-1.0, role: domain}}\nseed: 0\n")
    row = {"instruction": "What are the opening hours?", "input": "", "output": "Nine to five.", "topic": "banking"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    done = harness(installed, tmp_path, "audit", "experiment=finance_disclaimer")
    assert done.returncode == 0, done.stderr
    assert "mine: 1 read, 1 kept" in done.stdout
