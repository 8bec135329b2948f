"""Checks a chain of evidence against the files, offline: digests, links, and the recomputed comparison and verdict."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.config.experiment import validate
from harness.config.gate import GateConfig
from harness.core.errors import ConfigError, DataError, EvidenceFault, HarnessError
from harness.core.layout import COMPARISON, EVIDENCE, POLICY, RUN, VERDICT
from harness.core.paths import inside, relative_folder
from harness.core.store import require_version, sha256_file
from harness.gate.comparison import compare_all
from harness.gate.verdict import decide
from harness.lineage.chain import BASELINE_STAGE, CANDIDATE_STAGE, FURTHER, Chain, ChainStep, EvidencePaths
from harness.lineage.coverage import contamination_gaps
from harness.lineage.steps import steps_of
from harness.model.load import adapter_config, is_adapter, weights_sha256
from harness.records.base import Record, load
from harness.records.gate import Comparison, Verdict
from harness.results.evidence import Evidence, read_evidence

FILES_SHOWN = 3  # changed files named per stage
TOLERANCE = 1e-6  # processors and library builds differ in rounding


@dataclass(frozen=True)
class Link:
    """One checked link. `broken` says what is wrong and where (empty: nothing); `detail` says what was checked."""

    name: str
    detail: str = ""
    broken: str = ""

    def line(self) -> str:
        return f"BROKEN  {self.name}: {self.broken}" if self.broken else f"OK      {self.name}: {self.detail}"


def verify_evidence(folder: Path) -> list[Link]:
    """Every link of the chain in `folder`, checked. Raises EvidenceFault when there is no evidence.json."""
    path = folder / EVIDENCE
    if not path.is_file():
        raise EvidenceFault(
            f"{path} is missing, so the evidence behind the verdict is unknown. Write it with: harness run …"
        )
    try:
        recorded = load(Chain, path)
    except DataError as error:
        return [Link(EVIDENCE, broken=str(error))]
    try:
        paths = EvidencePaths.of_chain(folder, recorded)
        links = [*_run_record_links(folder), *_file_links(folder, recorded)]
    except EvidenceFault as fault:
        return [Link(EVIDENCE, broken=str(fault))]
    try:
        links += _stage_links(recorded, steps_of(paths))
    except HarnessError as error:
        links.append(Link("stages", broken=str(error)))
    links += _input_links(recorded)
    links += [_base_model_link(paths, recorded), _comparison_link(paths), _verdict_link(paths)]
    return links


def broken_links(links: list[Link]) -> list[str]:
    """The broken links, one line each."""
    return [f"{link.name}: {link.broken}" for link in links if link.broken]


def _run_record_links(folder: Path) -> Iterator[Link]:
    """run.json, where it exists, holds the digests of the files that the run wrote outside its stages."""
    import json

    path = folder / RUN
    if not path.is_file():
        return
    try:
        record = json.loads(path.read_text())
        require_version(record, path)
        outputs = record["outputs"]
        named = {name: outputs[name] for name in sorted(outputs) if "/" not in name or name.startswith("report/")}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        yield Link(RUN, broken=f"{path} cannot be read as the record of a run")
        return
    yield from _digest_links(RUN, folder, named)
    if EVIDENCE not in named:
        yield Link(RUN, broken=f"{path} does not record {EVIDENCE}")


def _file_links(folder: Path, chain: Chain) -> Iterator[Link]:
    for step in chain.steps:
        if step.files:
            yield from _digest_links(step.stage, relative_folder(folder, step.folder, EVIDENCE), step.files)


def _digest_links(name: str, folder: Path, files: Mapping[str, str]) -> Iterator[Link]:
    wrong = []
    for file, digest in files.items():
        try:
            path = inside(folder, file, EVIDENCE)
        except EvidenceFault as fault:
            wrong.append(str(fault))
            continue
        if not path.is_file():
            wrong.append(f"{path} is missing")
        elif sha256_file(path) != digest:
            wrong.append(f"{path} changed after it was written")
    if len(wrong) > FILES_SHOWN:
        wrong = [*wrong[:FILES_SHOWN], f"and {len(wrong) - FILES_SHOWN} more"]
    yield Link(f"{name} files", f"{len(files)} as recorded", "; ".join(wrong))


def _stage_links(recorded: Chain, found: list[ChainStep]) -> Iterator[Link]:
    """Compares what the files say now (manifests, records, weights, rows) with what evidence.json recorded."""
    now = {step.stage: step for step in found}
    for step in recorded.steps:
        if (other := now.get(step.stage)) is None:
            yield Link(step.stage, broken="evidence.json records this stage, but its files are missing")
            continue
        problems = [
            *_digest_mismatches(step.stage, "input", step.inputs, other.inputs),
            *_digest_mismatches(step.stage, "output", step.outputs, other.outputs),
        ]
        # An evaluation made elsewhere has no fingerprint; earlier releases recorded every file that lay beside it.
        elsewhere = not step.fingerprint and step.stage.startswith((BASELINE_STAGE, CANDIDATE_STAGE, FURTHER))
        unlike = set(other.files) - set(step.files) if elsewhere else set(other.files) ^ set(step.files)
        if unlike:
            problems.append(
                f"evidence.json and the folder do not list the same files: {', '.join(sorted(unlike)[:FILES_SHOWN])}"
            )
        if step.fingerprint != other.fingerprint:
            problems.append("its fingerprint changed")
        yield Link(step.stage, f"inputs: {len(step.inputs)}, outputs: {len(step.outputs)}", "; ".join(problems))
    names = [step.stage for step in recorded.steps]
    for stage in sorted({name for name in names if names.count(name) > 1}):
        yield Link(stage, broken="evidence.json records this stage twice; it was edited")
    for stage in sorted(set(now) - {step.stage for step in recorded.steps}):
        yield Link(stage, broken="the stage has files, but evidence.json does not record it")


def _digest_mismatches(stage: str, kind: str, recorded: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    names = sorted(name for name in {*recorded, *found} if recorded.get(name) != found.get(name))
    pairs = {name: (_short_digest(found.get(name)), _short_digest(recorded.get(name))) for name in names}
    return [f"{kind} {name} of {stage} is {now}, evidence.json says {then}" for name, (now, then) in pairs.items()]


def _input_links(chain: Chain) -> Iterator[Link]:
    """Each input that names an output of an earlier stage must equal it."""
    outputs: dict[str, str] = {}
    for step in chain.steps:
        for name, digest in step.inputs.items():
            if "." not in name or name.startswith("source "):
                continue
            made = outputs.get(name)
            problem = (
                "" if made == digest else f"the input is {_short_digest(digest)}, but {name} is {_short_digest(made)}"
            )
            yield Link(f"{name} → {step.stage}", _short_digest(digest), problem)
        outputs |= {f"{step.stage}.{name}": digest for name, digest in step.outputs.items()}


def _base_model_link(paths: EvidencePaths, chain: Chain) -> Link:
    """Checks the pretrained model's weights where the folder that the adapter names is on this machine."""
    step = chain.step("model")
    if step is None or paths.checkpoint is None or not is_adapter(paths.checkpoint):
        return Link("base model", "not checked: the checkpoint names no base model")
    try:
        folder = Path(str(adapter_config(paths.checkpoint).get("base_model_name_or_path") or "."))
        if not any(folder.glob("*.safetensors")):
            return Link("base model", f"not checked: {folder} is not on this machine")
        found = weights_sha256(folder)
    except HarnessError as error:
        return Link("base model", broken=str(error))
    problem = (
        "" if found == step.outputs["weights"] else f"the weights in {folder} are not the ones that were trained on"
    )
    return Link("base model", _short_digest(found), problem)


