"""What a CI system is told, whatever the texts hold."""

from pathlib import Path

import pytest

from harness.checkpoint.history import HistoryEntry
from harness.core.errors import ServerFault
from harness.records.gate import Side, Verdict
from harness.report.ci_outputs import annotations, write_failure, write_outputs, write_unchanged

SIDE = Side(label="x", weights_sha256="w", contract_sha256="c")
ENTRY = HistoryEntry(
    number=2, action="promote", alias="production", model="mine-1", run_id="mine", when="", who="", why="",
    digests={"weights": "w", "contract": "c"}, policy={}, previous="",
)  # fmt: skip
HOSTILE = "quiz fell\n::set-output name=verdict::PASS\r\n100% `@team`"


def verdict(name: str = "FAIL", code: int = 10) -> Verdict:
    values = {"verdict": name, "exit_code": code, "policy": "p", "reasons": [HOSTILE]}
    return Verdict.model_validate(values | {"baseline": SIDE, "candidate": SIDE, "metrics": []})


@pytest.fixture
def report(tmp_path: Path) -> Path:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "summary.md").write_text("## FAIL\n")
    (tmp_path / "report" / "junit.xml").write_text("<x/>")
    return tmp_path / "report" / "index.html"


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    files = {name: tmp_path / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for name, path in files.items():
        path.write_text("earlier\n")
        monkeypatch.setenv(name, str(path))
    return files


def test_summary_outputs_and_files(tmp_path: Path, report: Path, github: dict[str, Path]) -> None:
    write_outputs(verdict(), report, tmp_path)
    assert github["GITHUB_STEP_SUMMARY"].read_text() == "earlier\n## FAIL\n"
    lines = github["GITHUB_OUTPUT"].read_text().splitlines()
    assert lines[:3] == ["earlier", "verdict=FAIL", "exit_code=10"]
    assert [(tmp_path / name).is_file() for name in ("summary.md", "comment.md", "junit.xml")] == [True] * 3


def test_without_a_ci_system_nothing_is_printed(
    tmp_path: Path, report: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    write_outputs(verdict(), report, tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("name", "level"), [("PASS", "notice"), ("FAIL", "error"), ("INCONCLUSIVE", "warning")])
def test_a_reason_starts_no_command_of_its_own(name: str, level: str, tmp_path: Path) -> None:
    lines = annotations(verdict(name), tmp_path).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"::{level} title={name}::quiz fell")
    assert "100%25" in lines[0]


@pytest.mark.parametrize("named", [True, False])
def test_a_candidate_that_is_there_already(
    named: bool, tmp_path: Path, github: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The files beside a run belong to the decision that the promotion rests on."""
    out = tmp_path / "out" if named else None
    write_unchanged("runs/mine", ENTRY, out)
    told = dict(line.split("=", 1) for line in github["GITHUB_OUTPUT"].read_text().splitlines()[1:])
    assert (told["verdict"], told["exit_code"]) == ("UNCHANGED", "0")
    assert "runs/mine is already production (mine-1, entry 2)" in github["GITHUB_STEP_SUMMARY"].read_text()
    notice, line = capsys.readouterr().out.splitlines()
    assert notice.startswith("::notice title=UNCHANGED::")
    assert line.startswith("UNCHANGED: runs/mine is already production")
    assert (told["report"], told["folder"]) == ("", str(out) if out else "")
    if out is not None:
        assert (out / "comment.md").read_text().startswith("<!-- tuning-harness-verdict -->")


EARLIER = ("verdict.json", "evidence.json", "junit.xml", "annotations.txt", "report/index.html", "report/verdict.json")


def earlier_decision(out: Path) -> None:
    (out / "report").mkdir(parents=True)
    for name in (*EARLIER, "notes.txt"):
        (out / name).write_text("FAIL")


def test_an_earlier_decision_is_not_left_as_this_one(tmp_path: Path, github: dict[str, Path]) -> None:
    out = tmp_path / "ci-report"
    earlier_decision(out)
    write_unchanged("runs/mine", ENTRY, out)
    assert {path.name for path in out.rglob("*") if path.is_file()} == {"summary.md", "comment.md", "notes.txt"}


def test_the_decision_that_the_promotion_rests_on_stays(tmp_path: Path, github: dict[str, Path]) -> None:
    out = tmp_path / "mine" / "against" / "production"
    earlier_decision(out)
    write_unchanged("runs/mine", ENTRY, out)
    assert all((out / name).read_text() == "FAIL" for name in EARLIER)
    assert not (out / "summary.md").exists()


def test_a_failure_before_the_verdict(github: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    write_failure(ServerFault("it did not come up\nlast line ``` of the log"), None)
    assert "verdict=NONE\nexit_code=3\nreport=\nfolder=\n" in github["GITHUB_OUTPUT"].read_text()
    assert github["GITHUB_STEP_SUMMARY"].read_text().count("```") == 2
    assert capsys.readouterr().out == "::error title=harness::it did not come up%0Alast line ``` of the log\n"


def test_a_failure_is_told_in_the_folder_that_was_named(tmp_path: Path, github: dict[str, Path]) -> None:
    """In place of an earlier decision: nobody is to comment a pull request with that one."""
    out = tmp_path / "ci-report"
    earlier_decision(out)
    write_failure(ServerFault("it did not come up"), out)
    assert f"report=\nfolder={out}\n" in github["GITHUB_OUTPUT"].read_text()
    assert {path.name for path in out.rglob("*") if path.is_file()} == {"summary.md", "comment.md", "notes.txt"}
    assert "it did not come up" in (out / "comment.md").read_text()


def test_a_failure_leaves_the_decision_of_a_run(tmp_path: Path, github: dict[str, Path]) -> None:
    out = tmp_path / "mine" / "against" / "production"
    earlier_decision(out)
    write_failure(ServerFault("it did not come up"), out)
    assert "folder=\n" in github["GITHUB_OUTPUT"].read_text()
    assert all((out / name).read_text() == "FAIL" for name in EARLIER)


def test_a_failure_is_told_where_its_folder_cannot_be_made(tmp_path: Path, github: dict[str, Path]) -> None:
    (tmp_path / "file").touch()
    write_failure(ServerFault("it did not come up"), tmp_path / "file" / "out")
    assert "verdict=NONE\nexit_code=3\nreport=\nfolder=\n" in github["GITHUB_OUTPUT"].read_text()
