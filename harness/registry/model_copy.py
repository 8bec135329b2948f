"""Copies a model and its evidence into the registry.

Files are copied, not hard-linked: editing a linked file in its run would change production as well.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.checkpoint.origin import SCALED, TRAINED
from harness.core.errors import EvidenceFault
from harness.core.layout import EVIDENCE
from harness.core.leftovers import abandoned_in, remove, temporary_name
from harness.core.paths import inside, relative_folder, require_no_link
from harness.core.store import disk_full_translated, sha256_file, sha256_json
from harness.lineage.chain import BASELINE_STAGE, CANDIDATE_STAGE, FURTHER, MAKERS, Chain
from harness.lineage.verify import broken_links, verify_evidence
from harness.lineage.write import save_chain
from harness.registry.protocol import AuditInfo, PromotionRequest

FOLDERS = {
    "data": "data",
    "contract": "checkpoint",
    BASELINE_STAGE: "eval/baseline",
    CANDIDATE_STAGE: "eval/candidate",
    "compare": ".",
    "gate": ".",
}
MADE_OF = {"train": TRAINED, "scale": SCALED}


def folder_in_copy(stage: str, chain: Chain) -> str:
    """The folder of a stage's files inside the copy.

    As in a run, checkpoint/ holds the weights that are served; the weights they were made from lie beside it.
    """
    if stage in MAKERS:
        served = chain.served
        return "checkpoint" if served is not None and served.stage == stage else MADE_OF[stage]
    if stage.startswith(FURTHER):
        return f"eval/further-{sha256_json(stage)[:8]}"
    return FOLDERS.get(stage, "")


@contextmanager
def checked_copy(models: Path, request: PromotionRequest, info: AuditInfo) -> Iterator[tuple[Callable[[], Path], str]]:
    """Makes a complete, verified copy under a temporary name, and removes it again unless it is put in place.

    Yields a function that renames the copy to its final name and returns that folder, and the digest of the copy's
    evidence.json. Raises EvidenceFault when a file changed since the candidate was checked.
    """
    promotion = _promotion_record(request, info)
    name = f"{request.run_id}-{sha256_json(promotion)[:10]}"
    temporary, final = models / temporary_name(name), models / name
    models.mkdir(parents=True, exist_ok=True)
    for left in abandoned_in(models):
        remove(left)
    try:
        with disk_full_translated(models):
            _copy(request, temporary)
            _write_chain(request, promotion, temporary)
        if problems := broken_links(verify_evidence(temporary)):
            raise EvidenceFault(f"{request.run_id} changed while it was copied: {'; '.join(problems)}")
        evidence_sha256 = sha256_file(temporary / EVIDENCE)

        def place_copy() -> Path:
            if final.exists():  # left behind by a promotion that lost a race; its content is the same
                shutil.rmtree(final)
            return temporary.replace(final)

        yield place_copy, evidence_sha256
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy(request: PromotionRequest, target: Path) -> None:
    decision = request.paths.decision
    for step in request.chain.steps:
        source = relative_folder(decision, step.folder, decision / EVIDENCE)
        for file in step.files:
            kept = target / folder_in_copy(step.stage, request.chain)
            _copy_file(inside(source, file, decision / EVIDENCE), kept / file)
    for name, path in request.extras.items():
        require_no_link(path, path.parent.parent)
        if path.is_file():
            _copy_file(path, target / name)


def _copy_file(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o444)


def _promotion_record(request: PromotionRequest, info: AuditInfo) -> dict[str, str]:
    """The chain's last link. `after` is the hash of the alias's entry before this promotion."""
    return {"alias": info.alias, "who": info.who, "why": info.why, "after": request.head} | request.digests


def _write_chain(request: PromotionRequest, promotion: dict[str, str], target: Path) -> None:
    """Writes evidence.json with the copy's folders and the promotion."""
    chain = request.chain
    steps = [step.model_copy(update={"folder": folder_in_copy(step.stage, chain)}) for step in chain.steps]
    save_chain(chain.model_copy(update={"steps": steps, "promotion": promotion}), target / EVIDENCE)
    (target / EVIDENCE).chmod(0o444)
