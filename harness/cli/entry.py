"""The entry point: runs a verb and maps errors to exit codes. Imports nothing heavy before a verb needs it."""

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from harness.cli.parser import parser
from harness.core.console import closed_pipes_are_silent, say, silence_libraries
from harness.core.errors import ExitCode, HarnessError


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


def _split(parser: argparse.ArgumentParser, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """(argparse's options, configuration overrides): an argument with '=' that is not an option is an override."""
    overrides = [a for a in arguments if "=" in a and not a.startswith("--")]
    return parser.parse_args([a for a in arguments if a not in overrides]), overrides


if __name__ == "__main__":
    sys.exit(main())
