"""Computes the steps of a chain of evidence from the files on disk."""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from harness.core.errors import EvidenceFault
from harness.core.layout import AUDIT, COMPARISON, CONTRACT, EVALUATION, POLICY, VERDICT
from harness.core.store import MANIFEST, read_manifest, sha256_file, sha256_json
from harness.data.row import COLUMNS
from harness.data.tables import TRAIN, read_parquet
from harness.lineage.chain import BASELINE_STAGE, CANDIDATE_STAGE, FURTHER, MAKERS, ChainStep, EvidencePaths
from harness.model.load import weights_sha256
from harness.prompt.contract import Contract
from harness.records.base import load
from harness.records.gate import Comparison
from harness.records.stages import Dataset, Evaluation
from harness.results.evidence import read_evidence
from harness.results.results_file import read_results, results_files, sample_file


def steps_of(paths: EvidencePaths) -> list[ChainStep]:
    """The steps that the files describe now, in order; a stage without files is left out.

    Raises EvidenceFault or DataError when a record cannot be read.
    """
    steps: list[ChainStep] = []
    readers: list[Callable[[EvidencePaths, list[ChainStep]], ChainStep | None]] = [
        _data_step,
        _model_step,
        _contract_step,
        _train_step,
    ]
    readers += [partial(_derived_step, folder) for folder in paths.derived]
    readers += [
        _baseline_step,
        _candidate_step,
        *(partial(_further_step, *one) for one in paths.further),
        _compare_step,
        _gate_step,
    ]
    for read in readers:
        step = read(paths, steps)
        if step is not None:
            steps.append(step)
    return steps


def _data_step(paths: EvidencePaths, _: list[ChainStep]) -> ChainStep | None:
    folder = paths.data
    if folder is None or not (folder / AUDIT).is_file():
        return None
    audited = load(Dataset, folder / AUDIT)
    inputs = _manifest_inputs(folder)
    sources = inputs.pop("sources", {})
    outputs = {"dataset": dataset_sha256(folder / TRAIN), "items": audited.decontaminated_against}
    return _stage_step(
        "data", folder, paths, _input_digests(inputs) | {f"source {k}": str(v) for k, v in sources.items()}, outputs
    )


def dataset_sha256(path: Path) -> str:
    """The digest (sha256) of the rows of a train.parquet, as the audit computes it while writing."""
    if not path.is_file():
        raise EvidenceFault(f"{path} is missing: the training data were deleted or moved")
    digest = hashlib.sha256()
    for row in read_parquet(path):
        digest.update(json.dumps([row.get(column) for column in COLUMNS]).encode() + b"\n")
    return digest.hexdigest()


def _model_step(paths: EvidencePaths, _: list[ChainStep]) -> ChainStep | None:
    """The pretrained model. It lies outside the run, so only the digest of its weights is recorded."""
    if paths.training is None or "base" not in (inputs := _manifest_inputs(paths.training)):
        return None
    return ChainStep(stage="model", folder="", inputs={}, outputs={"weights": str(inputs["base"])}, files={})


def _contract_step(paths: EvidencePaths, _: list[ChainStep]) -> ChainStep | None:
    if paths.checkpoint is None or not (paths.checkpoint / CONTRACT).is_file():
        return None
    contract = Contract.load(paths.checkpoint)
    inputs = {"template": contract.template_sha256, "tokenizer": contract.tokenizer_sha256}
    files = {CONTRACT: sha256_file(paths.checkpoint / CONTRACT)}
    folder = _relative_to(paths.checkpoint, paths.decision)
    return ChainStep(stage="contract", folder=folder, inputs=inputs, outputs={"digest": contract.digest}, files=files)


def _train_step(paths: EvidencePaths, steps: list[ChainStep]) -> ChainStep | None:
    folder = paths.training
    if folder is None or not any(folder.glob("*.safetensors")):
        return None
    inputs = _manifest_inputs(folder)
    linked = {"data.dataset": inputs.pop("data", ""), "model.weights": inputs.pop("base", "")}
    carried = Contract.load(folder).digest if (folder / CONTRACT).is_file() else ""
    linked["contract.digest"] = carried or _output(steps, "contract", "digest")
    known = {name: str(value) for name, value in linked.items() if value}
    step = _stage_step("train", folder, paths, known | _input_digests(inputs), {"weights": weights_sha256(folder)})
    if not paths.derived:
        return step
    return step.model_copy(update={"outputs": step.outputs | {"fingerprint": step.fingerprint}})


def _derived_step(folder: Path, paths: EvidencePaths, steps: list[ChainStep]) -> ChainStep | None:
    """A checkpoint made from the previous one: base + alpha · (trained − base) (`scale`), or an adapter merged into its
    base model (`merge`).

    The previous one is identified by its fingerprint inside a run, and by its weights where a copy was made later.
    """
    maker = _last_maker(steps)
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
    return _stage_step(stage, folder, paths, known | _input_digests(inputs), {"weights": weights_sha256(folder)})


def _last_maker(steps: list[ChainStep]) -> str | None:
    """The last stage that wrote weights."""
    return next((step.stage for step in reversed(steps) if step.stage in MAKERS), None)


def _baseline_step(paths: EvidencePaths, steps: list[ChainStep]) -> ChainStep | None:
    return _evaluation_step(BASELINE_STAGE, paths.baseline, paths, steps, "model")


def _candidate_step(paths: EvidencePaths, steps: list[ChainStep]) -> ChainStep | None:
    return _evaluation_step(CANDIDATE_STAGE, paths.candidate, paths, steps, _last_maker(steps) or "train")


