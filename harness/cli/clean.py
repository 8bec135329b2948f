"""`harness clean`: shows what no run needs, and removes it on request."""

import argparse

from harness.cli.arguments import Subparsers, add_runs_dir, add_verb, refuse_settings
from harness.core.errors import EnvironmentFault, ExitCode

MIB = 2**20


def register(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers, "clean", clean,
        does="show what no run needs; --remove removes it",
        usage="[options]",
        example="harness clean --remove",
    )  # fmt: skip
    add_runs_dir(parser)
    parser.add_argument("--remove", action="store_true", help="remove what is shown; without it nothing is removed")
    parser.add_argument(
        "--cache", action="store_true", help="also the journal of answers and derived models, which are made again"
    )


def clean(options: argparse.Namespace) -> int:
    from harness.core.console import plural, show
    from harness.model.load import cache_dir
    from harness.workflows.clean import removed, unneeded

    refuse_settings("clean", options.overrides)
    found = unneeded(options.runs_dir, cache_dir() if options.cache else None)
    for one in found:
        show(f"{one.size / MIB:10.1f} MiB  {one.kind}  {one.path}  ({one.why})")
    total = f"{plural(len(found), 'item')}, {sum(one.size for one in found) / MIB:.1f} MiB"
    if not found:
        print(f"{options.runs_dir} holds nothing that no run needs")
    elif not options.remove:
        print(f"{total}. Nothing was removed. To remove them: harness clean --remove{' --cache' * options.cache}")
    elif left := removed(found):
        raise EnvironmentFault(
            f"{plural(len(left), 'item')} of {len(found)} could not be removed, for example {left[0].path}. "
            "Check its owner and rights, and run the same command again."
        )
    else:
        print(f"{total}: removed")
    return ExitCode.DONE
