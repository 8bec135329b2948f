"""The parser of the whole command line, with the verbs of all families."""

import argparse
from typing import NoReturn

from harness.cli import (
    audit,
    ci,
    clean,
    config,
    doctor,
    evaluate,
    gate,
    mirror,
    registry,
    report,
    run,
    runs,
    serve,
    template,
)
from harness.cli.arguments import PROGRAM, Parser
from harness.core.version import __version__

FAMILIES = (run, audit, evaluate, gate, serve, template, report, runs, registry, ci, mirror, config, clean, doctor)
EXIT_CODES = """configuration: key=value settings (Hydra syntax), for example experiment=finance_disclaimer gate=strict

exit codes: 0 done (run, gate: PASS)  1 defect  2 usage or configuration  3 environment
            10 FAIL  11 INCONCLUSIVE  12 INVALID  130 interrupted"""


class _Version(argparse.Action):
    """Prints the version, with the commit where the code runs from a checkout; git is asked only here."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from harness.core.store import git_commit

        commit = git_commit()
        print(f"{__version__} (commit {commit[:12]})" if commit else __version__)
        parser.exit()


def parser() -> Parser:
    """The parser of all verbs. Imports nothing heavy: a verb's work is imported when the verb is called."""
    program = Parser(
        prog=PROGRAM,
        description="Fine-tune a language model to follow your organisation's rules, and prove that it does.",
        usage=f"{PROGRAM} [-h] [--version] VERB [arguments] [options] [key=value ...]",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    program.add_argument("--version", action=_Version, nargs=0, help="show the version and the checkout's commit")
    subparsers = program.add_subparsers(prog=PROGRAM, metavar="VERB", required=True)
    program.example, program.verbs = "harness run experiment=finance_disclaimer", subparsers.choices
    for family in FAMILIES:
        family.register(subparsers)
    return program
