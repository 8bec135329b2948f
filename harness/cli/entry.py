"""The entry point: runs a verb and maps errors to exit codes. Imports nothing heavy before a verb needs it."""

import argparse
import signal
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import NoReturn

from harness.cli.arguments import Parser, is_override
from harness.cli.parser import parser
from harness.core.console import closed_pipes_are_silent, say, silence_libraries
from harness.core.errors import ExitCode, HarnessError, MissingDependency


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb and returns its exit code (see docs/usage.md)."""
    silence_libraries()
    with closed_pipes_are_silent():
        return _run(sys.argv[1:] if arguments is None else list(arguments))


def _run(arguments: list[str]) -> int:
    options, overrides = _split(parser(), arguments)
    options.overrides = overrides
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        return int(options.verb(options))
    except HarnessError as error:
        say(f"harness: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("harness: interrupted. Finished stages are kept; run the same command again to continue.")
        return ExitCode.INTERRUPTED
    except ModuleNotFoundError as error:
        from harness.core.installed import extra_of

        package = (error.name or "").partition(".")[0]
        if (extra := extra_of(package)) is None:
            raise
        lacking = MissingDependency(package, "this command", extra)
        say(f"harness: {lacking}")
        return lacking.exit_code
    except OSError as error:
        if error.errno is None:
            raise
        say(f"harness: {error.strerror}: {error.filename or 'a file'}")
        return ExitCode.ENVIRONMENT
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _terminated(_signal: int, _frame: object) -> NoReturn:
    """Treats SIGTERM like Ctrl-C: servers are stopped and temporary folders removed."""
    raise KeyboardInterrupt


def _split(parser: Parser, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """(argparse's options, configuration overrides). An option's value and a path may hold '=' too."""
    verb = parser.verbs.get(next((a for a in arguments if not a.startswith("-")), ""))
    valued = (
        {name for action in verb._actions if action.nargs != 0 for name in action.option_strings} if verb else set()
    )
    takes_names = verb is not None and any(not action.option_strings for action in verb._actions)
    overrides: list[str] = []
    rest: list[str] = []
    for before, argument in pairwise(["", *arguments]):
        override = before not in valued and is_override(argument, takes_names)
        (overrides if override else rest).append(argument)
    return parser.parse_args(rest), overrides


if __name__ == "__main__":
    sys.exit(main())
