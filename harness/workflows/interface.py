"""The verbs as functions, which `import harness` hands out. Data frames of what they wrote are in frames.py.

Every function does what the verb of its name does: the same checks, run ids, folders and files. Nothing is printed on
standard output; progress goes to stderr. Failures are raised as HarnessError, or a subclass of harness.core.errors.

A `Name` is what the command line takes: the name of a run below `runs_dir`, an alias such as "production", or the path
of a run, an evaluation or an lm-eval output folder. `Result` and `EvaluationResult` can be passed as names.

A notebook imports this module to get at one function, so everything heavy is imported inside the functions.
"""

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from harness.core.errors import UsageError
from harness.core.layout import EVALUATION, RunFolder

if TYPE_CHECKING:
    from harness.config.experiment import Config
    from harness.records.gate import Comparison, Verdict
    from harness.records.stages import Dataset, Evaluation

Name: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True)
class Result:
    """A finished run. It can be passed wherever the name of a run is taken.

    `verdict` is the record in verdict.json, `folder` the paths of the run's files, `report` the report's HTML page.
    """

    verdict: "Verdict"
    folder: RunFolder
    report: Path

    @property
    def run_id(self) -> str:
        return self.folder.name

    @property
    def path(self) -> Path:
        return self.folder.path

    def __fspath__(self) -> str:
        return str(self.folder.path)


@dataclass(frozen=True)
class EvaluationResult:
    """An evaluation of one checkpoint. It can be passed wherever the name of an evaluation is taken.

    `record` is the record in evaluation.json: scores, counts and digests. `path` is the folder that it lies in.
    """

    record: "Evaluation"
    path: Path

    def __fspath__(self) -> str:
        return str(self.path)


def run(*overrides: str, config: "Config | None" = None) -> Result:
    """Runs an experiment from its data to a verdict, as `harness run` does; stages that are unchanged are reused.

    `overrides` are those of the command line: "experiment=finance_disclaimer", "train.learning_rate=2e-4". One of them
    names the experiment. A ready `config` stands in their place. For several values of a key, call it in a loop.

    A verdict that is not PASS is returned, not raised. Raises ConfigError with every fault of the configuration,
    UsageError where another process holds the run, LimitsBroken where the data break a limit of the audit,
    EnvironmentFault where this machine lacks something, TrainingFault where training diverges.
    """
    from harness.core.redact import command_without_secrets
    from harness.records.base import load
    from harness.records.gate import Verdict
    from harness.workflows.compose import choices, config_for
    from harness.workflows.run import Run, run_experiment

    if config is not None:
        if overrides:
            raise UsageError("harness.run takes overrides or a config, not both; put the overrides into the config")
        command = "harness.run(config=...)  # the configuration is in config.yaml"
    elif any(override.startswith("experiment=") for override in overrides):
        config = config_for(overrides)
        command = command_without_secrets(f"harness run {shlex.join(overrides)}")
    else:
        known = ", ".join(choices("experiment"))
        raise UsageError(f'name what to run: harness.run("experiment=NAME"), with one of: {known}')
    _, report = run_experiment(config, command)
    folder = Run.of(config).folder
    return Result(load(Verdict, folder.verdict), folder, report)


def evaluate(*checkpoints: Name, overrides: str | Sequence[str] = ()) -> dict[str, EvaluationResult]:
    """Serves checkpoints and scores them, as `harness evaluate` does; returns their evaluations by label, in order.

    A checkpoint is a run, a model or adapter folder, a hub id, an alias, or "base"; "NAME@0.5" is halfway from the base
    model to NAME. Its label is the last part of its name. `overrides` are those of the command line, such as
    "suite=general". Requests that an earlier evaluation answered are not asked again.

    Raises UsageError for a checkpoint that does not exist, ConfigError with every fault of the configuration, and
    EnvironmentFault where the server does not come up.
    """
    from harness.records.base import load
    from harness.records.stages import Evaluation
    from harness.workflows.compose import config_for
    from harness.workflows.evaluate import evaluate_alone

    if not checkpoints:
        raise UsageError('name what to evaluate: harness.evaluate("runs/NAME", overrides=["suite=general"])')
    settings = [overrides] if isinstance(overrides, str) else list(overrides)
    folders = evaluate_alone([os.fspath(name) for name in checkpoints], config_for(settings))
    return {folder.name: EvaluationResult(load(Evaluation, folder / EVALUATION), folder) for folder in folders}


