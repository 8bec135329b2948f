"""`harness audit`: checks the training data of an experiment, or any file."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.arguments import Subparsers, add_verb
from harness.core.console import plural, show
from harness.core.errors import ExitCode

if TYPE_CHECKING:
    from harness.records.stages import Dataset


def register(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers, "audit", audit,
        does="load, check and mix the training data, or check any file",
        usage="[options] [key=value ...]",
        example="harness audit --input rows.jsonl --out checked audit=strict",
    )  # fmt: skip
    parser.add_argument(
        "--input", type=Path, metavar="FILE", help="audit only this file or folder; its settings are data.sources.input"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write to (default with --input: audit; else the run folder)"
    )


def audit(options: argparse.Namespace) -> int:
    """FAIL if the data exceed a limit of the audit, else DONE."""
    from harness.core.store import locked
    from harness.workflows.compose import config_for
    from harness.workflows.run import Run, audit_alone, audit_stage

    config = config_for(options.overrides, options.input)
    if options.input is not None or options.out is not None:
        folder = options.out or Path("audit")
        dataset = audit_alone(config, folder)
    else:
        run = Run.of(config)
        with locked(run.folder.path):
            dataset = audit_stage(run)
        folder = run.folder.data
    _print_counts(dataset)
    print(folder)
    for broken in dataset.broken_limits:
        print(f"limit broken: {broken}")
    return ExitCode.FAIL if dataset.broken_limits else ExitCode.DONE


def _print_counts(dataset: "Dataset") -> None:
    """Prints rows read, kept and quarantined by source, then rows by finding."""

    for source in dataset.sources:
        quarantined = sum(source.quarantined.values())
        reasons = ", ".join(f"{code} {n}" for code, n in source.quarantined.items())
        counts = f"{source.source}: {source.read} read, {source.kept} kept, {quarantined} quarantined"
        print(f"{counts} ({reasons})" if reasons else counts)
    for note in dataset.notes:
        if note.startswith("source "):
            show(f"note: {note}")
    for finding in dataset.findings:
        if finding.rows:
            such = f", such as {finding.examples[0]}" if finding.code == "left out" and finding.examples else ""
            show(f"{finding.code}: {plural(finding.rows, 'row')} found ({finding.action}){such}")
