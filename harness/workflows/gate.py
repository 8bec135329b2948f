"""Evaluations → comparison → verdict, with its files: for a run, and for evaluations that are named by hand."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from harness.checkpoint.resolve import CANDIDATE, resolve_evaluation
from harness.config.experiment import validate
from harness.config.gate import GateConfig
from harness.core.errors import DataError, EvidenceFault, UsageError
from harness.core.redact import command_without_secrets
from harness.core.store import sha256_file, write_json
from harness.gate.comparison import compare_distinct
from harness.gate.verdict import decide
from harness.lineage.chain import EVIDENCE, POLICY
from harness.lineage.coverage import data_of, uncovered
from harness.lineage.write import places_of, write_evidence
from harness.model.load import weights_sha256
from harness.records.base import load
from harness.records.gate import Comparison, Side, Verdict
from harness.records.stages import Evaluation
from harness.report.markdown import comparison_markdown
from harness.report.write import copy_outputs, write_report
from harness.results.evidence import FIELDS, Evidence, read_evidence, read_sides
from harness.workflows.compose import gate_values


def write_verdict(policy: GateConfig, comparison: Comparison, out: Path) -> Verdict:
    """compare.json and verdict.json; the verdict holds the digest of the comparison it was reached on."""
    out.mkdir(parents=True, exist_ok=True)
    comparison.save(out / "compare.json")
    digest = sha256_file(out / "compare.json")
    verdict = decide(policy, comparison).model_copy(update={"compare_sha256": digest})
    verdict.save(out / "verdict.json")
    write_json(out / POLICY, policy.model_dump(mode="json"))
    return verdict


def write_comparison(policy: GateConfig | None, comparison: Comparison, out: Path) -> None:
    """compare.json and summary.md; with a policy its verdict and report too."""
    if policy is not None:
        write_verdict(policy, comparison, out)
        write_report(out)
        copy_outputs(out)
        return
    out.mkdir(parents=True, exist_ok=True)
    comparison.save(out / "compare.json")
    (out / "summary.md").write_text(comparison_markdown(comparison), encoding="utf-8")


def policy_named(name: str) -> GateConfig:
    """The policy of a name under conf/gate, or of a path; raises ConfigError that lists its faults."""
    return validate(GateConfig, gate_values(name))


def compare_evaluations(
    baseline: str, candidate: str, runs: Path, policy: GateConfig | None = None, anchors: Sequence[str] = ()
) -> Comparison:
    """The comparison of two evaluations by name or folder, and with the policy's further baselines and `anchors`.

    Where the candidate's training data are known, items they were not checked against are among its faults.
    """
    sides = [resolve_evaluation(name, runs) for name in (baseline, candidate)]
    for folder in sides:
        _require_run_weights(folder)
    names = (baseline, candidate)
    return compare_folders(sides, names, runs, lambda found: data_of(sides[1], found, runs), policy, anchors)


def compare_folders(
    sides: Sequence[Path],
    names: tuple[str, str],
    runs: Path,
    data_for: Callable[[Evidence], Path | None],
    policy: GateConfig | None = None,
    anchors: Sequence[str] = (),
    further: Mapping[str, Path] = MappingProxyType({}),
) -> Comparison:
    """The comparison of two evaluation folders; `names` tell the sides apart where both have one label.

    `data_for` finds what the candidate was trained on, where that is known; `further` are evaluations of the policy's
    further baselines, where others are meant than those that their names lead to.
    """
    fields = policy.fields if policy else FIELDS
    before, after = read_sides((sides[0], sides[1]), fields)
    if before.label == after.label:
        before, after = (replace(e, label=Path(name).name) for e, name in zip((before, after), names, strict=True))
    comparison = compare_all(before, after, runs, policy, anchors, further)
    data = data_for(after)
    faults = uncovered(data, after) if data else []
    return comparison.model_copy(update={"faults": [*comparison.faults, *faults]})


def compare_all(
    baseline: Evidence,
    candidate: Evidence,
    runs: Path,
    policy: GateConfig | None = None,
    anchors: Sequence[str] = (),
    further: Mapping[str, Path] = MappingProxyType({}),
) -> Comparison:
    """Candidate against baseline, and against every further baseline that differs from it."""
    comparison = compare_distinct(baseline, candidate, policy)
    others, same = [], []
    for name in dict.fromkeys([*(policy.baselines if policy else []), *anchors]):
        folder = further.get(name) or baseline_folder(name, runs)
        _require_run_weights(folder)
        other = read_evidence(folder, policy.fields if policy else FIELDS)
        if other.sha256 == baseline.sha256:
            same.append(name)
        else:
            found = compare_distinct(replace(other, label=name), candidate, policy)
            others.append(found.model_copy(update={"flips": []}))
    return comparison.model_copy(update={"others": others, "same": same})


def baseline_folder(name: str, runs: Path) -> Path:
    """The evaluation of a further baseline; raises UsageError that tells how to set it where there is none."""
    try:
        return resolve_evaluation(name, runs)
    except UsageError as error:
        told = f"the further baseline '{name}' has no evaluation: {error}"
        if Path(name).name == name:
            told += f" An alias is set once by: harness promote RUN --alias {name}"
        raise UsageError(told) from None


def _require_run_weights(folder: Path) -> None:
    """Raises EvidenceFault when a run's candidate was evaluated with other weights than the run holds now."""
    run = folder.parent.parent
    if folder.parent.name != "eval" or folder.name != CANDIDATE or not any(run.glob("checkpoint/*.safetensors")):
        return
    try:
        evaluated = load(Evaluation, folder / "evaluation.json").weights_sha256
    except DataError as error:
        raise EvidenceFault(f"{folder / 'evaluation.json'} is damaged: {error}") from None
    if weights_sha256(run / "checkpoint") != evaluated:
        raise EvidenceFault(f"{run}: the weights in checkpoint/ are not the ones that eval/{CANDIDATE} was made with")


def gate_evaluations(
    baseline: str, candidate: str, policy: str, out: Path | None, runs: Path, anchors: Sequence[str] = ()
) -> tuple[Verdict, Path | None]:
    """The verdict on two evaluations; with `out`, its files and report are written there."""
    gate = policy_named(policy)
    try:
        comparison = compare_evaluations(baseline, candidate, runs, gate, anchors)
    except EvidenceFault as fault:
        comparison = unusable(baseline, candidate, str(fault))
    if out is None:
        return decide(gate, comparison), None
    verdict = write_verdict(gate, comparison, out)
    _keep_evidence(baseline, candidate, out, runs)
    report = write_report(out)
    copy_outputs(out)
    return verdict, report


def _keep_evidence(baseline: str, candidate: str, out: Path, runs: Path) -> None:
    """evidence.json beside the verdict; none where a side cannot be read (the verdict is INVALID and says why)."""
    (out / EVIDENCE).unlink(missing_ok=True)
    try:
        left, right = (resolve_evaluation(name, runs) for name in (baseline, candidate))
    except EvidenceFault:
        return
    command = command_without_secrets(shlex.join(["harness", "gate", baseline, candidate, "--out", str(out)]))
    write_evidence(places_of(out, left, right, runs), out.resolve().name, command, runs)


def unusable(baseline: str, candidate: str, fault: str) -> Comparison:
    """A comparison that could not be made: its verdict is INVALID."""
    sides = [Side(label=name, weights_sha256="", contract_sha256="") for name in (baseline, candidate)]
    return Comparison(baseline=sides[0], candidate=sides[1], metrics=[], flips=[], faults=[fault])
