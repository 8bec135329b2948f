"""Writes the report of a run or of a gate decision, from the records in its folder."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.core.errors import DataError, EvidenceFault
from harness.core.layout import COMPARISON, CONTRACT, EVALUATION, VERDICT, RunFolder
from harness.core.paths import require_no_link, write_text
from harness.core.store import sha256_file, write_json
from harness.lineage.verify import decision_mismatches, verdict_mismatches
from harness.prompt.contract import Contract
from harness.records.base import load
from harness.records.gate import Comparison, Verdict
from harness.records.stages import Dataset, Evaluation, TrainingSummary
from harness.report.domain import task_failures
from harness.report.view import RunView

OUTPUTS = ("summary.md", "comment.md", "junit.xml", "annotations.txt", "gitlab-codequality.json", "metrics.txt")


def write_report(folder: Path, name: str | None = None, command: str | None = None) -> Path:
    """Writes report/: index.html, the OUTPUTS for CI systems, and a copy of verdict.json; returns index.html's path.

    Raises DataError when the folder has no verdict; EvidenceFault when run.json has the digest of another one, or when
    the verdict does not follow from compare.json and policy.json.
    """
    from harness.report import formats
    from harness.report.formats import write_junit
    from harness.report.html import write_html
    from harness.report.markdown import comment_markdown, summary_markdown

    view = run_view(folder, name, command)
    out = report_folder(folder)
    write_html(view, RunFolder(folder).report_page)
    write_junit(view.verdict, out / "junit.xml")
    written = {
        "summary.md": summary_markdown(view),
        "comment.md": comment_markdown(view),
        "annotations.txt": formats.annotations(view.verdict),
        "gitlab-codequality.json": formats.code_quality(view.verdict),
        "metrics.txt": formats.open_metrics(view.verdict),
    }
    for file, text in written.items():
        write_text(out / file, text)
    write_text(out / VERDICT, (folder / VERDICT).read_text(encoding="utf-8"))
    _record_page(folder)
    return RunFolder(folder).report_page


def report_folder(folder: Path) -> Path:
    """The folder's report/, made if need be. Raises EvidenceFault where it is a symbolic link."""
    out = RunFolder(folder).report
    require_no_link(out, folder)
    out.mkdir(exist_ok=True)
    return out


def _record_page(folder: Path) -> None:
    """A page that was written again is the one that run.json records; an edit without this is found by `verify`."""
    path, page = RunFolder(folder).record, RunFolder(folder).report_page
    record = _run_record(path)
    name = page.relative_to(folder).as_posix()
    if name in record.get("outputs", {}):
        record["outputs"][name] = sha256_file(page)
        write_json(path, record)


def _run_record(path: Path) -> dict[str, Any]:
    """The content of run.json; {} without one. Raises EvidenceFault for a damaged one."""
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(record["outputs"], dict)
    except (ValueError, RecursionError, KeyError, TypeError):
        whole = False
    if not whole:
        raise EvidenceFault(f"{path} is damaged: it cannot be read as the record of a run. Restore it, or run again.")
    return dict(record)


def copy_outputs(folder: Path) -> None:
    """Copies summary.md and junit.xml beside verdict.json, where other tools look for them."""
    for name in ("summary.md", "junit.xml"):
        write_text(folder / name, (RunFolder(folder).report / name).read_text(encoding="utf-8"))


def run_view(folder: Path, name: str | None = None, command: str | None = None) -> RunView:
    """Everything that a report shows; what the folder does not have is left out. Raises as `write_report`."""
    for file in (VERDICT, COMPARISON):
        if not (folder / file).is_file():
            raise DataError(f"{folder} has no {file}; make one with: harness run, or harness gate … --out {folder}")
    recorded = _recorded(folder) if command is None else {"command": command}
    verdict = load(Verdict, folder / VERDICT)
    if problems := verdict_mismatches(verdict, folder):
        raise EvidenceFault(f"{'; '.join(problems)}; run harness gate again")
    if problems := decision_mismatches(folder):
        raise EvidenceFault(f"{folder / VERDICT} was edited: {'; '.join(problems)}; run harness gate again")
    sides = {"baseline": verdict.baseline, "candidate": verdict.candidate}
    digests = {f"{side} weights": found.weights_sha256 for side, found in sides.items()}
    digests |= {f"{side} prompt contract": found.contract_sha256 for side, found in sides.items()}
    decided = datetime.fromtimestamp((folder / VERDICT).stat().st_mtime, UTC)
    place = RunFolder(folder)
    trained, audited = place.training_record, place.audit
    evaluations = sorted(place.evaluations.glob(f"*/{EVALUATION}"))
    return RunView(
        name=name or folder.name,
        run_id=folder.name,
        created=decided.isoformat(timespec="seconds"),
        verdict=verdict,
        comparison=load(Comparison, place.comparison),
        dataset=load(Dataset, audited) if audited.is_file() else None,
        training=load(TrainingSummary, trained) if trained.is_file() else None,
        curve=[json.loads(row) for row in place.curve.read_text().splitlines()] if place.curve.is_file() else [],
        evaluations=[load(Evaluation, path) for path in evaluations],
        failures=task_failures(place.candidate),
        contract=Contract.load(place.checkpoint) if (place.checkpoint / CONTRACT).is_file() else None,
        commands=[recorded["command"]] if recorded.get("command") else [],
        digests=digests,
    )


def _recorded(folder: Path) -> dict[str, Any]:
    """run.json, after a check that verdict and comparison still have the digests that it records."""
    path = RunFolder(folder).record
    record = _run_record(path)
    if not record:
        return {}
    edited = [n for n in (VERDICT, COMPARISON) if record["outputs"].get(n) != sha256_file(folder / n)]
    if edited:
        raise EvidenceFault(f"{folder}: {' and '.join(edited)} changed after the run: run.json has another digest")
    return record
