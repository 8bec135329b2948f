"""`harness serve`: starts the vLLM server exactly as an evaluation does."""

import argparse

from harness.cli.arguments import MODEL, Subparsers, add_verb
from harness.core.errors import ExitCode


def register(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers, "serve", serve,
        does="start the vLLM server exactly as an evaluation does",
        usage="RUN [options] [key=value ...]",
        example="harness serve runs/NAME serve.port=8000   (key: VLLM_API_KEY in the environment)",
    )  # fmt: skip
    parser.add_argument("checkpoint", metavar="RUN", help=MODEL)
    parser.add_argument("--print", action="store_true", help="print the exact command instead of starting the server")


def serve(options: argparse.Namespace) -> int:
    """Replaces this process by the server; returns only with --print."""
    from harness.workflows.compose import config_for
    from harness.workflows.serve import command_line, serve

    config = config_for(options.overrides)
    if not options.print:
        serve(options.checkpoint, config)
    print(command_line(options.checkpoint, config))
    return ExitCode.DONE
