"""`harness clean` and the next run: what a killed process left behind goes, and nothing else."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cli import main
from harness.core.leftovers import temporary_name
from harness.core.store import locked, stage

MAKE = """
import sys, time
from pathlib import Path
from harness.core.leftovers import temporary_name
folder = Path(sys.argv[1]) / temporary_name("data")
folder.mkdir(parents=True)
(folder / "rows.jsonl").write_text("x" * 2000)
print(folder, flush=True)
if len(sys.argv) > 2:
    time.sleep(60)
"""


def left_by_a_killed_process(run: Path) -> Path:
    done = subprocess.run([sys.executable, "-c", MAKE, str(run)], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def test_clean_shows_first_and_removes_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "runs" / "a"
    left = left_by_a_killed_process(run)
    kept = run / "data" / "train.parquet"
    kept.parent.mkdir()
    kept.touch()
    empty = tmp_path / "runs" / "begun"
    empty.mkdir()
    (empty / ".lock").touch()
    verb = ["clean", "--runs-dir", str(tmp_path / "runs")]
    assert main(verb) == 0
    assert left.is_dir()
    assert empty.is_dir()
    shown = capsys.readouterr().out
    assert str(left) in shown
    assert "Nothing was removed" in shown
    assert main([*verb, "--remove"]) == 0
    assert not left.exists()
    assert not empty.exists()
    assert kept.is_file()
    capsys.readouterr()
    assert main(verb) == 0
    assert "holds nothing that no run needs" in capsys.readouterr().out


def test_the_files_of_a_living_process_stay(tmp_path: Path) -> None:
    run = tmp_path / "a"
    with subprocess.Popen([sys.executable, "-c", MAKE, str(run), "live"], stdout=subprocess.PIPE, text=True) as living:
        try:
            assert living.stdout is not None
            folder = Path(living.stdout.readline().strip())
            assert main(["clean", "--runs-dir", str(tmp_path), "--remove"]) == 0
            with locked(run):
                assert folder.is_dir()
        finally:
            living.kill()
    with locked(run):
        assert not folder.exists()


def test_the_files_of_another_machine_stay_for_a_day(tmp_path: Path) -> None:
    run = tmp_path / "a"
    other = run / ".data.tmp-12-h0123abcd-ff00ff00"
    other.mkdir(parents=True)
    assert main(["clean", "--runs-dir", str(tmp_path), "--remove"]) == 0
    assert other.is_dir()
    yesterday = time.time() - 2 * 86400
    os.utime(other, (yesterday, yesterday))
    assert main(["clean", "--runs-dir", str(tmp_path), "--remove"]) == 0
    assert not other.exists()


def test_the_next_start_of_a_stage_removes_what_the_last_one_left(tmp_path: Path) -> None:
    left = left_by_a_killed_process(tmp_path / "a")
    stage(tmp_path, tmp_path / "a" / "data", "data", {}, lambda folder: (folder / "out").touch())
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["data"]
    assert not left.exists()


def test_a_run_in_use_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = left_by_a_killed_process(tmp_path / "a")
    with locked(tmp_path / "a"):
        moved = left.with_name("kept")
        left_by_a_killed_process(tmp_path / "a").rename(moved)
        again = left_by_a_killed_process(tmp_path / "a")
        assert main(["clean", "--runs-dir", str(tmp_path), "--remove"]) == 0
        assert again.is_dir()
        assert main(["clean", "--runs-dir", str(tmp_path), "--cache"]) == 2
    assert "is in use" in capsys.readouterr().err


def test_clean_follows_no_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    left = left_by_a_killed_process(elsewhere)
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "linked").symlink_to(elsewhere)
    assert main(["clean", "--runs-dir", str(runs), "--remove"]) == 0
    assert left.is_dir()


def test_the_cache_goes_only_when_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    runs, merged = tmp_path / "runs", tmp_path / "cache" / "merged"
    runs.mkdir()
    merged.mkdir(parents=True)
    models = tmp_path / "cache" / "models"
    models.mkdir()
    assert main(["clean", "--runs-dir", str(runs), "--remove"]) == 0
    assert merged.is_dir()
    assert main(["clean", "--runs-dir", str(runs), "--remove", "--cache"]) == 0
    assert not merged.exists()
    assert models.is_dir()


def test_names_are_never_used_twice() -> None:
    assert temporary_name("a") != temporary_name("a")
