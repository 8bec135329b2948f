"""What the verbs share: the parser and its error messages, common options, checks of key=value settings."""

import argparse
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TypeAlias

from harness.core.errors import ExitCode, UsageError, nearest

Verb = Callable[[argparse.Namespace], int]
Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"

PROGRAM = "harness"
MODEL = "run, model or adapter folder, hub id, or 'base'"


class Parser(argparse.ArgumentParser):
    """An argument parser with one message for an error: what is wrong, what is near, an example. It exits with 2."""

    example = ""
    verbs: Mapping[str, "Parser"] = MappingProxyType({})  # the parser of every verb: another one may have an option

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses unknown arguments: left to argparse, the program would report them, which knows no verb's options."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            flags = [one.partition("=")[0] for one in unknown if one.startswith("-")]
            self._fail("\n".join(map(self._no_option, flags)) if flags else self._no_argument(unknown))
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """argparse's own message, and the help of every argument that it names."""
        words = set(re.findall(r"[\w.-]+", message))
        named = [a for a in self._actions if words & {a.metavar or a.dest, *a.option_strings}]
        told = message if self.prog == PROGRAM else f"{self._verb()}: {message}"
        self._fail("\n".join([told, *map(_explained, named)]))

    def options(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]

    def _fail(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{PROGRAM}: {message}\nexample: {self.example}\n")

    def _verb(self) -> str:
        return self.prog.removeprefix(PROGRAM).strip()

    def _no_option(self, flag: str) -> str:
        told = f"there is no {flag} before the verb" if self.prog == PROGRAM else f"{self._verb()} has no {flag}"
        if having := [verb for verb, parser in self.verbs.items() if flag in parser.options()]:
            has = "has" if len(having) == 1 else "have"
            return f"{told}; {', '.join(having)} {has} it: {PROGRAM} {having[0]} … {flag}"
        own = [option for option in self.options() if option.startswith("--")]
        close = difflib.get_close_matches(flag, own, n=1, cutoff=0.75)  # the dashes are always alike
        return f"{told}. Did you mean '{close[0]}'?" if close else f"{told}. Valid: {', '.join(own)}."

    def _no_argument(self, values: Sequence[str]) -> str:
        taken = [str(action.metavar or action.dest) for action in self._actions if not action.option_strings]
        told = f"{self._verb()} does not take {', '.join(map(repr, values))}"
        return f"{told}. It takes {' and '.join(taken) or 'only options and key=value settings'}."

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Where a choice is not known, argparse lists all of them; this names the nearest."""
        if action.choices is not None and value not in action.choices:
            what = str(action.metavar or action.dest).lower()
            raise argparse.ArgumentError(None, f"there is no {what} {value!r}. {nearest(value, action.choices)}")


def _explained(action: argparse.Action) -> str:
    name = " ".join([*action.option_strings[-1:], *([] if action.nargs == 0 else [str(action.metavar or action.dest)])])
    return f"  {name}: {action.help or 'one of ' + ', '.join(action.choices or ())}"


def add_verb(subparsers: Subparsers, name: str, work: Verb, does: str, usage: str, example: str) -> Parser:
    """A verb's parser, to add its arguments to. `does` is its line in `harness --help`."""
    parser = subparsers.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        usage=f"{PROGRAM} {name} {usage}",
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(verb=work)
    parser.example, parser.verbs = example, subparsers.choices
    return parser


def add_runs_dir(parser: Parser) -> None:
    parser.add_argument(
        "--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="folder of the runs (default: runs)"
    )


def existing_folder(name: str, runs: Path, what: str, holding: str) -> Path:
    """The folder that a path, or the name of a run, stands for.

    Raises UsageError for anything else: it says `what` was expected, and names the nearest run `holding` that file.
    """
    if folder := next((path for path in (Path(name), runs / name) if path.is_dir()), None):
        return folder
    known = [path.parent.name for path in runs.glob(f"*/{holding}")]
    raise UsageError(f"{name}: no such {what}. {nearest(name, known) if known else f'{runs} holds none.'}")


def refuse_settings(verb: str, settings: Sequence[str]) -> None:
    """Raises UsageError for key=value settings of a verb that reads no configuration."""
    if settings:
        raise UsageError(f"{verb} reads no configuration; it does not take: {', '.join(settings)}")
