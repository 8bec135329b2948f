"""`harness ci`: evaluates what is not cached, decides, and reports to the CI system; exits with the verdict's code."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.arguments import Subparsers, add_runs_dir, add_verb
from harness.core.errors import ExitCode, HarnessError

if TYPE_CHECKING:
    from harness.config.experiment import Config
    from harness.records.gate import Verdict


def register(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers, "ci", ci,
        does="evaluate, gate and report a candidate in one step of a CI job",
        usage="CANDIDATE [options] [key=value ...]",
        example="harness ci runs/NAME --against production --policy default",
    )  # fmt: skip
    parser.add_argument("candidate", metavar="CANDIDATE", help="run, model or adapter folder, hub id")
    parser.add_argument(
        "--against", default="production", metavar="BASELINE",
        help="alias, run, folder or 'base' (default: production)",
    )  # fmt: skip
    parser.add_argument(
        "--policy", default="default", metavar="NAME", help="a name under conf/gate, or a path (default: default)"
    )
    parser.add_argument("--smoke", action="store_true", help="use the smoke suite instead of the configured one")
    parser.add_argument(
        "--out", type=Path, metavar="DIR",
        help="folder to write to (default: RUN/against/BASELINE for a run, else ci-report)",
    )  # fmt: skip
    add_runs_dir(parser)


def ci(options: argparse.Namespace) -> int:
    from harness.report.ci_outputs import write_failure, write_outputs, write_unchanged
    from harness.report.terminal import print_verdict
    from harness.workflows.ci import ci_config, promoted_entry

    try:
        config = ci_config(options.candidate, options.overrides, options.runs_dir, options.smoke)
        if entry := promoted_entry(options.candidate, options.against, config):
            write_unchanged(options.candidate, entry, options.out)
            return ExitCode.DONE
        verdict, report, out = _decide(options, config)
    except HarnessError as error:
        write_failure(error, options.out)
        raise
    write_outputs(verdict, report, out)
    print_verdict(verdict, report)
    return verdict.exit_code


def _decide(options: argparse.Namespace, config: "Config") -> "tuple[Verdict, Path, Path]":
    from harness.core.redact import command_without_secrets
    from harness.workflows.ci import decide_candidate, out_folder

    out = options.out or out_folder(options.candidate, options.against, options.runs_dir)
    command = ["harness", "ci", options.candidate, "--against", options.against, "--policy", options.policy]
    asked = command_without_secrets(shlex.join([*command, *(["--smoke"] if options.smoke else []), *options.overrides]))
    return (*decide_candidate(options.candidate, options.against, options.policy, config, out, asked), out)
