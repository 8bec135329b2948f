"""The steps of a chain of evidence, as the files stand."""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from harness.core.errors import EvidenceFault
from harness.core.layout import AUDIT, COMPARISON, EVALUATION, POLICY, VERDICT
from harness.core.store import MANIFEST, read_manifest, sha256_file, sha256_json
from harness.data.row import COLUMNS
from harness.data.tables import TRAIN, read_parquet
from harness.lineage.chain import BASELINE_STAGE, CANDIDATE_STAGE, FURTHER, MAKERS, Places, Step
from harness.model.load import weights_sha256
from harness.prompt.contract import CONTRACT_FILE, Contract
from harness.records.base import load
from harness.records.gate import Comparison
from harness.records.stages import Dataset, Evaluation
from harness.results.evidence import read_evidence


def steps_of(places: Places) -> list[Step]:
    """The steps as the files stand now; a stage without files is left out.

    Raises EvidenceFault or DataError when a record among them cannot be read.
    """
    steps: list[Step] = []
    readers: list[Callable[[Places, list[Step]], Step | None]] = [_data, _model, _contract, _train]
    readers += [partial(_derived, folder) for folder in places.derived]
    readers += [_baseline, _candidate, *(partial(_further, *one) for one in places.further), _compare, _gate]
    for read in readers:
        step = read(places, steps)
        if step is not None:
            steps.append(step)
    return steps


def _data(places: Places, _: list[Step]) -> Step | None:
    folder = places.data
    if folder is None or not (folder / AUDIT).is_file():
        return None
    audited = load(Dataset, folder / AUDIT)
    inputs = _manifest_inputs(folder)
    sources = inputs.pop("sources", {})
    outputs = {"dataset": dataset_sha256(folder / TRAIN), "items": audited.decontaminated_against}
    return _step(
        "data", folder, places, _digests(inputs) | {f"source {k}": str(v) for k, v in sources.items()}, outputs
    )


def dataset_sha256(path: Path) -> str:
    """The digest of a train.parquet's rows, as the audit computes it while writing."""
    if not path.is_file():
        raise EvidenceFault(f"{path} is missing: the training data are not there")
    digest = hashlib.sha256()
    for row in read_parquet(path):
        digest.update(json.dumps([row.get(column) for column in COLUMNS]).encode() + b"\n")
    return digest.hexdigest()


def _model(places: Places, _: list[Step]) -> Step | None:
    """The pretrained model: known by the digest of its weights, kept outside the run."""
    if places.training is None or "base" not in (inputs := _manifest_inputs(places.training)):
        return None
    return Step(stage="model", folder="", inputs={}, outputs={"weights": str(inputs["base"])}, files={})


def _contract(places: Places, _: list[Step]) -> Step | None:
    if places.checkpoint is None or not (places.checkpoint / CONTRACT_FILE).is_file():
        return None
    contract = Contract.load(places.checkpoint)
    inputs = {"template": contract.template_sha256, "tokenizer": contract.tokenizer_sha256}
    files = {CONTRACT_FILE: sha256_file(places.checkpoint / CONTRACT_FILE)}
    folder = _relative(places.checkpoint, places.decision)
    return Step(stage="contract", folder=folder, inputs=inputs, outputs={"digest": contract.digest}, files=files)


def _train(places: Places, steps: list[Step]) -> Step | None:
    folder = places.training
    if folder is None or not any(folder.glob("*.safetensors")):
        return None
    inputs = _manifest_inputs(folder)
    linked = {"data.dataset": inputs.pop("data", ""), "model.weights": inputs.pop("base", "")}
    carried = Contract.load(folder).digest if (folder / CONTRACT_FILE).is_file() else ""
    linked["contract.digest"] = carried or _output(steps, "contract", "digest")
    known = {name: str(value) for name, value in linked.items() if value}
    step = _step("train", folder, places, known | _digests(inputs), {"weights": weights_sha256(folder)})
    if not places.derived:
        return step
    return step.model_copy(update={"outputs": step.outputs | {"fingerprint": step.fingerprint}})


def _derived(folder: Path, places: Places, steps: list[Step]) -> Step | None:
    """A checkpoint made of the one before: base + alpha · (trained − base) (`scale`), or put into its base (`merge`).

    What it was made of is known by its fingerprint in a run, and by its weights where a copy was made later.
    """
    maker = _maker(steps)
    if maker is None or not any(folder.glob("*.safetensors")):
        return None
    inputs = _manifest_inputs(folder)
    linked = {
        f"{maker}.fingerprint": inputs.pop("trained", ""),
        f"{maker}.weights": inputs.pop("weights", "") or inputs.pop("adapter", "") or _output(steps, maker, "weights"),
        "model.weights": inputs.pop("base", ""),
        "contract.digest": inputs.pop("contract", ""),
    }
    known = {name: str(value) for name, value in linked.items() if value}
    stage = str((read_manifest(folder) or {}).get("stage", "scale"))
    return _step(stage, folder, places, known | _digests(inputs), {"weights": weights_sha256(folder)})


