"""`harness ci`: evaluate what is not cached, decide, and tell the CI system; the exit code is the verdict's."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.records import Verdict


def ci(options: argparse.Namespace) -> int:
    from harness.ci.outputs import write_failure, write_outputs
    from harness.report.terminal import print_verdict

    try:
        verdict, report, out = _decide(options)
    except HarnessError as error:
        write_failure(error)
        raise
    write_outputs(verdict, report, out)
    print_verdict(verdict, report)
    return verdict.exit_code


def _decide(options: argparse.Namespace) -> "tuple[Verdict, Path, Path]":
    from harness.ci.candidate import ci_config, decide_candidate, out_folder
    from harness.redact import command_without_secrets

    config = ci_config(options.candidate, options.overrides, options.runs_dir, options.smoke)
    out = options.out or out_folder(options.candidate, options.against, options.runs_dir)
    command = ["harness", "ci", options.candidate, "--against", options.against, "--policy", options.policy]
    asked = command_without_secrets(shlex.join([*command, *(["--smoke"] if options.smoke else []), *options.overrides]))
    return (*decide_candidate(options.candidate, options.against, options.policy, config, out, asked), out)
