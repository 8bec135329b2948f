"""Writes a verdict for CI systems: GitHub annotations, GitLab code quality, OpenMetrics, JUnit XML."""

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from harness.records.gate import MetricVerdict, Verdict, VerdictName
from harness.report import wording
from harness.report.wording import metric_name, one_line, worst_first

CaseOutcome = VerdictName | Literal["WAIVED"]
SHOWN = 10  # annotations of one kind that GitHub shows for a step
LEVELS = {"PASS": "notice", "FAIL": "error", "INCONCLUSIVE": "warning", "INVALID": "error"}
SEVERITIES = {"FAIL": "blocker", "INVALID": "critical", "INCONCLUSIVE": "major"}


def annotations(verdict: Verdict) -> str:
    """GitHub workflow commands, one per line: the verdict, what did not pass, then notes such as waivers."""
    level = LEVELS[verdict.verdict]
    lines = [_command(level, f"gate {verdict.verdict}", wording.SENTENCES[verdict.verdict])]
    failed = _not_passed(verdict)
    reasons = [(f"{m.verdict}: {wording.metric_name(m)}", LEVELS[m.verdict], m.reason) for m in failed]
    if not failed and verdict.verdict != "PASS":
        reasons = [("evidence", level, reason) for reason in verdict.reasons]
    lines += [_command(kind, title, text) for title, kind, text in reasons[: SHOWN - 1]]
    if len(reasons) >= SHOWN:
        lines.append(_command("notice", "gate", f"{len(reasons) - SHOWN + 1} more in the summary"))
    lines += [_command("warning", "note", note) for note in verdict.notes[:SHOWN]]
    return "\n".join(lines) + "\n"


def code_quality(verdict: Verdict) -> str:
    """GitLab's code quality report: one finding for each metric or reason that blocks; [] for PASS."""
    blocking = [(wording.metric_name(m), m.verdict, m.reason) for m in _not_passed(verdict)]
    if not blocking and verdict.verdict != "PASS":
        blocking = [("evidence", verdict.verdict, reason) for reason in verdict.reasons]
    findings = [
        {
            "description": wording.one_line(f"{outcome}: {reason}"),
            "check_name": f"gate {wording.one_line(verdict.policy)}",
            "fingerprint": hashlib.sha256(f"{verdict.policy}|{name}".encode("utf-8", "replace")).hexdigest(),
            "severity": SEVERITIES[outcome],
            "location": {"path": f"gate/{wording.one_line(name)}", "lines": {"begin": 1}},
        }
        for name, outcome, reason in blocking
    ]
    return json.dumps(findings, indent=2, ensure_ascii=False) + "\n"


def open_metrics(verdict: Verdict) -> str:
    """Gauges of the verdict and of every metric in the OpenMetrics text format, for GitLab's metrics report."""
    lines = ["# TYPE gate_exit_code gauge", f"gate_exit_code {verdict.exit_code}"]
    for name in ("baseline", "candidate", "delta"):
        lines.append(f"# TYPE gate_{name} gauge")
        for metric in verdict.metrics:
            value = getattr(metric, name)
            if math.isfinite(value):
                lines.append(f"gate_{name}{{{_labels(metric)}}} {value:.6g}")
    return "\n".join([*lines, "# EOF"]) + "\n"


def _not_passed(verdict: Verdict) -> list[MetricVerdict]:
    listed = wording.worst_first(verdict)
    return [m for m in listed if m.role != "info" and m.verdict != "PASS" and m.waived is None]


def _command(level: str, title: str, text: str) -> str:
    """A line `::level title=…::text`; what would end it or start another command is percent-encoded."""
    shown = wording.one_line(title).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={shown}::{wording.one_line(text).replace('%', '%25')}"


def _labels(metric: MetricVerdict) -> str:
    pairs = {"metric": f"{metric.suite}/{metric.task}/{metric.metric}", "slice": metric.slice, "role": metric.role}
    if metric.against is not None:
        pairs["against"] = metric.against
    escaped = (wording.one_line(text).replace("\\", "\\\\").replace('"', '\\"') for text in pairs.values())
    return ",".join(f'{name}="{text}"' for name, text in zip(pairs, escaped, strict=True))


def write_junit(verdict: Verdict, path: Path) -> None:
    """Writes JUnit XML with a case for each metric and note.

    FAIL and INCONCLUSIVE are failures of that type, INVALID is an error, and info metrics always pass. Waived metrics
    and notes are skipped cases with their text. A verdict that no metric explains gets a case `evidence`, so that a
    file without failures or errors means PASS.
    """
    from junitparser import JUnitXml, TestSuite

    suite = TestSuite(f"gate {one_line(verdict.policy)}")
    names = Counter(metric_name(metric) for metric in verdict.metrics)
    for metric in worst_first(verdict):
        name = metric_name(metric)
        unique = name if names[name] == 1 else f"{name} ({metric.role})"
        suite.add_testcase(_case(unique, verdict.policy, _decided(metric), metric.reason))
    if all(_decided(metric) in ("PASS", "WAIVED") for metric in verdict.metrics) and verdict.verdict != "PASS":
        suite.add_testcase(_case("evidence", verdict.policy, verdict.verdict, "; ".join(verdict.reasons)))
    for number, note in enumerate(verdict.notes, 1):
        suite.add_testcase(_case(f"note {number}", verdict.policy, "WAIVED", note))
    xml = JUnitXml(f"{one_line(verdict.baseline.label)} → {one_line(verdict.candidate.label)}")
    xml.add_testsuite(suite)
    path.unlink(missing_ok=True)  # a link in its place is not followed
    xml.write(str(path), pretty=True)


def _decided(metric: MetricVerdict) -> CaseOutcome:
    if metric.waived is not None:
        return "WAIVED"
    return "PASS" if metric.role == "info" else metric.verdict


def _case(name: str, policy: str, outcome: CaseOutcome, reason: str) -> Any:
    from junitparser import Error, Failure, Skipped, TestCase

    case = TestCase(one_line(name), classname=one_line(policy))
    if outcome == "INVALID":
        case.result = [Error(one_line(reason), "invalid")]
    elif outcome == "WAIVED":
        case.result = [Skipped(one_line(reason), "waived")]
    elif outcome != "PASS":
        case.result = [Failure(one_line(reason), outcome.lower())]
    return case
