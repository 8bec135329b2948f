"""`harness promote`: checks all the evidence again, and promotes the candidate only without objections."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harness.checkpoint.history import HistoryEntry, valid_alias
from harness.checkpoint.origin import origin_of
from harness.config.experiment import validate
from harness.config.gate import GateConfig
from harness.core.console import say
from harness.core.errors import DataError, EvidenceFault, ExitCode, HarnessError, PromotionRefused, UsageError
from harness.core.layout import COMPARISON, CONFIG, CONTRACT, EVALUATION, EVIDENCE, POLICY, VERDICT, RunFolder
from harness.core.store import read_manifest, sha256_file
from harness.gate.verdict import decide
from harness.lineage.chain import BASELINE_STAGE, CANDIDATE_STAGE, Chain, EvidencePaths
from harness.lineage.verify import broken_links, read_policy, verify_evidence
from harness.model.load import is_adapter, weights_sha256
from harness.prompt.contract import Contract
from harness.records.base import load
from harness.records.gate import Comparison, Verdict
from harness.records.stages import Evaluation
from harness.registry.policy import at_least_as_strict
from harness.registry.protocol import AuditInfo, PromotionRequest, Registry

REQUIRED_STAGES = ("data", "contract", "train", BASELINE_STAGE, CANDIDATE_STAGE, "compare", "gate")


def promote(registry: Registry, run: Path, decision: Path | None, info: AuditInfo) -> HistoryEntry:
    """Promotes a run's model and returns the history's new entry.

    Returns the current entry, and changes nothing, where the alias already points to this model. Prints a warning
    where the evaluation stopped early, since such an evaluation cannot be a baseline later.
    Raises PromotionRefused that lists every objection.
    """
    valid_alias(info.alias)
    current = registry.current(info.alias)
    if current is not None and _points_to(RunFolder(run).checkpoint, current):
        say(f"· {info.alias} already points to this model: same weights, same prompt contract")
        return current
    request = checked_request(
        run, decision or decision_folder(run, info.alias), current, _required_policy(registry, info.alias)
    )
    entry = registry.promote(request, info)
    if current is None:
        say(f"· the first model of {info.alias}: there was none to compare it with")
    if tasks := _stopped_early(request.paths.candidate):
        say(
            f"warning: the evaluation of {entry.run_id} stopped early ({', '.join(tasks)}). It cannot be a baseline: "
            f"`harness gate {info.alias} RUN` will refuse it. Use `harness ci RUN --against {info.alias}`, which "
            f"evaluates {info.alias} on all items."
        )
    return entry


def _points_to(checkpoint: Path, current: HistoryEntry) -> bool:
    """Whether the alias's entry names the model that the run's checkpoint folder holds now."""
    if not (checkpoint / CONTRACT).is_file() or not any(checkpoint.glob("*.safetensors")):
        return False
    base = str(_base_digest(checkpoint)) if is_adapter(checkpoint) else None
    return current.names(weights_sha256(checkpoint), Contract.load(checkpoint).digest, base)


def _base_digest(adapter: Path) -> object:
    """The digest of the base model that an adapter was trained on; the digest of its own weights does not cover it."""
    return ((read_manifest(origin_of(adapter)) or {}).get("inputs") or {}).get("base")


def _stopped_early(evaluation: Path) -> list[str]:
    tasks = load(Evaluation, evaluation / EVALUATION).tasks
    return sorted(name for name, task in tasks.items() if task.stopped_at is not None)


def decision_folder(run: Path, alias: str) -> Path:
    """The folder of the verdict that counts: the one against the alias where it exists, else the run's own."""
    against = RunFolder(run).against(alias)
    return against.path if against.verdict.is_file() else run


def checked_request(
    run: Path, decision: Path, current: HistoryEntry | None, required: GateConfig | None
) -> PromotionRequest:
    """The request to promote a run, once everything was checked.

    `current` is the entry that the alias points to, `required` the policy that it requires. Raises UsageError without
    a verdict, and PromotionRefused that lists every objection.
    """
    if not (decision / VERDICT).is_file():
        raise UsageError(f"{decision} has no {VERDICT}. Write one with: harness run …, or harness gate … --out DIR")
    reasons, code = _verdict_objections(decision)
    # The decision's evidence is always checked; the run's own too, unless the run was only trained.
    folders = [decision] if run == decision or not RunFolder(run).record.is_file() else [decision, run]
    problems = [f"{folder}: {problem}" for folder in folders for problem in _broken_links(folder)]
    try:
        chain = load(Chain, decision / EVIDENCE)
        policy = read_policy(decision)
    except (DataError, EvidenceFault) as error:
        raise PromotionRefused([*reasons, *problems, str(error)], ExitCode.INVALID) from None
    problems += _missing_evidence(chain, decision, run)
    problems += _baseline_objections(current, decision) if current else []
    problems += at_least_as_strict(policy, required) if required else []
    problems += _expired_since(policy, decision) + _unrecorded(run)
    if reasons or problems:
        raise PromotionRefused([*reasons, *problems], ExitCode.INVALID if problems else code)
    return _request(run, decision, chain, policy, current)


def _verdict_objections(decision: Path) -> tuple[list[str], int]:
    """Objections from the verdict itself, none for PASS; and its exit code."""
    try:
        verdict = load(Verdict, decision / VERDICT)
    except DataError as error:
        return [str(error)], ExitCode.INVALID
    if verdict.verdict == "PASS":
        return [], ExitCode.DONE
    return [f"the verdict is {verdict.verdict}: {reason}" for reason in verdict.reasons], verdict.exit_code


