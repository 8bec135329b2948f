"""Checks that the audit compared the training data with every item that the candidate is evaluated on."""

import json
from pathlib import Path

from harness.checkpoint.origin import ORIGIN, origin_of
from harness.core.errors import DataError, EvidenceFault
from harness.core.layout import AUDIT, CANDIDATE, EVALUATION, RunFolder
from harness.core.store import read_manifest, require_unchanged
from harness.model.load import cache_dir, weights_sha256
from harness.records.base import load
from harness.records.stages import Dataset
from harness.results.evidence import Evidence


def contamination_gaps(data: Path, evidence: Evidence, items_sha256: str | None = None) -> list[str]:
    """The evaluated items that the audit in the folder `data` did not compare with the training data, as sentences.

    `items_sha256` is the digest of all evaluation items of the run's configuration, where it is known.
    Raises EvidenceFault when there is no audit, or its files were edited.
    """
    if not (data / AUDIT).is_file():
        raise EvidenceFault(
            f"{data / AUDIT} is missing, so the model may have been trained on the items it is evaluated on. "
            "Audit the data and train again: harness run experiment=NAME"
        )
    if read_manifest(data) is not None:
        require_unchanged(data)
    try:
        dataset = load(Dataset, data / AUDIT)
    except DataError as error:
        raise EvidenceFault(str(error)) from None
    gaps = [gap for task in sorted(evidence.identities) if (gap := _contamination_gap(dataset, evidence, task))]
    if items_sha256 is not None and dataset.decontaminated_against != items_sha256:
        gaps.append(
            "the training data were checked against other evaluation items than the run uses now "
            f"(digests {dataset.decontaminated_against[:12]} and {items_sha256[:12]})"
        )
    return gaps


def _contamination_gap(dataset: Dataset, evidence: Evidence, task: str) -> str | None:
    """A task is covered under its own name, or under that of a group it belongs to."""
    names = [task, *(group for group, members in evidence.groups.items() if task in members)]
    checked = [dataset.covered[name] for name in names if name in dataset.covered]
    asked = evidence.identities[task].asked
    if not checked:
        return f"task {task}: the training data were not checked against its items (decontamination)"
    if max(checked) < asked:
        return f"task {task}: {asked} items were evaluated, but the training data were checked against {max(checked)}"
    return None


def data_beside(checkpoint: Path) -> Path:
    """The data/ folder of the run that holds a checkpoint, or of the run whose checkpoint it was made from."""
    own = RunFolder.of_checkpoint(checkpoint).data
    return own if own.is_dir() else RunFolder.of_checkpoint(origin_of(checkpoint)).data


def checkpoint_of(evaluation: Path, weights_sha256: str, runs: Path) -> Path | None:
    """The checkpoint that was evaluated: a run's, or a copy made from it in the cache; None for a model from elsewhere.

    An evaluation inside a run belongs to that run. Any other is matched by the digest of its weights; '' matches none.
    """
    inside = RunFolder.of_evaluation(evaluation)
    if inside is not None and inside.is_run:
        return inside.checkpoint if evaluation.name == CANDIDATE else None
    if not weights_sha256:
        return None
    for run in RunFolder.all_in(runs):
        if evaluated_weights(run.candidate) == weights_sha256:
            return run.checkpoint
    return _made_of_a_run(weights_sha256)


def evaluated_weights(evaluation: Path) -> str:
    """The digest of the weights that were evaluated; '' where no record of the harness states it."""
    try:
        return str(json.loads((evaluation / EVALUATION).read_text()).get("weights_sha256") or "")
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""


def _made_of_a_run(digest: str) -> Path | None:
    """The copy in the cache with these weights: a scaled model (RUN@ALPHA), or an adapter merged into its base."""
    for path in sorted(cache_dir().glob(f"*/*/model/{ORIGIN}")):
        try:
            home = RunFolder.of_checkpoint(origin_of(path.parent))
            if weights_sha256(path.parent) == digest and (home.config.is_file() or home.audit.is_file()):
                return path.parent
        except DataError:
            continue
    return None
