"""Hands a decision to a CI system: job summary, step outputs, annotations, a comment, artifacts."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from harness.checkpoint.history import HistoryEntry
from harness.core.errors import HarnessError
from harness.core.layout import COMPARISON, EVIDENCE, POLICY, VERDICT, RunFolder
from harness.core.paths import write_text
from harness.records.gate import Verdict
from harness.report.markdown import MARKER
from harness.report.wording import one_line
from harness.report.write import OUTPUTS

UNCHANGED = "UNCHANGED"
DECISION = (VERDICT, COMPARISON, POLICY, EVIDENCE)
REPORTED = ("index.html", VERDICT, *OUTPUTS)
COPIED = ("summary.md", "comment.md", "junit.xml", "annotations.txt", "gitlab-codequality.json")


def write_outputs(verdict: Verdict, report: Path, out: Path) -> None:
    """Copies the report's small files beside the verdict, then fills the files that the CI system provides."""
    for name in COPIED:
        if (report.parent / name).is_file():
            write_text(out / name, (report.parent / name).read_text(encoding="utf-8"))
    if not (out / "comment.md").is_file():
        write_text(out / "comment.md", (out / "summary.md").read_text(encoding="utf-8"))
    _append("GITHUB_STEP_SUMMARY", (out / "summary.md").read_text())
    _append_outputs(
        {
            "verdict": verdict.verdict,
            "exit_code": str(verdict.exit_code),
            "report": str(report.resolve()),
            "folder": str(out.resolve()),
        }
    )
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print(annotations(verdict, out))


def write_unchanged(candidate: str, entry: HistoryEntry, out: Path | None) -> None:
    """The same for a candidate that the alias points to already, so that there is nothing to decide.

    Files are written only into a named folder, in place of an earlier decision, which must not be taken for this one.
    The folder of a run, or of a decision against an alias, stays as it is: it holds what the promotion rests on.
    """
    statement = f"{candidate} is already {entry.alias} ({entry.model}, entry {entry.number}): nothing to decide"
    message = f"{MARKER}\n## {UNCHANGED}\n\n{statement}: the same weights under the same prompt contract.\n"
    folder = _replace_decision(message, out)
    _append("GITHUB_STEP_SUMMARY", message)
    _append_outputs({"verdict": UNCHANGED, "exit_code": "0", "report": "", "folder": folder})
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print(f"::notice title={UNCHANGED}::{_escaped(one_line(statement))}")
    print(f"{UNCHANGED}: {statement}")


def _replace_decision(message: str, out: Path | None) -> str:
    """Writes summary and comment in place of an earlier decision; returns the folder, '' if nothing was written."""
    if out is None or RunFolder(out).record.is_file() or RunFolder(out).is_against_an_alias:
        return ""
    out.mkdir(parents=True, exist_ok=True)
    earlier = [*(out / name for name in (*DECISION, *COPIED)), *(RunFolder(out).report / name for name in REPORTED)]
    for path in earlier:
        path.unlink(missing_ok=True)
    for name in ("summary.md", "comment.md"):
        write_text(out / name, message)
    return str(out.resolve())


def write_failure(error: HarnessError, out: Path | None) -> None:
    """The same for a decision that could not be made. A folder that cannot be written does not hide the reason."""
    message = f"{MARKER}\n## No verdict\n\n```\n{str(error).replace('```', '')}\n```\n"
    folder = ""
    with suppress(OSError):
        folder = _replace_decision(message, out)
    _append("GITHUB_STEP_SUMMARY", message)
    _append_outputs({"verdict": "NONE", "exit_code": str(error.exit_code), "report": "", "folder": folder})
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print(f"::error title=harness::{_escaped(str(error))}")


def annotations(verdict: Verdict, out: Path) -> str:
    """GitHub workflow commands, one per line: those of the report where it has them, else one for each reason."""
    if (out / "annotations.txt").is_file():
        return (out / "annotations.txt").read_text().rstrip("\n")
    level = {"PASS": "notice", "INCONCLUSIVE": "warning"}.get(verdict.verdict, "error")
    return "\n".join(f"::{level} title={verdict.verdict}::{_escaped(one_line(r))}" for r in verdict.reasons)


def _escaped(text: str) -> str:
    """Percent signs and line ends escaped for a workflow command, so that no answer of a model starts a new one."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _append_outputs(values: Mapping[str, str]) -> None:
    _append("GITHUB_OUTPUT", "".join(f"{name}={one_line(value)}\n" for name, value in values.items()))


def _append(variable: str, text: str) -> None:
    """Appends text to the file that an environment variable names; does nothing where it is not set."""
    if path := os.environ.get(variable):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text if text.endswith("\n") else f"{text}\n")
