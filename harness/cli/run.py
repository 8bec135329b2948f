"""`harness run` and `harness train`: run an experiment up to its verdict, or up to its checkpoint."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.arguments import Subparsers, add_verb
from harness.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from harness.config.experiment import Config


def register(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers, "run", run,
        does="run a whole experiment: audit, train, serve, evaluate, compare, gate, report",
        usage="experiment=NAME [options] [key=value ...]",
        example="harness run experiment=finance_disclaimer train.learning_rate=2e-4",
    )  # fmt: skip
    parser.add_argument("-m", "--multirun", action="store_true", help="run every combination of comma-separated values")
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, audit the data and show the plan; train nothing"
    )
    parser.add_argument(
        "--cfg",
        choices=("job", "hydra", "all"),
        metavar="WHAT",
        help="print the configuration (job, hydra or all) only",
    )
    parser.add_argument("--info", action="store_true", help="show where every value of the configuration comes from")
    parser = add_verb(
        subparsers, "sweep", sweep,
        does="run every combination of comma-separated values; evaluate them together and compare them",
        usage="experiment=NAME key=value,value ... [launch.devices=[0,1,...]] [key=value ...]",
        example="harness sweep experiment=finance_disclaimer train.learning_rate=5e-4,1e-3 train.seed=0,1",
    )  # fmt: skip
    parser = add_verb(
        subparsers, "train", train,
        does="run the stages of an experiment up to its checkpoint",
        usage="experiment=NAME [options] [key=value ...]",
        example="harness train experiment=finance_disclaimer "
        "launcher=accelerate num_processes=2 train.sequences_per_step=2",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="show steps, tokens, parameters, memory and time; train nothing"
    )


def run(options: argparse.Namespace) -> int:
    from harness.core.redact import command_without_secrets
    from harness.workflows.compose import config_for

    overrides = _with_experiment(options.overrides)
    if options.cfg or options.info:
        from harness.cli.config import print_configuration

        return print_configuration(overrides, options.cfg or "job", options.info)
    if options.dry_run:
        return train(options)
    if options.multirun:
        return sweep(options)
    return _run_one(config_for(overrides), command_without_secrets(f"harness run {shlex.join(overrides)}"))


def sweep(options: argparse.Namespace) -> int:
    """Runs a sweep; the gravest exit code of its members. Hydra's own sweepers and launchers run members one by one."""
    from harness.core.redact import command_without_secrets
    from harness.report.terminal import print_sweep
    from harness.workflows import compose
    from harness.workflows.sweep import run_sweep

    overrides = _with_experiment(options.overrides)
    command = command_without_secrets(f"harness sweep {shlex.join(overrides)}")
    if any(override.lstrip("+").startswith("hydra") for override in overrides):
        codes = compose.sweep(overrides, Path("runs").resolve(), lambda config: _run_one(config, command))
        return ExitCode.gravest(codes)
    found, path = run_sweep(overrides, command)
    print_sweep(found, path)
    return ExitCode.gravest(ExitCode.DEFECT if one.exit_code is None else one.exit_code for one in found.members)


def _run_one(config: "Config", command: str) -> int:
    from harness.report.terminal import print_verdict
    from harness.workflows.run import run_experiment

    verdict, report = run_experiment(config, command)
    print_verdict(verdict, report)
    return verdict.exit_code


def train(options: argparse.Namespace) -> int:
    from harness.core.store import locked
    from harness.workflows.compose import config_for
    from harness.workflows.run import Run, dry_run, train

    run = Run.of(config_for(_with_experiment(options.overrides)))
    with locked(run.folder.path):
        print("\n".join(dry_run(run).lines()) if options.dry_run else train(run).path)
    return ExitCode.DONE


def _with_experiment(overrides: Sequence[str]) -> Sequence[str]:
    """The overrides; raises UsageError with the known experiments if none is named."""
    if not any(override.startswith("experiment=") for override in overrides):
        from harness.workflows.compose import choices

        raise UsageError(f"name an experiment: experiment=NAME, one of: {', '.join(choices('experiment'))}")
    return overrides
