"""`harness report`: writes a run's reports again from its records."""

import argparse

from harness.cli.arguments import Subparsers, add_runs_dir, add_verb, existing_folder, refuse_settings
from harness.core.errors import ExitCode
from harness.core.layout import VERDICT


def register(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers, "report", report,
        does="write the HTML, Markdown and JUnit reports of runs",
        usage="RUN... [options]",
        example="harness report runs/NAME",
    )  # fmt: skip
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run or verdict folder")
    add_runs_dir(parser)


def report(options: argparse.Namespace) -> int:
    from harness.report.write import write_report

    refuse_settings("report", options.overrides)
    for name in options.runs:
        print(write_report(existing_folder(name, options.runs_dir, "run folder", VERDICT)))
    return ExitCode.DONE
