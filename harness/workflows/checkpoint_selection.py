"""A checkpoint of an unfinished training, judged by the policy of the gate on a few items a task."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.checkpoint.resolve import checkpoint
from harness.config.experiment import Config, TaskConfig
from harness.core.console import say
from harness.core.errors import EvidenceFault
from harness.core.layout import BASE, CANDIDATE, EVALUATIONS
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
    """The configuration with at most train.eval_limit items a task, and without what no verdict rests on."""
    most = config.train.eval_limit

    def few(task: TaskConfig) -> TaskConfig:
        return task.model_copy(update={"limit": min(task.limit or most, most)})

    tasks = [few(task) for task in config.suite.tasks]
    suite = config.suite.model_copy(update={"tasks": tasks, "aa": False, "judge": None})
    domain_tasks = [few(task) for task in config.domain_tasks]
    gate = config.gate.model_copy(update={"baselines": []})  # those were asked all their items
    return config.model_copy(update={"suite": suite, "domain_tasks": domain_tasks, "gate": gate})


@contextmanager
def server_between_checkpoints(config: Config) -> Iterator["PersistentServer | None"]:
    """The server that stays up between the checkpoints of a training; None where each is to have its own.

    On a GPU it would hold the memory that the training needs.
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
    """The checkpoint in `folder` against the base model, served as any other; evaluations go to `work`.

    Raises EvidenceFault when the policy cannot judge what was measured.
    """
    free_memory()
    few = limited_config(config)
    candidate = checkpoint(folder, few.model, few.template, base if is_adapter(folder) else None)
    sides = {BASE: base_checkpoint(base, candidate.contract_sha256), CANDIDATE: candidate}

    def evaluations() -> EvidencePaths:
        log, load = work / "vllm.log", tasks_of(few)
        done = evaluate_checkpoints(sides, few.evaluation, work / EVALUATIONS, log, load, kept=kept)
        return EvidencePaths(work, done[BASE], done[CANDIDATE])

    verdict = reach_decision(few.gate, (BASE, CANDIDATE), evaluations).verdict
    if verdict.verdict == "INVALID":
        raise EvidenceFault(f"the checkpoint of step {step} cannot be judged: {'; '.join(verdict.reasons)}")
    found = checkpoint_result(step, verdict)
    say(f"  step {step}: worst guard {100 * found.slack:+.1f} points from its limit, targets {found.target:.1%}")
    return found


def base_checkpoint(base: Path, contract_sha256: str) -> Checkpoint:
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
    """What decides which checkpoint is kept."""
    guards = [metric for metric in verdict.metrics if metric.role == "guard"]
    targets = [metric.candidate for metric in verdict.metrics if metric.role == "target"]
    return EvaluatedCheckpoint(
        step=step,
        slack=min((guard.delta + (guard.margin or 0) for guard in guards), default=1.0),
        target=sum(targets) / len(targets) if targets else 0.0,
        verdict=verdict.verdict,
        failed_guards=[f"{g.suite}/{g.task}/{g.metric}" for g in guards if g.verdict == "FAIL"],
    )