def _maker(steps: list[Step]) -> str | None:
    """The last stage that wrote weights."""
    return next((step.stage for step in reversed(steps) if step.stage in MAKERS), None)


def _baseline(places: Places, steps: list[Step]) -> Step | None:
    return _evaluated(BASELINE_STAGE, places.baseline, places, steps, "model")


def _candidate(places: Places, steps: list[Step]) -> Step | None:
    return _evaluated(CANDIDATE_STAGE, places.candidate, places, steps, _maker(steps) or "train")


def _further(label: str, folder: Path, places: Places, _: list[Step]) -> Step | None:
    """The evaluation of a further baseline, by the digest that its comparison names."""
    return _step(f"{FURTHER}{label}", folder, places, {}, {"evidence": read_evidence(folder).sha256})


def _evaluated(stage: str, folder: Path, places: Places, steps: list[Step], maker: str) -> Step | None:
    """An evaluation; its weights are linked to the stage that made them (a baseline's: where it is the base model)."""
    record = folder / EVALUATION
    if not record.is_file():
        results = sorted(folder.rglob("results*.json"))
        return _step(stage, folder, places, {}, {"evaluation": sha256_file(results[-1])}) if results else None
    evaluation = load(Evaluation, record)
    inputs = _manifest_inputs(folder)
    for name, digest in (("weights", evaluation.weights_sha256), ("contract", evaluation.contract_sha256)):
        if inputs.pop(name, digest) != digest:
            raise EvidenceFault(f"{record}: its {name} are not those that {MANIFEST} names")
    inputs.pop("label", None)
    required = stage == CANDIDATE_STAGE
    linked = {
        _link(steps, maker, "weights", evaluation.weights_sha256, required): evaluation.weights_sha256,
        _link(steps, "contract", "digest", evaluation.contract_sha256, required): evaluation.contract_sha256,
    }
    return _step(stage, folder, places, linked | _digests(inputs), {"evaluation": sha256_file(record)})


def _link(steps: list[Step], maker: str, output: str, digest: str, required: bool) -> str:
    """The name of an input: a link to the stage that made it, or (for a baseline made elsewhere) a root."""
    made = _output(steps, maker, output)
    if made and (required or made == digest):
        return f"{maker}.{output}"
    return "weights" if output == "weights" else "contract"


def _compare(places: Places, steps: list[Step]) -> Step | None:
    path = places.decision / COMPARISON
    if not path.is_file():
        return None
    made = {f"{stage}.evaluation": _output(steps, stage, "evaluation") for stage in (BASELINE_STAGE, CANDIDATE_STAGE)}
    inputs = {name: digest for name, digest in made.items() if digest}
    if items := _output(steps, "data", "items"):
        inputs["data.items"] = items
    for other in load(Comparison, path).others:
        inputs[f"{FURTHER}{other.baseline.label}.evidence"] = other.baseline.evidence_sha256
    return _decided("compare", path, inputs, "comparison")


def _gate(places: Places, steps: list[Step]) -> Step | None:
    path, policy = places.decision / VERDICT, places.decision / POLICY
    if not path.is_file():
        return None
    inputs = {"policy": sha256_file(policy)} if policy.is_file() else {}
    if compared := _output(steps, "compare", "comparison"):
        inputs["compare.comparison"] = compared
    step = _decided("gate", path, inputs, "verdict")
    return step.model_copy(update={"files": step.files | ({POLICY: inputs["policy"]} if policy.is_file() else {})})


def _decided(stage: str, path: Path, inputs: dict[str, str], output: str) -> Step:
    digest = sha256_file(path)
    return Step(stage=stage, folder=".", inputs=inputs, outputs={output: digest}, files={path.name: digest})


def _step(stage: str, folder: Path, places: Places, inputs: dict[str, str], outputs: dict[str, str]) -> Step:
    manifest = read_manifest(folder) or {}
    return Step(
        stage=stage,
        folder=_relative(folder, places.decision),
        inputs=inputs,
        outputs=outputs,
        files={p.relative_to(folder).as_posix(): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()},
        fingerprint=str(manifest.get("fingerprint", "")),
    )


def _manifest_inputs(folder: Path) -> dict[str, Any]:
    """What decided the stage's fingerprint; raises EvidenceFault when the two no longer belong together."""
    manifest = read_manifest(folder)
    if manifest is None:
        return {}
    inputs = manifest.get("inputs", {})
    if sha256_json({"stage": manifest.get("stage"), **inputs}) != manifest.get("fingerprint"):
        raise EvidenceFault(f"{folder / MANIFEST}: its inputs do not match its fingerprint; the file was edited")
    return dict(inputs)


def _digests(inputs: dict[str, Any]) -> dict[str, str]:
    """Every input as a digest: texts that are one stay, settings and lists are hashed."""
    return {name: value if isinstance(value, str) else sha256_json(value) for name, value in inputs.items()}


def _output(steps: list[Step], stage: str, name: str) -> str:
    return next((step.outputs.get(name, "") for step in steps if step.stage == stage), "")


def _relative(folder: Path, origin: Path) -> str:
    import os

    return Path(os.path.relpath(folder.resolve(), origin.resolve())).as_posix()
