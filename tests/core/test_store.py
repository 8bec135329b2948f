"""Run folders: what is complete, what is reused, and what a failure leaves behind."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from harness.core import store
from harness.core.errors import DiskFull, EvidenceFault, UsageError
from harness.core.store import (
    MANIFEST,
    changed_files,
    disk_full_translated,
    locked,
    read_manifest,
    require_unchanged,
    sha256_json,
    stage,
    write_json,
)

ROOT = Path(__file__).resolve().parents[2]


class Work:
    """A stage's work that counts how often it was done."""

    def __init__(self, text: str = "rows"):
        self.text = text
        self.times = 0

    def __call__(self, folder: Path) -> None:
        self.times += 1
        (folder / "deep").mkdir()
        (folder / "out.txt").write_text(self.text)
        (folder / "deep" / "more.txt").write_text(self.text)


def in_run(runs: Path, run: str, inputs: dict[str, Any], work: Callable[[Path], None]) -> tuple[Path, bool]:
    return stage(runs, runs / run / "data", "data", inputs, work)


def visible(runs: Path) -> list[str]:
    return sorted(path.relative_to(runs).as_posix() for path in runs.rglob("*"))


def test_a_stage_is_done_once(tmp_path: Path) -> None:
    work = Work()
    folder, reused = in_run(tmp_path, "a", {"seed": 1}, work)
    assert not reused
    assert (folder / "out.txt").read_text() == "rows"
    assert in_run(tmp_path, "a", {"seed": 1}, work) == (folder, True)
    assert work.times == 1


def test_another_run_takes_it_over(tmp_path: Path) -> None:
    work = Work()
    in_run(tmp_path, "a", {"seed": 1}, work)
    folder, reused = in_run(tmp_path, "b", {"seed": 1}, work)
    assert (folder, reused, work.times) == (tmp_path / "b" / "data", True, 1)
    assert (folder / "deep" / "more.txt").read_text() == "rows"
    assert changed_files(folder) == []


def test_what_was_taken_over_survives_the_run_it_came_from(tmp_path: Path) -> None:
    first, _ = in_run(tmp_path, "a", {"seed": 1}, Work())
    second, _ = in_run(tmp_path, "b", {"seed": 1}, Work())
    in_run(tmp_path, "a", {"seed": 2}, Work("other rows"))
    assert (first / "out.txt").read_text() == "other rows"
    assert (second / "out.txt").read_text() == "rows"
    require_unchanged(second)


def test_a_changed_input_redoes_the_stage(tmp_path: Path) -> None:
    in_run(tmp_path, "a", {"seed": 1}, Work())
    folder, reused = in_run(tmp_path, "a", {"seed": 2}, Work("other rows"))
    assert not reused
    assert (folder / "out.txt").read_text() == "other rows"


def test_another_stage_with_equal_inputs_is_not_the_same(tmp_path: Path) -> None:
    in_run(tmp_path, "a", {"seed": 1}, Work())
    work = Work()
    _, reused = stage(tmp_path, tmp_path / "b" / "train", "train", {"seed": 1}, work)
    assert (reused, work.times) == (False, 1)


def test_an_edited_output_is_redone_and_never_taken_over(tmp_path: Path) -> None:
    folder, _ = in_run(tmp_path, "a", {"seed": 1}, Work())
    (folder / "out.txt").write_text("edited")
    other, reused = in_run(tmp_path, "b", {"seed": 1}, Work())
    assert (reused, (other / "out.txt").read_text()) == (False, "rows")
    in_run(tmp_path, "a", {"seed": 1}, Work())
    assert (folder / "out.txt").read_text() == "rows"


@pytest.mark.parametrize("harm", ["edit", "delete", "move"])
def test_edited_output_is_noticed(tmp_path: Path, harm: str) -> None:
    folder, _ = in_run(tmp_path, "a", {}, Work())
    require_unchanged(folder)
    path = folder / "deep" / "more.txt"
    if harm == "edit":
        path.write_text("rowz")
    elif harm == "delete":
        path.unlink()
    else:
        path.rename(folder / "more.txt")
    assert changed_files(folder) == ["deep/more.txt"]
    with pytest.raises(EvidenceFault, match=r"deep/more\.txt"):
        require_unchanged(folder)


def fails(folder: Path) -> None:
    (folder / "half.txt").write_text("half")
    raise RuntimeError("cut off")


def test_a_failing_stage_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cut off"):
        in_run(tmp_path, "a", {}, fails)
    assert visible(tmp_path) == ["a"]


def test_a_failing_stage_keeps_the_earlier_complete_one(tmp_path: Path) -> None:
    folder, _ = in_run(tmp_path, "a", {"seed": 1}, Work())
    before = visible(tmp_path)
    with pytest.raises(RuntimeError, match="cut off"):
        in_run(tmp_path, "a", {"seed": 2}, fails)
    assert visible(tmp_path) == before
    require_unchanged(folder)
    assert in_run(tmp_path, "a", {"seed": 1}, Work())[1]


