"""What each verb does: reads its options, calls the room that does the work, prints the result, returns the exit code.

Nothing heavy is imported before a verb needs it.
"""

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.errors import UsageError

if TYPE_CHECKING:
    from harness.config.experiment import Config
    from harness.records.stages import Dataset

SEVERITY = (1, 2, 3, 12, 10, 11)


def run(options: argparse.Namespace) -> int:
    from harness.core.redact import command_without_secrets
    from harness.workflows.compose import config_for, sweep

    overrides = _required(options.overrides, "experiment")
    if options.multirun:
        command = command_without_secrets(f"harness run -m {shlex.join(overrides)}")
        codes = sweep(overrides, Path("runs").resolve(), lambda config: _run_one(config, command))
        return next((code for code in SEVERITY if code in codes), 0)
    return _run_one(config_for(overrides), command_without_secrets(f"harness run {shlex.join(overrides)}"))


def _run_one(config: "Config", command: str) -> int:
    from harness.report.terminal import print_verdict
    from harness.workflows.run import run_experiment

    verdict, report = run_experiment(config, command)
    print_verdict(verdict, report)
    return verdict.exit_code


def audit(options: argparse.Namespace) -> int:
    from harness.core.store import locked
    from harness.workflows.compose import config_for
    from harness.workflows.run import Run, audit_alone, audit_stage

    config = config_for(options.overrides, options.input)
    if options.input is not None or options.out is not None:
        folder = options.out or Path("audit")
        dataset = audit_alone(config, folder)
    else:
        run = Run.of(config)
        with locked(run.folder.path):
            dataset = audit_stage(run)
        folder = run.folder.data
    return _told_audit(dataset, folder)


def _told_audit(dataset: "Dataset", folder: Path) -> int:
    """Counts by source and every broken limit; 10 when there is one."""
    for source in dataset.sources:
        quarantined = sum(source.quarantined.values())
        why = ", ".join(f"{code} {n}" for code, n in source.quarantined.items())
        told = f"{source.source}: {source.read} read, {source.kept} kept, {quarantined} quarantined"
        print(f"{told} ({why})" if why else told)
    for found in dataset.findings:
        if found.rows:
            print(f"{found.code}: {found.rows} rows found ({found.action})")
    print(folder)
    for broken in dataset.broken_limits:
        print(f"limit broken: {broken}")
    return 10 if dataset.broken_limits else 0


def train(options: argparse.Namespace) -> int:
    from harness.core.store import locked
    from harness.workflows.compose import config_for
    from harness.workflows.run import Run, train

    run = Run.of(config_for(_required(options.overrides, "experiment")))
    with locked(run.folder.path):
        if options.dry_run:
            from harness.workflows.run import dry_run

            print("\n".join(dry_run(run).lines()))
        else:
            print(train(run).path)
    return 0


def evaluate(options: argparse.Namespace) -> int:
    from harness.workflows.compose import config_for
    from harness.workflows.evaluate import evaluate_alone

    if options.describe:
        from harness.evaluate.tasks.suite import described

        print(described(config_for(options.overrides)))
        return 0
    if not options.checkpoints:
        raise UsageError("name what to evaluate: harness evaluate CHECKPOINT… suite=NAME")
    overrides = [*options.overrides, *(["suite.aa=true"] if options.aa else [])]
    for folder in evaluate_alone(options.checkpoints, config_for(overrides)):
        print(folder)
    return 0


def score(options: argparse.Namespace) -> int:
    from harness.evaluate.score import score

    _no_overrides("score", options.overrides)
    scores = score(options.task, options.responses)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in scores.rows()))
    print(scores.summary())
    if options.judge is not None:
        from harness.evaluate.judging import judged

        print(judged(options.task, options.responses, options.judge, options.judge_model))
    return 0


def compare(options: argparse.Namespace) -> int:
    from harness.cli.gate import compare

    return compare(options)


def gate(options: argparse.Namespace) -> int:
    from harness.cli.gate import gate

    return gate(options)


def report(options: argparse.Namespace) -> int:
    _no_overrides("report", options.overrides)
    from harness.report.write import write_report

    for name in options.runs:
        folder = next((p for p in (Path(name), options.runs_dir / name) if p.is_dir()), None)
        if folder is None:
            raise UsageError(f"{name}: no such run folder")
        print(write_report(folder))
    return 0


def serve(options: argparse.Namespace) -> int:
    from harness.workflows.compose import config_for
    from harness.workflows.serve import command_line, serve

    config = config_for(options.overrides)
    if not options.print:
        serve(options.checkpoint, config)
    print(command_line(options.checkpoint, config))
    return 0


def template(options: argparse.Namespace) -> int:
    from harness.prompt.card import contract_card
    from harness.workflows.compose import config_for
    from harness.workflows.verify_template import contract_for, print_steps, verify

    config = config_for(options.overrides)
    if options.action == "show":
        print(contract_card(*contract_for(options.checkpoint, config)))
        return 0
    if options.checkpoint is None:
        raise UsageError("name what to verify: harness template verify CHECKPOINT")
    return print_steps(verify(options.checkpoint, config, options.server, options.model, options.static))


def mirror(options: argparse.Namespace) -> int:
    from harness.workflows.mirror import mirror, summary, verified

    _no_overrides("mirror", options.overrides)
    if not options.names and not options.verify:
        raise UsageError("name what to mirror: harness mirror SUITE --to DIR, or a task or group of lm-eval")
    print(summary(verified(options.to) if options.verify else mirror(options.names, options.to)))
    return 0


def doctor(options: argparse.Namespace) -> int:
    from harness.cli.doctor import as_json, examine, exit_code, table
    from harness.workflows.compose import config_for

    rows = examine(config_for(options.overrides), options.deep, options.online)
    print(as_json(rows) if options.json else table(rows))
    return exit_code(rows)


def _no_overrides(verb: str, overrides: Sequence[str]) -> None:
    if overrides:
        raise UsageError(f"{verb} reads no configuration; it does not take: {', '.join(overrides)}")


def _required(overrides: Sequence[str], group: str) -> Sequence[str]:
    if not any(o.startswith(f"{group}=") for o in overrides):
        from harness.workflows.compose import choices

        raise UsageError(f"name what to run: {group}=NAME, one of: {', '.join(choices(group))}")
    return overrides
