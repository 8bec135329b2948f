"""Evaluates the checkpoints of a running training by the gate's policy, on a few items per task."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.checkpoint.resolve import checkpoint
from harness.config.experiment import Config, TaskConfig
from harness.core.console import say
from harness.core.errors import EvidenceFault
from harness.core.layout import BASE, CANDIDATE, RunFolder
from harness.evaluate.checkpoints import evaluate_checkpoints
from harness.lineage.chain import EvidencePaths
from harness.model.load import is_adapter, weights_sha256
from harness.records.gate import Verdict
from harness.records.stages import Checkpoint, EvaluatedCheckpoint
from harness.serve.server import device_of
from harness.train.model import free_memory
from harness.workflows.evaluate import tasks_of
from harness.workflows.gate import reach_decision

if TYPE_CHECKING:
    from harness.serve.session import PersistentServer


def limited_config(config: Config) -> Config:
    """The configuration with at most train.eval_limit items per task.

    The repeat check, the LLM judge and further baselines are left out: they do not decide which checkpoint is kept.
    """
    most = config.train.eval_limit

    def few(task: TaskConfig) -> TaskConfig:
        return task.model_copy(update={"limit": min(task.limit or most, most)})

    tasks = [few(task) for task in config.suite.tasks]
    suite = config.suite.model_copy(update={"tasks": tasks, "aa": False, "judge": None})
    domain_tasks = [few(task) for task in config.domain_tasks]
    gate = config.gate.model_copy(update={"baselines": []})  # they were evaluated on all items
    return config.model_copy(update={"suite": suite, "domain_tasks": domain_tasks, "gate": gate})


@contextmanager
def server_between_checkpoints(config: Config) -> Iterator["PersistentServer | None"]:
    """A server that stays up between the checkpoints of a training; None where each checkpoint starts its own.

    By default only on a CPU: on a GPU the server would hold the memory that the training needs.
    """
    from harness.serve.session import PersistentServer

    keep = config.serve.keep_in_training
    if keep is False or (keep is None and device_of(config.serve) != "cpu"):
        yield None
        return
    with PersistentServer() as server:
        yield server


def judge_checkpoint(
    config: Config, base: Path, step: int, folder: Path, work: Path, kept: "PersistentServer | None" = None
) -> EvaluatedCheckpoint:
    """Evaluates the checkpoint in `folder` against the base model; the evaluations are written to `work`.

    Raises EvidenceFault when the verdict is INVALID.
    """
    free_memory()
    few = limited_config(config)
    candidate = checkpoint(folder, few.model, few.template, base if is_adapter(folder) else None)
    sides = {BASE: base_checkpoint(base, candidate.contract_sha256), CANDIDATE: candidate}

    def evaluations() -> EvidencePaths:
        log, load = RunFolder(work).log, tasks_of(few)
        done = evaluate_checkpoints(sides, few.evaluation, RunFolder(work).evaluations, log, load, kept=kept)
        return EvidencePaths(work, done[BASE], done[CANDIDATE])

    verdict = reach_decision(few.gate, (BASE, CANDIDATE), evaluations).verdict
    if verdict.verdict == "INVALID":
        raise EvidenceFault(f"the checkpoint of step {step} has an INVALID verdict: {'; '.join(verdict.reasons)}")
    result = checkpoint_result(step, verdict)
    say(
        f"  step {step}: weakest guard {100 * result.slack:+.1f} points from its limit, mean target {result.target:.1%}"
    )
    return result


def base_checkpoint(base: Path, contract_sha256: str) -> Checkpoint:
    """The pretrained model in `base` as a checkpoint, under the candidate's prompt contract."""
    digest = weights_sha256(base)
    return Checkpoint(
        path=str(base),
        kind="full",
        base_path=str(base),
        weights_sha256=digest,
        base_sha256=digest,
        contract_sha256=contract_sha256,
    )


def checkpoint_result(step: int, verdict: Verdict) -> EvaluatedCheckpoint:
    """The numbers that decide which checkpoint is kept."""
    guards = [metric for metric in verdict.metrics if metric.role == "guard"]
    targets = [metric.candidate for metric in verdict.metrics if metric.role == "target"]
    return EvaluatedCheckpoint(
        step=step,
        slack=min((guard.delta + (guard.margin or 0) for guard in guards), default=1.0),
        target=sum(targets) / len(targets) if targets else 0.0,
        verdict=verdict.verdict,
        failed_guards=[f"{g.suite}/{g.task}/{g.metric}" for g in guards if g.verdict == "FAIL"],
    )
