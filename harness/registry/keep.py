"""The registry's own copy of a model and its evidence.

Copies, not hard links: a linked file edited in its run would change production with it.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.checkpoint.origin import SCALED, TRAINED
from harness.core.errors import EvidenceFault
from harness.core.layout import EVIDENCE
from harness.core.store import disk_full_translated, sha256_file, sha256_json
from harness.lineage.chain import BASELINE_STAGE, CANDIDATE_STAGE, FURTHER, MAKERS, Chain
from harness.lineage.verify import broken, verify_evidence
from harness.lineage.write import save
from harness.registry.protocol import Act, Submission

PLACES = {
    "data": "data",
    "contract": "checkpoint",
    BASELINE_STAGE: "eval/baseline",
    CANDIDATE_STAGE: "eval/candidate",
    "compare": ".",
    "gate": ".",
}
MADE_OF = {"train": TRAINED, "scale": SCALED}


def place_of(stage: str, chain: Chain) -> str:
    """Where the copy keeps a stage's files: the weights that are served in checkpoint/, what they were made of beside
    it, as in a run."""
    if stage in MAKERS:
        served = chain.served
        return "checkpoint" if served is not None and served.stage == stage else MADE_OF[stage]
    if stage.startswith(FURTHER):
        return f"eval/further-{sha256_json(stage)[:8]}"
    return PLACES.get(stage, "")


@contextmanager
def kept(models: Path, submission: Submission, act: Act) -> Iterator[tuple[Callable[[], Path], str]]:
    """A complete copy under a temporary name, checked; calling what is yielded gives it its final one.

    Also yields the digest of its evidence.json. Raises EvidenceFault when a file changed since it was checked.
    """
    promotion = _promotion(submission, act)
    name = f"{submission.run_id}-{sha256_json(promotion)[:10]}"
    temporary, final = models / f".{name}.tmp-{os.getpid()}", models / name
    models.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with disk_full_translated(models):
            _copy(submission, temporary)
            _write_chain(submission, promotion, temporary)
        if faults := broken(verify_evidence(temporary)):
            raise EvidenceFault(f"{submission.run_id} changed while it was copied: {'; '.join(faults)}")
        evidence_sha256 = sha256_file(temporary / EVIDENCE)

        def settle() -> Path:
            if final.exists():  # left by a promotion that lost its race: the same digests, the same promotion
                shutil.rmtree(final)
            return temporary.replace(final)

        yield settle, evidence_sha256
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy(submission: Submission, target: Path) -> None:
    for step in submission.chain.steps:
        source = submission.places.decision / step.folder
        for file in step.files:
            _copy_file(source / file, target / place_of(step.stage, submission.chain) / file)
    for name, path in submission.extras.items():
        if path.is_file():
            _copy_file(path, target / name)


def _copy_file(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o444)


def _promotion(submission: Submission, act: Act) -> dict[str, str]:
    """The chain's last link: `after` is the entry that the alias stood at."""
    return {"alias": act.alias, "who": act.who, "why": act.why, "after": submission.head} | submission.digests


def _write_chain(submission: Submission, promotion: dict[str, str], target: Path) -> None:
    """evidence.json with the copy's own places, and the promotion."""
    chain = submission.chain
    steps = [step.model_copy(update={"folder": place_of(step.stage, chain)}) for step in chain.steps]
    save(chain.model_copy(update={"steps": steps, "promotion": promotion}), target / EVIDENCE)
    (target / EVIDENCE).chmod(0o444)
