"""`promote`: reads everything again, and hands the candidate to the registry only when nothing speaks against it."""

from pathlib import Path

from harness.checkpoint.history import Entry, valid_alias
from harness.checkpoint.origin import origin_of
from harness.config.experiment import validate
from harness.config.gate import GateConfig
from harness.core.console import say
from harness.core.errors import DataError, EvidenceFault, ExitCode, PromotionRefused, UsageError
from harness.core.layout import CONFIG, EVALUATION, EVIDENCE, POLICY, VERDICT, RunFolder
from harness.core.store import read_manifest, sha256_file
from harness.lineage.chain import BASELINE_STAGE, CANDIDATE_STAGE, Chain, ChainStep, EvidencePaths
from harness.lineage.verify import broken_links, read_policy, verify_evidence
from harness.model.load import is_adapter, weights_sha256
from harness.prompt.contract import CONTRACT_FILE, Contract
from harness.records.base import load
from harness.records.gate import Verdict
from harness.records.stages import Evaluation
from harness.registry.policy import at_least_as_strict
from harness.registry.protocol import AuditInfo, PromotionRequest, Registry

REQUIRED_STAGES = ("data", "contract", "train", BASELINE_STAGE, CANDIDATE_STAGE, "compare", "gate")


def promote(registry: Registry, run: Path, decision: Path | None, info: AuditInfo) -> Entry:
    """The entry of the promotion; the one that stands where the alias points to the run's model already, and nothing
    moves then. Raises PromotionRefused with every reason against it.

    Says so when the model was evaluated on a part of the items only: that evaluation can be no baseline.
    """
    valid_alias(info.alias)
    current = registry.current(info.alias)
    if current is not None and _points_to(RunFolder(run).checkpoint, current):
        say(f"· {info.alias} points to this model already: the same weights under the same prompt contract")
        return current
    request = checked_request(
        run, decision or decision_folder(run, info.alias), current, _required_policy(registry, info.alias)
    )
    entry = registry.promote(request, info)
    if tasks := _stopped_early(request.paths.candidate):
        say(
            f"warning: the evaluation of {entry.run_id} stopped early ({', '.join(tasks)}) and cannot be a baseline: "
            f"`harness gate {info.alias} RUN` will refuse it. `harness ci RUN --against {info.alias}` evaluates "
            f"{info.alias} whole."
        )
    return entry


def _points_to(checkpoint: Path, current: Entry) -> bool:
    """Whether an alias points to the model of a run, as both lie there now."""
    if not (checkpoint / CONTRACT_FILE).is_file() or not any(checkpoint.glob("*.safetensors")):
        return False
    known = current.digests.get("checkpoint", current.digests["weights"]), current.digests["contract"]
    same = (weights_sha256(checkpoint), Contract.load(checkpoint).digest) == known
    return same and (not is_adapter(checkpoint) or _base_digest(checkpoint) == current.digests.get("base"))


def _base_digest(adapter: Path) -> object:
    """The digest of the base model that an adapter was trained on: its weights' digest leaves the base out."""
    return ((read_manifest(origin_of(adapter)) or {}).get("inputs") or {}).get("base")


def _stopped_early(evaluation: Path) -> list[str]:
    tasks = load(Evaluation, evaluation / EVALUATION).tasks
    return sorted(name for name, task in tasks.items() if task.stopped_at is not None)


def decision_folder(run: Path, alias: str) -> Path:
    """The verdict that decides: the one against the alias where there is one, else the run's own."""
    against = RunFolder(run).against(alias)
    return against.path if against.verdict.is_file() else run


def checked_request(run: Path, decision: Path, current: Entry | None, demanded: GateConfig | None) -> PromotionRequest:
    if not (decision / VERDICT).is_file():
        raise UsageError(f"{decision} holds no {VERDICT}; make one with: harness run, or harness gate … --out DIR")
    reasons, code = _verdict_objections(decision)
    faults = [f"{folder}: {told}" for folder in _evidence_folders(decision, run) for told in _broken_links(folder)]
    try:
        chain = load(Chain, decision / EVIDENCE)
        policy = read_policy(decision)
    except (DataError, EvidenceFault) as error:
        raise PromotionRefused([*reasons, *faults, str(error)], ExitCode.INVALID) from None
    faults += _missing_evidence(chain, decision, run)
    faults += _baseline_objections(current, decision) if current else []
    faults += at_least_as_strict(policy, demanded) if demanded else []
    if reasons or faults:
        raise PromotionRefused([*reasons, *faults], ExitCode.INVALID if faults else code)
    return _request(run, decision, chain, policy, current)


def _evidence_folders(decision: Path, run: Path) -> list[Path]:
    """The folders with a chain of evidence: the decision's; the run's too, unless it was only trained."""
    return [decision] if run == decision or not RunFolder(run).record.is_file() else [decision, run]


def _verdict_objections(decision: Path) -> tuple[list[str], int]:
    """Nothing for PASS; else the verdict with its reasons, and its exit code."""
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
    """Stages that nothing is known of, training data that were not checked, a verdict on another run's model."""
    faults = [f"the chain of evidence has no stage {stage}" for stage in REQUIRED_STAGES if chain.step(stage) is None]
    data, trained = chain.step("data"), chain.step("train")
    judged = chain.step("scale") or trained
    if data is not None and not data.outputs.get("items"):
        faults.append("the training data were checked against no evaluation items (decontamination)")
    faults += [
        f"nothing says {what}: its chain has no link {name} → train" for name, what in _missing_training_links(trained)
    ]
    if judged is not None and (decision / judged.folder).resolve() != (RunFolder(run).checkpoint).resolve():
        faults.append(f"{decision} judges {(decision / judged.folder).resolve()}, not {run / 'checkpoint'}")
    return faults


def _missing_training_links(trained: ChainStep | None) -> list[tuple[str, str]]:
    """What a training has to be linked to and is not."""
    told = {
        "data.dataset": "which data the model was trained on",
        "model.weights": "which pretrained model it was trained from",
    }
    return [(name, what) for name, what in told.items() if trained is not None and name not in trained.inputs]


def _baseline_objections(current: Entry, decision: Path) -> list[str]:
    """The verdict's baseline has to be the model that the alias points to, asked under its own prompt contract."""
    try:
        baseline = load(Verdict, decision / VERDICT).baseline
    except DataError:
        return []
    mend = f"make a verdict with: harness ci RUN --against {current.alias}, then promote again"
    faults = []
    if baseline.weights_sha256 != current.digests.get("weights"):
        faults.append(f"the verdict's baseline is {baseline.label}, not {current.alias} ({current.model}): {mend}")
    if baseline.contract_sha256 != current.digests.get("contract"):
        faults.append(
            f"the prompt contract is not the one of {current.alias}: its clients would be answered under another "
            "template. Promote to another alias, and move the clients over."
        )
    return faults


def _required_policy(registry: Registry, alias: str) -> GateConfig | None:
    entries = registry.history(alias)
    return validate(GateConfig, entries[-1].policy) if entries and entries[-1].policy else None


def _request(run: Path, decision: Path, chain: Chain, policy: GateConfig, current: Entry | None) -> PromotionRequest:
    extras = {
        "MODEL_CARD.md": RunFolder(run).report / "MODEL_CARD.md",
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
    """What an entry of the history holds of the evidence."""
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
