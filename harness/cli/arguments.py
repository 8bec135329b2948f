"""The parser of all verbs with its error messages, common options, and checks of key=value settings."""

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
    """An argument parser that exits with 2 and one message: what is wrong, the nearest valid name, an example."""

    example = ""
    verbs: Mapping[str, "Parser"] = MappingProxyType({})  # all verbs' parsers, to find which verb has an option

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Rejects unknown arguments itself: the main parser would report them without the verb's options."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            flags = [one.partition("=")[0] for one in unknown if one.startswith("-")]
            self._fail("\n".join(map(self._no_option, flags)) if flags else self._no_argument(unknown))
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Exits with argparse's message and the help of every argument that it names."""
        words = set(re.findall(r"[\w.-]+", message))
        named = [a for a in self._actions if words & {a.metavar or a.dest, *a.option_strings}]
        message = message if self.prog == PROGRAM else f"{self._verb()}: {message}"
        self._fail("\n".join([message, *map(_help_line, named)]))

    def options(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]

    def _fail(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{PROGRAM}: {message}\nexample: {self.example}\n")

    def _verb(self) -> str:
        return self.prog.removeprefix(PROGRAM).strip()

    def _no_option(self, flag: str) -> str:
        wrong = f"there is no {flag} before the verb" if self.prog == PROGRAM else f"{self._verb()} has no {flag}"
        if having := [verb for verb, parser in self.verbs.items() if flag in parser.options()]:
            has = "has" if len(having) == 1 else "have"
            return f"{wrong}; {', '.join(having)} {has} it: {PROGRAM} {having[0]} … {flag}"
        own = [option for option in self.options() if option.startswith("--")]
        close = difflib.get_close_matches(flag, own, n=1, cutoff=0.75)  # high: the dashes are always alike
        return f"{wrong}. Did you mean '{close[0]}'?" if close else f"{wrong}. Valid: {', '.join(own)}."

    def _no_argument(self, values: Sequence[str]) -> str:
        taken = [str(action.metavar or action.dest) for action in self._actions if not action.option_strings]
        wrong = f"{self._verb()} does not take {', '.join(map(repr, values))}"
        return f"{wrong}. It takes {' and '.join(taken) or 'only options and key=value settings'}."

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """For an unknown choice, names the nearest valid one instead of listing all."""
        if action.choices is not None and value not in action.choices:
            what = str(action.metavar or action.dest).lower()
            raise argparse.ArgumentError(None, f"there is no {what} {value!r}. {nearest(value, action.choices)}")


_LEFT = re.compile(r"(?:\+\+|[+~])?[A-Za-z_][\w.@:/-]*(?:\[[^]]*\])?")


def is_override(argument: str, takes_names: bool) -> bool:
    """Whether an argument sets a configuration key: its left side is a key, a group, or begins with + ~ ++.

    `takes_names`: the verb also takes names of files and runs, which may hold '='; what looks like a misspelt key is
    an override there too, unless a file has that name.
    """
    if argument.startswith(("+", "~")):
        return True
    left, equals, _ = argument.partition("=")
    if not equals or argument.startswith("-") or not _LEFT.fullmatch(left):
        return False
    from harness.config.experiment import Config
    from harness.workflows.compose import groups

    known = {*Config.model_fields, *groups(), "policy", "registry"}
    root = re.split(r"[.@]", left)[0]
    if root in known or left.startswith("hydra"):
        return True
    if "/" in left or not takes_names:
        return "/" not in left
    return bool(difflib.get_close_matches(root, known, n=1, cutoff=0.75)) and not Path(argument).exists()


def _help_line(action: argparse.Action) -> str:
    name = " ".join([*action.option_strings[-1:], *([] if action.nargs == 0 else [str(action.metavar or action.dest)])])
    return f"  {name}: {action.help or 'one of ' + ', '.join(action.choices or ())}"


def add_verb(subparsers: Subparsers, name: str, work: Verb, does: str, usage: str, example: str) -> Parser:
    """Creates the parser of a verb, for its arguments. `does` is its line in `harness --help`."""
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
    """The folder given by its path or by the name of a run.

    Raises UsageError for anything else, with `what` was expected and the nearest run that has the file `holding`.
    """
    if folder := next((path for path in (Path(name), runs / name) if path.is_dir()), None):
        return folder
    known = [path.parent.name for path in runs.glob(f"*/{holding}")]
    raise UsageError(f"{name}: no such {what}. {nearest(name, known) if known else f'There is none in {runs}.'}")


def refuse_settings(verb: str, settings: Sequence[str]) -> None:
    """Raises UsageError for key=value settings of a verb that reads no configuration."""
    if settings:
        raise UsageError(f"{verb} reads no configuration, so it does not take {', '.join(settings)}")
