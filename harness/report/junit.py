"""A verdict as JUnit XML: one test case a metric, so CI systems list what failed."""

from pathlib import Path
from typing import Any

from harness.records import MetricVerdict, Verdict, VerdictName
from harness.report.wording import metric_name, one_line, worst_first


def write_junit(verdict: Verdict, path: Path) -> None:
    """FAIL is a failure, INCONCLUSIVE a failure of that type, INVALID an error; information always passes.

    A verdict that no metric explains gets a case `evidence`, so a file without failures means PASS.
    """
    from junitparser import JUnitXml, TestSuite

    suite = TestSuite(f"gate {one_line(verdict.policy)}")
    for metric in worst_first(verdict):
        suite.add_testcase(_case(metric_name(metric), verdict.policy, _decided(metric), metric.reason))
    if all(_decided(metric) == "PASS" for metric in verdict.metrics) and verdict.verdict != "PASS":
        suite.add_testcase(_case("evidence", verdict.policy, verdict.verdict, "; ".join(verdict.reasons)))
    xml = JUnitXml(f"{one_line(verdict.baseline.label)} → {one_line(verdict.candidate.label)}")
    xml.add_testsuite(suite)
    xml.write(str(path), pretty=True)


def _decided(metric: MetricVerdict) -> VerdictName:
    return "PASS" if metric.role == "info" else metric.verdict


def _case(name: str, policy: str, outcome: VerdictName, reason: str) -> Any:
    from junitparser import Error, Failure, TestCase

    case = TestCase(one_line(name), classname=one_line(policy))
    if outcome == "INVALID":
        case.result = [Error(one_line(reason), "invalid")]
    elif outcome != "PASS":
        case.result = [Failure(one_line(reason), outcome.lower())]
    return case
