"""Writes evidence.json at the end of a run, or of a gate decision that is written to a folder."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from harness.checkpoint.origin import origins
from harness.core import store
from harness.core.console import say
from harness.core.errors import DataError, EvidenceFault
from harness.core.layout import EVIDENCE
from harness.core.machine import hardware
from harness.lineage.chain import Chain, EvidencePaths, recorded_baselines
from harness.lineage.coverage import checkpoint_of, data_beside, evaluated_weights
from harness.lineage.steps import steps_of
from harness.records.base import load


def write_evidence(paths: EvidencePaths, run_id: str, command: str, runs: Path) -> None:
    """Writes evidence.json into the decision's folder; a file that already records the same steps is kept.

    Further baselines that compare.json names are looked for in `runs`, unless `paths` has them. Where a record cannot
    be read, the verdict is INVALID: no file is written, and a line says why.
    """
    path = paths.decision / EVIDENCE
    try:
        steps = steps_of(replace(paths, further=recorded_baselines(paths, runs)))
    except (DataError, EvidenceFault) as fault:
        path.unlink(missing_ok=True)
        say(f"· {EVIDENCE} was not written: {fault}")
        return
    chain = Chain(
        run_id=run_id,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        git_commit=store.git_commit(),
        versions=store.versions(),
        hardware=hardware(),
        steps=steps,
    )
    if _steps_in(path) != chain.steps:
        save_chain(chain, path)


def save_chain(chain: Chain, path: Path) -> None:
    store.write_json(path, chain.model_dump())


def evidence_paths(decision: Path, baseline: Path, candidate: Path, runs: Path) -> EvidencePaths:
    """The folders behind a gate decision: both evaluations, and those of the run that trained the candidate, if any."""
    try:
        checkpoint = checkpoint_of(candidate.resolve(), evaluated_weights(candidate), runs)
    except (DataError, EvidenceFault):
        checkpoint = None
    if checkpoint is None:
        return EvidencePaths(decision, baseline, candidate)
    data = data_beside(checkpoint)
    if not checkpoint.is_dir():
        return EvidencePaths(decision, baseline, candidate, data)
    return EvidencePaths(decision, baseline, candidate, data, checkpoint, origins(checkpoint))


def _steps_in(path: Path) -> object:
    try:
        return load(Chain, path).steps
    except DataError:
        return None
