"""A verdict as JUnit XML: one test case a metric, so CI systems list what failed."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from harness.records import MetricVerdict, Verdict, VerdictName
from harness.report.wording import metric_name, one_line, worst_first

Outcome = VerdictName | Literal["WAIVED"]


def write_junit(verdict: Verdict, path: Path) -> None:
    """FAIL is a failure, INCONCLUSIVE a failure of that type, INVALID an error; information always passes.

    What is waived, and notes such as the waiver itself, are skipped cases with their text.
    A verdict that no metric explains gets a case `evidence`, so a file without failures means PASS.
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
    xml.write(str(path), pretty=True)


def _decided(metric: MetricVerdict) -> Outcome:
    if metric.waived is not None:
        return "WAIVED"
    return "PASS" if metric.role == "info" else metric.verdict


def _case(name: str, policy: str, outcome: Outcome, reason: str) -> Any:
    from junitparser import Error, Failure, Skipped, TestCase

    case = TestCase(one_line(name), classname=one_line(policy))
    if outcome == "INVALID":
        case.result = [Error(one_line(reason), "invalid")]
    elif outcome == "WAIVED":
        case.result = [Skipped(one_line(reason), "waived")]
    elif outcome != "PASS":
        case.result = [Failure(one_line(reason), outcome.lower())]
    return case
