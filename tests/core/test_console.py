"""Progress bars: speed and time left on a terminal, silence in CI and in files."""

import io
import sys
import time

import pytest

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