def _comparison_link(paths: EvidencePaths) -> Link:
    """compare.json must follow from the samples of both evaluations."""
    try:
        recorded = load(Comparison, paths.decision / COMPARISON)
    except DataError as error:
        return Link("comparison recomputed", broken=str(error))
    try:
        again = comparison_of(paths, recorded, read_policy(paths.decision))
    except (DataError, EvidenceFault) as error:
        if recorded.faults and not recorded.metrics:
            return Link("comparison recomputed", "the evidence cannot be compared, as compare.json says")
        return Link("comparison recomputed", broken=str(error))
    problem = "; ".join(_differences(recorded, again))
    return Link("comparison recomputed", f"{len(recorded.metrics)} metrics follow from the samples", problem)


def comparison_of(paths: EvidencePaths, recorded: Comparison, policy: GateConfig) -> Comparison:
    """The comparison computed again from the evaluations and the training data; labels are taken from `recorded`.

    Raises EvidenceFault where a further baseline was compared with another candidate, or its evaluation is not in the
    chain.
    """
    baseline, candidate = (read_evidence(folder, policy.fields) for folder in (paths.baseline, paths.candidate))
    candidate = replace(candidate, label=recorded.candidate.label)
    further = {other.baseline.label: _further_evidence(paths, other, candidate, policy) for other in recorded.others}
    comparison = compare_all(replace(baseline, label=recorded.baseline.label), candidate, further, policy)
    gaps = contamination_gaps(paths.data, candidate) if paths.data is not None else []
    return comparison.model_copy(update={"faults": [*comparison.faults, *gaps], "same": recorded.same})


