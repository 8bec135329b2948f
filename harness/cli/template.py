"""`harness template`: shows or verifies the prompt contract."""

import argparse

from harness.cli.arguments import MODEL, Subparsers, add_verb
from harness.core.errors import ExitCode, UsageError


def register(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers, "template", template,
        does="show or verify the prompt contract",
        usage="{show,verify} [RUN] [options] [key=value ...]",
        example="harness template verify runs/NAME --server http://127.0.0.1:8000",
    )  # fmt: skip
    parser.add_argument(
        "action", choices=("show", "verify"), metavar="ACTION",
        help="show: print the contract's card; verify: check the contract itself, the checkpoint and a server",
    )  # fmt: skip
    parser.add_argument("checkpoint", nargs="?", metavar="RUN", help=MODEL)
    parser.add_argument("--server", metavar="URL", help="check this running server instead of starting one")
    parser.add_argument("--model", metavar="NAME", help="the model's name on that server")
    parser.add_argument("--static", action="store_true", help="run only the checks that need no server")


def template(options: argparse.Namespace) -> int:
    from harness.prompt.card import contract_card
    from harness.workflows.compose import config_for
    from harness.workflows.verify_template import contract_for, print_steps, verify

    config = config_for(options.overrides)
    if options.action == "show":
        print(contract_card(*contract_for(options.checkpoint, config)))
        return ExitCode.DONE
    if options.checkpoint is None:
        raise UsageError("template verify needs a run or model: harness template verify RUN")
    return print_steps(verify(options.checkpoint, config, options.server, options.model, options.static))