def test_an_interrupted_stage_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_run(tmp_path, "a", {}, interrupted)
    assert visible(tmp_path) == ["a"]


def test_leftovers_of_a_killed_process_are_no_stage(tmp_path: Path) -> None:
    folder, _ = in_run(tmp_path, "a", {"seed": 1}, Work())
    folder.rename(tmp_path / "a" / ".data.tmp-12345")
    work = Work()
    _, reused = in_run(tmp_path, "b", {"seed": 1}, work)
    assert (reused, work.times) == (False, 1)
    _, reused = in_run(tmp_path / "a", "b", {"seed": 1}, work)
    assert (reused, work.times) == (False, 2)


def test_leftovers_of_the_same_process_id_are_not_mixed_in(tmp_path: Path) -> None:
    left = tmp_path / "a" / f".data.tmp-{os.getpid()}"
    left.mkdir(parents=True)
    (left / "stale.txt").write_text("stale")
    folder, _ = in_run(tmp_path, "a", {}, Work())
    assert visible(folder) == ["deep", "deep/more.txt", "out.txt", MANIFEST]


def test_of_two_that_make_one_stage_at_once_the_first_to_finish_is_kept(tmp_path: Path) -> None:
    """Somebody may be reading it already."""

    def slower(folder: Path) -> None:
        in_run(tmp_path, "a", {}, Work("first"))
        Work("second")(folder)

    folder, reused = in_run(tmp_path, "a", {}, slower)
    assert (reused, (folder / "out.txt").read_text()) == (False, "first")
    require_unchanged(folder)
    assert visible(tmp_path) == ["a", "a/data", *(f"a/data/{name}" for name in visible(folder))]


def test_a_stage_that_vanishes_while_it_is_taken_over_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_run(tmp_path, "a", {}, Work("theirs"))
    link = store._link

    def vanishing(source: str, target: str) -> None:
        link(source, target)
        shutil.rmtree(tmp_path / "a", ignore_errors=True)

    monkeypatch.setattr(store, "_link", vanishing)
    folder, reused = in_run(tmp_path, "b", {}, Work("ours"))
    assert (reused, (folder / "out.txt").read_text()) == (False, "ours")
    require_unchanged(folder)


def test_a_folder_that_vanishes_while_stages_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir, gone = os.scandir, tmp_path / "b" / "data"
    gone.mkdir(parents=True)

    def vanishing(path: Any = ".") -> Any:
        if not isinstance(path, int) and Path(path) == gone:
            gone.rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert not in_run(tmp_path, "a", {}, Work())[1]
    assert not gone.exists(), "it was looked into"


def test_records_written_at_once_are_whole(tmp_path: Path) -> None:
    def write(number: int) -> None:
        write_json(tmp_path / "record.json", [number] * 10_000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(100)))
    assert len(set(json.loads((tmp_path / "record.json").read_text()))) == 1
    assert visible(tmp_path) == ["record.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', "{}"])
def test_a_damaged_manifest_makes_no_stage(tmp_path: Path, text: str) -> None:
    folder, _ = in_run(tmp_path, "a", {}, Work())
    (folder / MANIFEST).write_text(text)
    _, reused = in_run(tmp_path, "a", {}, Work())
    assert not reused
    assert (read_manifest(folder) or {})["stage"] == "data"


def test_files_in_place_of_the_stage_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "a" / "data").mkdir(parents=True)
    (tmp_path / "a" / "data" / "old.txt").write_text("no manifest")
    folder, reused = in_run(tmp_path, "a", {}, Work())
    assert not reused
    assert not (folder / "old.txt").exists()


def test_the_manifest_covers_every_output(tmp_path: Path) -> None:
    folder, _ = in_run(tmp_path, "a", {"seed": 1}, Work())
    manifest = read_manifest(folder)
    assert manifest is not None
    assert set(manifest["outputs"]) == {"out.txt", "deep/more.txt"}
    assert manifest["inputs"] == {"seed": 1}


def test_a_run_in_use_by_another_process(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from harness.core.store import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="in use"), locked(tmp_path):
            pass
        other.communicate("")
    with locked(tmp_path):
        pass


def test_the_lock_is_given_back_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path):
        raise RuntimeError
    with locked(tmp_path):
        pass


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=str,
)
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    def full(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise error

    with pytest.raises(DiskFull, match="MiB free"):
        in_run(tmp_path, "a", {}, full)
    assert visible(tmp_path) == ["a"]


def test_other_system_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_full_translated(tmp_path):
        raise PermissionError(errno.EACCES, "denied")
    with pytest.raises(SafetensorError), disk_full_translated(tmp_path):
        raise SafetensorError("Error while deserializing header")


def test_digest_ignores_key_order_only() -> None:
    assert sha256_json({"a": 1, "b": [1, 2]}) == sha256_json({"b": [1, 2], "a": 1})
    assert sha256_json({"a": 1, "b": [1, 2]}) != sha256_json({"a": 1, "b": [2, 1]})
