from pathlib import Path

import pytest
from report_views import METRICS, make_verdict

from harness.records.gate import Verdict
from harness.report.terminal import print_verdict

LONG = Path("/srv/runs/20260102-030405-a-rather-long-experiment-name/report/index.html")


@pytest.fixture
def verdict() -> Verdict:
    return make_verdict(METRICS, "FAIL", ["smoke/knowledge/acc dropped by 6.1 points, more than the 2.0 allowed"])


@pytest.mark.parametrize("columns", ["20", "40", "80", "200"])
def test_the_path_is_never_broken(
    columns: str, verdict: Verdict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    print_verdict(verdict, LONG)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "FAIL"
    assert lines[-2] == f"Report: {LONG}"


def test_a_log_gets_the_whole_table(
    verdict: Verdict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_verdict(verdict, None)
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if "smoke/knowledge/acc " in line and "guard" in line]
    for cell in ("412", "71.2%", "65.1%", "-6.1 points [-9.4, -2.8]", "margin 2.0 points", "FAIL"):
        assert cell in line
    assert "Report:" not in out


def test_a_narrow_terminal_loses_no_number(
    verdict: Verdict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_verdict(verdict, None)
    out = " ".join(capsys.readouterr().out.split())
    assert "…" not in out
    assert "FAIL smoke/knowledge/acc role guard, n 412, baseline 71.2%, candidate 65.1%" in out


def test_square_brackets_are_text_and_escapes_are_gone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    metric = METRICS[0].model_copy(update={"slice": "[red]age>65[/red]\x1b[2J"})
    print_verdict(make_verdict([metric], "PASS", ["[bold]kept[/bold]"]), None)
    out = capsys.readouterr().out
    assert "[[red]age>65[/red]" in out
    assert "[bold]kept[/bold]" in out
    assert "\x1b[2J" not in out


def test_no_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    print_verdict(make_verdict([], "INVALID", ["prompt contracts differ"]), None)
    assert capsys.readouterr().out.splitlines() == ["- prompt contracts differ", "INVALID"]


@pytest.mark.parametrize(("metrics", "reasons"), [(40, 1), (40, 40), (2, 40)])
@pytest.mark.parametrize("columns", ["40", "200"])
def test_long_lists_end_after_twenty_lines_with_the_worst_shown(
    metrics: int, reasons: int, columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    fine = METRICS[0].model_copy(update={"task": "fine"})
    many = [*[fine.model_copy(update={"metric": f"acc{i}"}) for i in range(metrics - 1)], METRICS[1]]
    print_verdict(make_verdict(many, "FAIL", [f"reason {i}" for i in range(reasons)]), LONG)
    lines = capsys.readouterr().out.splitlines()
    framing = 9  # head and rules of the table, two lines that say where the rest is, path, verdict
    assert len(lines) <= 20 + framing
    assert any("smoke/knowledge/acc" in line and "FAIL" in line for line in lines)
    assert lines[-1] == "FAIL"
    if metrics == 40:
        assert any(line.startswith("and ") and line.endswith("see the report, or verdict.json") for line in lines)