def compare(
    baseline: Name,
    candidate: Name,
    policy: Name | None = None,
    anchors: Iterable[Name] = (),
    *,
    out: Name | None = None,
    runs_dir: Name = "runs",
) -> "Comparison":
    """The paired differences of two evaluations, with intervals, as `harness compare` shows them.

    `policy` is a name below conf/gate/ or the path of a policy file: it says what a slice and a cluster is, and brings
    further baselines. `anchors` are further baselines by name. With `out`, compare.json and summary.md are written
    there, and with a policy its verdict and report too.

    The record's `faults` say why the evidence cannot be compared: with any, the command ends with INVALID. Raises
    UsageError for a name that leads to no evaluation, EvidenceFault where one was edited.
    """
    from harness.workflows.gate import compare_evaluations, policy_named, write_comparison

    rules = None if policy is None else policy_named(os.fspath(policy))
    names = (os.fspath(baseline), os.fspath(candidate))
    found = compare_evaluations(*names, Path(runs_dir), rules, [os.fspath(name) for name in anchors])
    if out is not None:
        write_comparison(rules, found, Path(out))
    return found


def gate(
    baseline: Name,
    candidate: Name,
    policy: Name = "default",
    *,
    out: Name | None = None,
    anchors: Iterable[Name] = (),
    runs_dir: Name = "runs",
) -> "Verdict":
    """The verdict of a policy on a candidate, as `harness gate` reaches it.

    `policy` is a name below conf/gate/ or the path of a policy file; no guard may fail against any of `anchors`. With
    `out`, compare.json, verdict.json, policy.json, evidence.json and the report are written there, and the verdict is
    the record in verdict.json. Without it nothing is written, and the verdict's `compare_sha256` is empty.

    Evidence that cannot be trusted gives an INVALID verdict, not an exception. Raises ConfigError for a faulty policy,
    UsageError for a name that leads to no evaluation.
    """
    from harness.records.base import load
    from harness.records.gate import Verdict
    from harness.workflows.gate import gate_evaluations

    folder = None if out is None else Path(out)
    names = (os.fspath(baseline), os.fspath(candidate), os.fspath(policy))
    verdict, _ = gate_evaluations(*names, folder, Path(runs_dir), [os.fspath(name) for name in anchors])
    return verdict if folder is None else load(Verdict, RunFolder(folder).verdict)


def audit(*path_or_overrides: Name, out: Name | None = None) -> "Dataset":
    """Loads, checks and mixes training data, as `harness audit` does; returns the record in audit.json.

    A text with "=" is an override of the command line. Anything else is the path of a file or folder, which is audited
    alone (`harness audit --input`); write pathlib.Path(...) where it contains "=". With a path or `out`, the rows are
    written to `out`, by default the folder audit: kept.jsonl, quarantine.jsonl, audit.json and data_card.md. With
    neither, they are in the data/ folder of the run that the overrides name, which `run` reuses.

    The record's `broken_limits` say which limits of the audit the data break; nothing is raised for them. Raises
    ConfigError with every fault of the configuration, DataError for a file or row that cannot be used.
    """
    from harness.core.store import locked
    from harness.workflows.compose import config_for
    from harness.workflows.run import Run, audit_alone, audit_stage

    overrides = [one for one in path_or_overrides if isinstance(one, str) and "=" in one]
    paths = [Path(one) for one in path_or_overrides if one not in overrides]
    if len(paths) > 1:
        raise UsageError(f"harness.audit takes one file or folder, not {len(paths)}: {', '.join(map(str, paths))}")
    path = paths[0] if paths else None
    config = config_for(overrides, path)
    if path is not None or out is not None:
        return audit_alone(config, Path(out or "audit"))
    planned = Run.of(config)
    with locked(planned.folder.path):
        return audit_stage(planned)
