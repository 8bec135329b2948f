"""What the user sees: progress on a terminal and silence in CI and in files; nothing of a pipe that was closed."""

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.core import console
from harness.core.console import progress, silence_libraries


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, ci: bool) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TQDM_DISABLE", "1")  # as silence_libraries leaves it
    monkeypatch.setenv("CI", "true") if ci else monkeypatch.delenv("CI", raising=False)
    silence_libraries()
    with progress("base, candidate", 100, "request") as bar:
        for _ in range(4):
            time.sleep(0.11)  # tqdm redraws ten times a second at most
            bar.update(10)
    return stream.getvalue()


def test_a_terminal_sees_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(monkeypatch, Terminal(), ci=False)
    assert "base, candidate:  40%" in said
    assert "40/100 [00:00<00:" in said
    assert "request/s]" in said


@pytest.mark.parametrize(("stream", "ci"), [(Terminal(), True), (io.StringIO(), False)])
def test_ci_jobs_and_files_see_nothing(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, ci: bool) -> None:
    assert shown(monkeypatch, stream, ci) == ""


@pytest.mark.parametrize(
    ("verb", "redirected", "code"),
    [
        ("registry list", "", 0),
        ("registry verify --head 0123", "", 12),
        ("registry rollback", "2>&1", 2),
        ("--help", "", 0),
    ],
)
def test_a_reader_that_leaves_changes_neither_the_exit_code_nor_stderr(
    tmp_path: Path, verb: str, redirected: str, code: int
) -> None:
    """`true` reads nothing: the pipe is closed before the verb prints."""
    harness = f"{sys.executable} -c 'import sys; from harness.cli import main; sys.exit(main())' {verb}"
    script = f"({harness} {redirected}; echo $? > code) | true"
    done = shell(script, tmp_path)
    assert (done.stdout, done.stderr) == ("", "")
    assert int((tmp_path / "code").read_text()) == code


def shell(script: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONIOENCODING": "utf-8", **environment}
    command = ["bash", "-c", script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_in_the_middle_does_not_end_the_work(tmp_path: Path, unbuffered: str) -> None:
    body = """if True:
        import pathlib, sys
        from harness.core.console import closed_pipes_are_silent
        with closed_pipes_are_silent():
            for number in range(30_000):
                print("line", number)
            pathlib.Path("done").write_text("all of it")
        sys.exit(10)
    """
    (tmp_path / "work.py").write_text(body)
    script = f"({sys.executable} work.py; echo $? > code) | head -1"
    done = shell(script, tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert (done.stdout, done.stderr) == ("line 0\n", "")
    assert (tmp_path / "done").read_text() == "all of it"
    assert (tmp_path / "code").read_text() == "10\n"


def test_what_a_pipe_carries_is_whole_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(
        "import sys; from harness.core.console import closed_pipes_are_silent\n"
        "print('before é')\n"
        "with closed_pipes_are_silent(): print('inside “é”'); print('told', file=sys.stderr)\n"
        "print('after')"
    )
    done = shell(f"{sys.executable} work.py", tmp_path)
    assert (done.stdout, done.stderr) == ("before é\ninside “é”\nafter\n", "told\n")


@pytest.mark.parametrize(("stream", "ci"), [(Terminal(), True), (io.StringIO(), False)])
def test_logs_get_a_line_now_and_then_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, ci: bool
) -> None:
    monkeypatch.setattr(console, "LOGGED_EVERY_S", 0.2)
    lines = shown(monkeypatch, stream, ci).splitlines()
    assert 1 <= len(lines) <= 2
    assert re.fullmatch(r"  base, candidate: [234]0 of 100 requests, about \d s left", lines[0])