def _further_step(label: str, folder: Path, paths: EvidencePaths, _: list[ChainStep]) -> ChainStep | None:
    """The evaluation of a further baseline, with the digest that its comparison names."""
    return _stage_step(f"{FURTHER}{label}", folder, paths, {}, {"evidence": read_evidence(folder).sha256})


def _evaluation_step(
    stage: str, folder: Path, paths: EvidencePaths, steps: list[ChainStep], maker: str
) -> ChainStep | None:
    """An evaluation. Its weights link to the stage that made them; a baseline's only where it is the base model."""
    record = folder / EVALUATION
    if not record.is_file():
        if not results_files(folder):
            return None
        return _stage_step(stage, folder, paths, {}, {"evaluation": read_evidence(folder).sha256})
    evaluation = load(Evaluation, record)
    inputs = _manifest_inputs(folder)
    for name, digest in (("weights", evaluation.weights_sha256), ("contract", evaluation.contract_sha256)):
        if inputs.pop(name, digest) != digest:
            raise EvidenceFault(f"{record}: its {name} digest differs from {MANIFEST}; one of them was edited")
    inputs.pop("label", None)
    required = stage == CANDIDATE_STAGE
    linked = {
        _input_name(steps, maker, "weights", evaluation.weights_sha256, required): evaluation.weights_sha256,
        _input_name(steps, "contract", "digest", evaluation.contract_sha256, required): evaluation.contract_sha256,
    }
    return _stage_step(stage, folder, paths, linked | _input_digests(inputs), {"evaluation": sha256_file(record)})


def _input_name(steps: list[ChainStep], maker: str, output: str, digest: str, required: bool) -> str:
    """The name of an input: a link to the stage that made it, or a root for a baseline made elsewhere."""
    made = _output(steps, maker, output)
    if made and (required or made == digest):
        return f"{maker}.{output}"
    return "weights" if output == "weights" else "contract"


def _compare_step(paths: EvidencePaths, steps: list[ChainStep]) -> ChainStep | None:
    path = paths.decision / COMPARISON
    if not path.is_file():
        return None
    made = {f"{stage}.evaluation": _output(steps, stage, "evaluation") for stage in (BASELINE_STAGE, CANDIDATE_STAGE)}
    inputs = {name: digest for name, digest in made.items() if digest}
    if items := _output(steps, "data", "items"):
        inputs["data.items"] = items
    for other in load(Comparison, path).others:
        inputs[f"{FURTHER}{other.baseline.label}.evidence"] = other.baseline.evidence_sha256
    return _decision_step("compare", path, inputs, "comparison")


def _gate_step(paths: EvidencePaths, steps: list[ChainStep]) -> ChainStep | None:
    path, policy = paths.decision / VERDICT, paths.decision / POLICY
    if not path.is_file():
        return None
    inputs = {"policy": sha256_file(policy)} if policy.is_file() else {}
    if compared := _output(steps, "compare", "comparison"):
        inputs["compare.comparison"] = compared
    step = _decision_step("gate", path, inputs, "verdict")
    return step.model_copy(update={"files": step.files | ({POLICY: inputs["policy"]} if policy.is_file() else {})})


def _decision_step(stage: str, path: Path, inputs: dict[str, str], output: str) -> ChainStep:
    digest = sha256_file(path)
    return ChainStep(stage=stage, folder=".", inputs=inputs, outputs={output: digest}, files={path.name: digest})


def _stage_step(
    stage: str, folder: Path, paths: EvidencePaths, inputs: dict[str, str], outputs: dict[str, str]
) -> ChainStep:
    manifest = read_manifest(folder) or {}
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if not manifest and stage.startswith((BASELINE_STAGE, CANDIDATE_STAGE, FURTHER)):
        # Made elsewhere: what else lies there (keys, weights, notes) is not evidence, and not copied with it.
        results = results_files(folder)
        read = {*results, *(sample_file(path, task) for path in results for task in read_results(path).results)}
        found = [path for path in found if path in read or path.name.startswith(("samples_", "details_"))]
    return ChainStep(
        stage=stage,
        folder=_relative_to(folder, paths.decision),
        inputs=inputs,
        outputs=outputs,
        files={path.relative_to(folder).as_posix(): sha256_file(path) for path in found},
        fingerprint=str(manifest.get("fingerprint", "")),
    )


def _manifest_inputs(folder: Path) -> dict[str, Any]:
    """The inputs that the stage's fingerprint was computed from; raises EvidenceFault when the two do not match."""
    manifest = read_manifest(folder)
    if manifest is None:
        return {}
    inputs = manifest.get("inputs", {})
    if sha256_json({"stage": manifest.get("stage"), **inputs}) != manifest.get("fingerprint"):
        raise EvidenceFault(f"{folder / MANIFEST}: the inputs do not match the fingerprint; the file was edited")
    return dict(inputs)


def _input_digests(inputs: dict[str, Any]) -> dict[str, str]:
    """Every input as a digest: texts are digests already; settings and lists are hashed."""
    return {name: value if isinstance(value, str) else sha256_json(value) for name, value in inputs.items()}


def _output(steps: list[ChainStep], stage: str, name: str) -> str:
    return next((step.outputs.get(name, "") for step in steps if step.stage == stage), "")


def _relative_to(folder: Path, origin: Path) -> str:
    import os

    return Path(os.path.relpath(folder.resolve(), origin.resolve())).as_posix()