def _broken_links(folder: Path) -> list[str]:
    try:
        return broken_links(verify_evidence(folder))
    except EvidenceFault as fault:
        return [str(fault)]


def _missing_evidence(chain: Chain, decision: Path, run: Path) -> list[str]:
    """What the chain lacks: stages, links of the training, checked training data, a verdict on this very model."""
    problems = [f"the chain of evidence has no stage {stage}" for stage in REQUIRED_STAGES if chain.step(stage) is None]
    data, trained = chain.step("data"), chain.step("train")
    judged = chain.step("scale") or trained
    if data is not None and not data.outputs.get("items"):
        problems.append("the training data were not checked against any evaluation items (decontamination)")
    required = {
        "data.dataset": "which data the model was trained on",
        "model.weights": "which pretrained model it was trained from",
    }
    missing = [name for name in required if trained is not None and name not in trained.inputs]
    problems += [f"nothing records {required[name]}: the chain has no link {name} → train" for name in missing]
    if judged is not None and (decision / judged.folder).resolve() != (RunFolder(run).checkpoint).resolve():
        problems.append(f"{decision} judges {(decision / judged.folder).resolve()}, not {run / 'checkpoint'}")
    return problems


def _expired_since(policy: GateConfig, decision: Path) -> list[str]:
    """Objections where the verdict passed by a waiver that no longer holds: it is decided again as of today."""
    try:
        verdict = load(Verdict, decision / VERDICT)
        now = datetime.now(UTC).date()
        today = decide(policy, load(Comparison, decision / COMPARISON), now)
    except HarnessError:
        return []  # a damaged record is an objection already
    if verdict.decided_on is not None and verdict.decided_on > now + timedelta(days=1):  # clocks may differ
        return [
            f"the verdict was decided on {verdict.decided_on.isoformat()}, which is yet to come: gate the run again"
        ]
    if verdict.verdict != "PASS" or today.verdict == "PASS":
        return []
    decided = f" (decided on {verdict.decided_on.isoformat()})" if verdict.decided_on else ""
    return [f"the verdict was PASS{decided} and is {today.verdict} today: {reason}" for reason in today.reasons]


def _unrecorded(run: Path) -> list[str]:
    """Files beside the evidence that promotion would keep, but whose digests run.json does not hold."""
    place = RunFolder(run)
    kept = [place.model_card, place.config] if place.record.is_file() else [place.model_card]
    try:
        recorded = json.loads(place.record.read_text())["outputs"] if place.record.is_file() else {}
        names = [path.relative_to(run).as_posix() for path in kept if path.is_file()]
        missing = [name for name in names if name not in recorded]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []  # a damaged record is an objection already
    return [
        f"{run / name} may have been edited: {place.record} does not record it. Run the experiment again (finished "
        "stages are reused), or remove the file."
        for name in missing
    ]


def _baseline_objections(current: HistoryEntry, decision: Path) -> list[str]:
    """Objections where the verdict's baseline is not the alias's model under the alias's prompt contract."""
    try:
        baseline = load(Verdict, decision / VERDICT).baseline
    except DataError:
        return []
    problems = []
    if baseline.weights_sha256 != current.digests.get("weights"):
        problems.append(
            f"the verdict's baseline is {baseline.label}, not {current.alias} ({current.model}). "
            f"Run: harness ci RUN --against {current.alias}, then promote again."
        )
    if baseline.contract_sha256 != current.digests.get("contract"):
        problems.append(
            f"the prompt contract is not that of {current.alias}: the answers to its clients would use another "
            "template. Promote to another alias (--alias NAME), then move the clients to it."
        )
    return problems


def _required_policy(registry: Registry, alias: str) -> GateConfig | None:
    entries = registry.history(alias)
    return validate(GateConfig, entries[-1].policy) if entries and entries[-1].policy else None


def _request(
    run: Path, decision: Path, chain: Chain, policy: GateConfig, current: HistoryEntry | None
) -> PromotionRequest:
    extras = {
        "MODEL_CARD.md": RunFolder(run).model_card,
        CONFIG: RunFolder(run).config,
        "origin/run.json": RunFolder(run).record,
        f"origin/{EVIDENCE}": decision / EVIDENCE,
    }
    return PromotionRequest(
        run_id=run.resolve().name,
        paths=EvidencePaths.of_chain(decision, chain),
        chain=chain,
        extras=extras,
        digests=_evidence_digests(chain, decision),
        policy=policy.model_dump(mode="json"),
        head=current.hash if current else "",
    )


def _evidence_digests(chain: Chain, decision: Path) -> dict[str, str]:
    """The digests of the evidence that an entry of the history records."""
    made = {f"{step.stage}.{name}": digest for step in chain.steps for name, digest in step.outputs.items()}
    served = chain.served
    unmerged = made.get("scale.weights", made["train.weights"])
    return {
        "weights": served.outputs["weights"] if served else "",
        "checkpoint": unmerged,
        "base": made.get("model.weights", ""),
        "contract": made["contract.digest"],
        "data": made["data.dataset"],
        "decontamination": made["data.items"],
        "evaluation": made[f"{CANDIDATE_STAGE}.evaluation"],
        "verdict": made["gate.verdict"],
        "policy": sha256_file(decision / POLICY),
        "origin": sha256_file(decision / EVIDENCE),
    }
