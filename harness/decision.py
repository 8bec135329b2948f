"""Evaluations → comparison → verdict, with its files: for a run, and for evaluations that are named by hand."""

import shutil
from dataclasses import replace
from pathlib import Path

from harness.compose import gate_values
from harness.config import GateConfig, validate
from harness.errors import EvidenceFault
from harness.evaluate.checkpoint import resolve_evaluation
from harness.gate.comparison import compare
from harness.gate.coverage import data_of, uncovered
from harness.gate.evidence import read_evidence
from harness.gate.verdict import decide
from harness.lineage.chain import EVIDENCE, POLICY
from harness.lineage.write import places_of, write_evidence
from harness.records import Comparison, Side, Verdict
from harness.report.write import write_report
from harness.store import write_json


def write_verdict(policy: GateConfig, comparison: Comparison, out: Path) -> Verdict:
    verdict = decide(policy, comparison)
    out.mkdir(parents=True, exist_ok=True)
    comparison.save(out / "compare.json")
    verdict.save(out / "verdict.json")
    write_json(out / POLICY, policy.model_dump())
    return verdict


def compare_evaluations(baseline: str, candidate: str, runs: Path) -> Comparison:
    """The comparison of two evaluations by name or folder.

    Where the candidate's training data are known, items they were not checked against are among its faults.
    """
    sides = [resolve_evaluation(name, runs) for name in (baseline, candidate)]
    data = data_of(sides[1], read_evidence(sides[1]), runs)
    return compare_folders(sides[0], sides[1], (baseline, candidate), data)


def compare_folders(baseline: Path, candidate: Path, names: tuple[str, str], data: Path | None) -> Comparison:
    """The comparison of two evaluation folders; `names` tell the sides apart where both have one label.

    `data` is what the candidate was trained on, where it is known.
    """
    evidence = [read_evidence(folder) for folder in (baseline, candidate)]
    if evidence[0].label == evidence[1].label:
        evidence = [replace(e, label=Path(name).name) for e, name in zip(evidence, names, strict=True)]
    comparison = compare(*evidence)
    faults = uncovered(data, evidence[1]) if data else []
    return comparison.model_copy(update={"faults": [*comparison.faults, *faults]})


def gate_evaluations(
    baseline: str, candidate: str, policy: str, out: Path | None, runs: Path
) -> tuple[Verdict, Path | None]:
    """The verdict on two evaluations; with `out`, its files and report are written there."""
    gate = validate(GateConfig, gate_values(policy))
    try:
        comparison = compare_evaluations(baseline, candidate, runs)
    except EvidenceFault as fault:
        comparison = unusable(baseline, candidate, str(fault))
    if out is None:
        return decide(gate, comparison), None
    verdict = write_verdict(gate, comparison, out)
    _keep_evidence(baseline, candidate, out, runs)
    report = write_report(out)
    for name in ("summary.md", "junit.xml"):
        shutil.copy(report.parent / name, out / name)
    return verdict, report


def _keep_evidence(baseline: str, candidate: str, out: Path, runs: Path) -> None:
    """evidence.json beside the verdict; none where a side cannot be read (the verdict is INVALID and says why)."""
    (out / EVIDENCE).unlink(missing_ok=True)
    try:
        left, right = (resolve_evaluation(name, runs) for name in (baseline, candidate))
    except EvidenceFault:
        return
    command = f"harness gate {baseline} {candidate} --out {out}"
    write_evidence(places_of(out, left, right, runs), out.resolve().name, command)


def unusable(baseline: str, candidate: str, fault: str) -> Comparison:
    """A comparison that could not be made: its verdict is INVALID."""
    sides = [Side(label=name, weights_sha256="", contract_sha256="") for name in (baseline, candidate)]
    return Comparison(baseline=sides[0], candidate=sides[1], metrics=[], flips=[], faults=[fault])