def _further_evidence(paths: EvidencePaths, recorded: Comparison, candidate: Evidence, policy: GateConfig) -> Evidence:
    """The evaluation of the further baseline in a recorded comparison."""
    label = recorded.baseline.label
    if recorded.candidate.evidence_sha256 != candidate.sha256:
        raise EvidenceFault(f"the baseline {label} was compared with another candidate")
    folder = dict(paths.further).get(label)
    if folder is None:
        raise EvidenceFault(f"the evaluation of the baseline {label} is not in the chain")
    return read_evidence(folder, policy.fields)


def _verdict_link(paths: EvidencePaths) -> Link:
    """verdict.json must follow from compare.json and the policy."""
    name = "verdict recomputed"
    try:
        problem = "; ".join(decision_mismatches(paths.decision))
        recorded = load(Verdict, paths.decision / VERDICT)
    except HarnessError as error:
        return Link(name, broken=str(error))
    return Link(name, f"{recorded.verdict} follows from compare.json and {POLICY}", problem)


def verdict_mismatches(verdict: Verdict, folder: Path) -> list[str]:
    """Why a verdict does not belong to the compare.json beside it, as sentences; empty when it does."""
    path = folder / COMPARISON
    if path.is_file() and sha256_file(path) == verdict.compare_sha256:
        return []
    return [f"{folder / VERDICT} does not belong to the {COMPARISON} beside it: one is from another run, or was edited"]


def decision_mismatches(decision: Path) -> list[str]:
    """The fields of verdict.json that do not follow from the compare.json and policy.json beside it, as sentences.

    Raises EvidenceFault when the policy is missing or damaged, DataError when a record is.
    """
    recorded = load(Verdict, decision / VERDICT)
    comparison = load(Comparison, decision / COMPARISON)
    try:
        again = decide(read_policy(decision), comparison, recorded.decided_on)
    except (ValueError, ArithmeticError, LookupError, TypeError) as error:  # counts that cannot be
        raise EvidenceFault(f"{decision / COMPARISON} is damaged: no verdict follows from it ({error})") from None
    return _differences(recorded, again.model_copy(update={"compare_sha256": sha256_file(decision / COMPARISON)}))


def read_policy(decision: Path) -> GateConfig:
    """The policy behind a verdict; raises EvidenceFault when policy.json is missing or damaged."""
    import json

    path = decision / POLICY
    try:
        return validate(GateConfig, json.loads(path.read_text()))
    except (OSError, ValueError, RecursionError, ConfigError) as error:
        raise EvidenceFault(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def _differences(recorded: Record, again: Record) -> list[str]:
    """The fields that differ by more than rounding, by their path; at most five."""
    return [f"{place}: {old!r} is recorded, but {new!r} follows" for place, old, new in _unequal(recorded, again)][:5]


def _unequal(recorded: Any, again: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(recorded, Record) and isinstance(again, Record):
        recorded, again = recorded.model_dump(), again.model_dump()
    if isinstance(recorded, dict) and isinstance(again, dict):
        for key in {**recorded, **again}:
            yield from _unequal(recorded.get(key), again.get(key), f"{place}.{key}" if place else str(key))
    elif isinstance(recorded, list) and isinstance(again, list) and len(recorded) == len(again):
        for index, (left, right) in enumerate(zip(recorded, again, strict=True)):
            yield from _unequal(left, right, f"{place}[{index}]")
    elif isinstance(recorded, float) and isinstance(again, float):
        if not math.isclose(recorded, again, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            yield place, recorded, again
    elif recorded != again:
        yield place, recorded, again


def _short_digest(digest: str | None) -> str:
    return digest[:12] if digest else "missing"
