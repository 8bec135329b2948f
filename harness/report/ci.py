"""A verdict for CI systems: GitHub annotations, GitLab code quality, metrics in OpenMetrics."""

import hashlib
import json
import math
from typing import Any

from harness.records import MetricVerdict, Verdict
from harness.report import wording

SHOWN = 10  # GitHub shows so many annotations of a kind for a step
LEVELS = {"PASS": "notice", "FAIL": "error", "INCONCLUSIVE": "warning", "INVALID": "error"}
SEVERITIES = {"FAIL": "blocker", "INVALID": "critical", "INCONCLUSIVE": "major"}


def annotations(verdict: Verdict) -> str:
    """Workflow commands, one line each: the verdict, then what did not pass, then notes such as waivers."""
    level = LEVELS[verdict.verdict]
    lines = [_command(level, f"gate {verdict.verdict}", wording.SENTENCES[verdict.verdict])]
    failed = _not_passed(verdict)
    reasons = [(f"{m.verdict}: {wording.metric_name(m)}", LEVELS[m.verdict], m.reason) for m in failed]
    if not failed and verdict.verdict != "PASS":
        reasons = [("evidence", level, reason) for reason in verdict.reasons]
    lines += [_command(kind, title, text) for title, kind, text in reasons[: SHOWN - 1]]
    if len(reasons) >= SHOWN:
        lines.append(_command("notice", "gate", f"{len(reasons) - SHOWN + 1} more are in the summary"))
    lines += [_command("warning", "note", note) for note in verdict.notes[:SHOWN]]
    return "\n".join(lines) + "\n"


def code_quality(verdict: Verdict) -> str:
    """GitLab's code quality report: one finding for every metric or reason that blocks; [] for PASS."""
    found = [(wording.metric_name(m), m.verdict, m.reason) for m in _not_passed(verdict)]
    if not found and verdict.verdict != "PASS":
        found = [("evidence", verdict.verdict, reason) for reason in verdict.reasons]
    return json.dumps([_finding(verdict.policy, *one) for one in found], indent=2, ensure_ascii=False) + "\n"


def open_metrics(verdict: Verdict) -> str:
    """Gauges of the verdict and of every metric, in the OpenMetrics text format that GitLab's metrics report reads."""
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
    """GitHub reads a line `::level title=…::text`; what would end it or start another is percent-encoded."""
    shown = wording.one_line(title).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={shown}::{wording.one_line(text).replace('%', '%25')}"


def _finding(policy: str, name: str, outcome: str, reason: str) -> dict[str, Any]:
    return {
        "description": wording.one_line(f"{outcome}: {reason}"),
        "check_name": f"gate {wording.one_line(policy)}",
        "fingerprint": hashlib.sha256(f"{policy}|{name}".encode("utf-8", "replace")).hexdigest(),
        "severity": SEVERITIES[outcome],
        "location": {"path": f"gate/{wording.one_line(name)}", "lines": {"begin": 1}},
    }


def _labels(metric: MetricVerdict) -> str:
    pairs = {"metric": f"{metric.suite}/{metric.task}/{metric.metric}", "slice": metric.slice, "role": metric.role}
    if metric.against is not None:
        pairs["against"] = metric.against
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs.items())


def _escaped(text: str) -> str:
    return wording.one_line(text).replace("\\", "\\\\").replace('"', '\\"')
