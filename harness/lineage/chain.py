"""The chain of evidence of one verdict: every stage with the digests of all that went in and came out.

An input named `stage.output` is a link: it has to equal that output of an earlier stage. All other inputs are roots
(sources, settings, code, task files). Steps are always computed from the files; `evidence.json` keeps them.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base_model import weights_sha256
from harness.data.row import COLUMNS
from harness.data.tables import TRAIN, read_parquet
from harness.errors import EvidenceFault
from harness.prompt.contract import CONTRACT_FILE, Contract
from harness.records import Comparison, Dataset, Evaluation, Record, load
from harness.scaling import origin_of
from harness.store import MANIFEST, read_manifest, sha256_file, sha256_json

EVIDENCE = "evidence.json"
POLICY = "policy.json"
COMPARISON, VERDICT = "compare.json", "verdict.json"
BASELINE_STAGE, CANDIDATE_STAGE = "evaluate_baseline", "evaluate_candidate"


class Step(Record):
    """One stage. `folder` is relative to evidence.json; `files` are sha256 by path inside that folder."""

    stage: str
    folder: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    files: dict[str, str]
    fingerprint: str = ""


class Chain(Record):
    """What evidence.json holds. `promotion` is filled in the registry's copy only."""

    schema_version: int = 1
    run_id: str
    command: str
    created: str
    git_commit: str | None
    versions: dict[str, str]
    hardware: dict[str, str]
    steps: list[Step]
    promotion: dict[str, str] = {}

    def step(self, stage: str) -> Step | None:
        return next((step for step in self.steps if step.stage == stage), None)


@dataclass(frozen=True)
class Places:
    """Where the parts of the evidence lie. A model that no run here trained has neither data nor checkpoint.

    `trained` is what a checkpoint between base model and trained weights was scaled from.
    """

    decision: Path
    baseline: Path
    candidate: Path
    data: Path | None = None
    checkpoint: Path | None = None
    trained: Path | None = None

    @property
    def training(self) -> Path | None:
        """The folder that training wrote."""
        return self.trained or self.checkpoint

    @classmethod
    def of_run(cls, run: Path) -> "Places":
        checkpoint = run / "checkpoint"
        evaluations = (run / "eval" / "base", run / "eval" / "candidate")
        return cls(run, *evaluations, run / "data", checkpoint, trained_of(checkpoint))

    @classmethod
    def of_chain(cls, folder: Path, chain: Chain) -> "Places":
        """The places that a recorded chain names, as seen from the folder of its evidence.json."""
        found = {step.stage: folder / step.folder for step in chain.steps}
        absent = folder / "eval"
        baseline, candidate = (found.get(stage, absent) for stage in (BASELINE_STAGE, CANDIDATE_STAGE))
        trained = found.get("train")
        scaled = found.get("scale")
        return cls(folder, baseline, candidate, found.get("data"), scaled or trained, trained if scaled else None)


def trained_of(checkpoint: Path) -> Path | None:
    """The folder that a scaled checkpoint was made from, beside it where it is there; None for any other."""
    if (read_manifest(checkpoint) or {}).get("stage") != "scale":
        return None
    beside = checkpoint.with_name("trained")
    return beside if beside.is_dir() else origin_of(checkpoint)


def steps_of(places: Places) -> list[Step]:
    """The steps as the files stand now; a stage without files is left out.

    Raises EvidenceFault or DataError when a record among them cannot be read.
    """
    steps: list[Step] = []
    readers: list[Callable[[Places, list[Step]], Step | None]] = [_data, _model, _contract, _train, _scale]
    readers += [_baseline, _candidate, _compare, _gate]
    for read in readers:
        step = read(places, steps)
        if step is not None:
            steps.append(step)
    return steps


def _data(places: Places, _: list[Step]) -> Step | None:
    folder = places.data
    if folder is None or not (folder / "audit.json").is_file():
        return None
    audited = load(Dataset, folder / "audit.json")
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
    if places.trained is None:
        return step
    return step.model_copy(update={"outputs": step.outputs | {"fingerprint": step.fingerprint}})


def _scale(places: Places, steps: list[Step]) -> Step | None:
    """The checkpoint as base + alpha · (trained − base): known by the training's fingerprint in a run, by the trained
    weights where a copy was scaled later."""
    folder = places.checkpoint
    if folder is None or places.trained is None or not any(folder.glob("*.safetensors")):
        return None
    inputs = _manifest_inputs(folder)
    linked = {
        "train.fingerprint": inputs.pop("trained", ""),
        "train.weights": inputs.pop("weights", "") or _output(steps, "train", "weights"),
        "model.weights": inputs.pop("base", ""),
    }
    known = {name: str(value) for name, value in linked.items() if value}
    return _step("scale", folder, places, known | _digests(inputs), {"weights": weights_sha256(folder)})


def _baseline(places: Places, steps: list[Step]) -> Step | None:
    return _evaluated(BASELINE_STAGE, places.baseline, places, steps, ("model",))


def _candidate(places: Places, steps: list[Step]) -> Step | None:
    maker = "train" if places.trained is None else "scale"
    return _evaluated(CANDIDATE_STAGE, places.candidate, places, steps, (maker,))


def _evaluated(stage: str, folder: Path, places: Places, steps: list[Step], makers: tuple[str, ...]) -> Step | None:
    """An evaluation; its weights are linked to the stage that made them (a baseline's: where it is the base model)."""
    record = folder / "evaluation.json"
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
        _link(steps, makers[0], "weights", evaluation.weights_sha256, required): evaluation.weights_sha256,
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
        inputs[f"baseline {other.baseline.label}"] = other.baseline.evidence_sha256
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
