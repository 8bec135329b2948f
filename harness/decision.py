"""Evaluations → comparison → verdict, with its files: for a run, and for evaluations that are named by hand."""

import shutil
from pathlib import Path

from harness.compose import gate_values
from harness.config import GateConfig, validate
from harness.errors import EvidenceFault
from harness.evaluate.checkpoint import resolve_evaluation
from harness.gate.comparison import compare
from harness.gate.coverage import data_of, uncovered
from harness.gate.evidence import read_evidence
from harness.gate.verdict import decide
from harness.records import Comparison, Side, Verdict
from harness.report.write import write_report


def write_verdict(policy: GateConfig, comparison: Comparison, out: Path) -> Verdict:
    verdict = decide(policy, comparison)
    out.mkdir(parents=True, exist_ok=True)
    comparison.save(out / "compare.json")
    verdict.save(out / "verdict.json")
    return verdict


def compare_evaluations(baseline: str, candidate: str, runs: Path) -> Comparison:
    """The comparison of two evaluations by name or folder.

    Where the candidate's training data are known, items they were not checked against are among its faults.
    """
    sides = [resolve_evaluation(name, runs) for name in (baseline, candidate)]
    evidence = [read_evidence(folder) for folder in sides]
    comparison = compare(*evidence)
    data = data_of(sides[1], evidence[1], runs)
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
    report = write_report(out)
    for name in ("summary.md", "junit.xml"):
        shutil.copy(report.parent / name, out / name)
    return verdict, report


def unusable(baseline: str, candidate: str, fault: str) -> Comparison:
    """A comparison that could not be made: its verdict is INVALID."""
    sides = [Side(label=name, weights_sha256="", contract_sha256="") for name in (baseline, candidate)]
    return Comparison(baseline=sides[0], candidate=sides[1], metrics=[], flips=[], faults=[fault])
