"""`harness mirror`: copies datasets for machines without a network."""

import argparse
from pathlib import Path

from harness.cli.arguments import Subparsers, add_verb, refuse_settings
from harness.core.errors import ExitCode, UsageError


def register(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers, "mirror", mirror,
        does="copy the datasets of suites and tasks for machines without a network",
        usage="SUITE... --to DIR [options]",
        example="harness mirror general --to hub   (then, anywhere: harness evaluate base suite=general hub_dir=hub)",
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="SUITE", help="a suite, or an lm-eval task or group")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to copy to; use it as hub_dir")
    parser.add_argument("--verify", action="store_true", help="only check the digests of the copies; needs no network")


def mirror(options: argparse.Namespace) -> int:
    from harness.workflows.mirror import mirror, summary, verified

    refuse_settings("mirror", options.overrides)
    if not options.names and not options.verify:
        raise UsageError("mirror needs a suite, or an lm-eval task or group: harness mirror SUITE --to DIR")
    print(summary(verified(options.to) if options.verify else mirror(options.names, options.to)))
    return ExitCode.DONE
