"""A share of benchmarks/damaged_inputs.py: no command crashes, hangs, shouts, or takes changed evidence for sound."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CASES = 12
NAMES = [
    "audit_jsonl",
    "audit_messages",
    "audit_json",
    "audit_csv",
    "audit_tsv",
    "audit_gz",
    "audit_parquet",
    "gate_results",
    "gate_samples",
    "gate_evaluation",
    "gate_own_samples",
    "gate_policy",
    "verify_evidence",
    "verify_verdict",
    "verify_comparison",
    "verify_contract",
    "verify_evaluation",
    "verify_samples",
    "verify_audit",
    "verify_manifest",
    "report_verdict",
    "report_comparison",
    "score_answers",
    "score_behavior",
]


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_of_a_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    benchmark = importlib.import_module("damaged_inputs")
    found = benchmark.try_target(name, CASES, seed=3, keep=None, guided=False)
    assert found["wrong"] == {}
    assert found["cases"] == CASES
