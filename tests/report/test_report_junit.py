from pathlib import Path

import pytest
from junitparser import Error, Failure, JUnitXml, TestCase
from report_views import HOSTILE, METRICS, make_verdict

from harness.records.gate import Verdict, VerdictName
from harness.report.formats import write_junit


def written(verdict: Verdict, path: Path) -> tuple[JUnitXml, dict[str, TestCase]]:
    write_junit(verdict, path)
    xml = JUnitXml.fromfile(str(path))
    return xml, {case.name: case for suite in xml for case in suite}


def test_one_case_a_metric(tmp_path: Path) -> None:
    xml, cases = written(make_verdict(METRICS, "FAIL", ["dropped"]), tmp_path / "junit.xml")
    (suite,) = list(xml)
    assert (suite.tests, suite.failures, suite.errors) == (5, 2, 0)
    (failed,) = cases["smoke/knowledge/acc"].result
    assert isinstance(failed, Failure)
    assert failed.message == "dropped by 6.1 points, more than the 2.0 allowed"
    (undecided,) = cases["smoke/reading/f1"].result
    assert isinstance(undecided, Failure)
    assert undecided.type == "inconclusive"
    assert cases["smoke/disclaimer/recall"].is_passed
    assert {case.classname for case in cases.values()} == {"clinical"}


def test_information_passes_whatever_it_says(tmp_path: Path) -> None:
    metric = METRICS[-1].model_copy(update={"verdict": "FAIL"})
    _, cases = written(make_verdict([METRICS[0], metric], "PASS", []), tmp_path / "junit.xml")
    assert cases["smoke/reading/words"].is_passed
    assert "evidence" not in cases


def test_an_invalid_metric_is_an_error(tmp_path: Path) -> None:
    metric = METRICS[0].model_copy(update={"verdict": "INVALID"})
    _, cases = written(make_verdict([metric], "INVALID", ["half of the answers are missing"]), tmp_path / "junit.xml")
    assert isinstance(cases["smoke/arith/exact_match"].result[0], Error)
    assert list(cases) == ["smoke/arith/exact_match"]


def test_no_metrics_leave_the_evidence(tmp_path: Path) -> None:
    xml, cases = written(make_verdict([], "INVALID", ["contracts differ", "no samples"]), tmp_path / "junit.xml")
    (error,) = cases["evidence"].result
    assert isinstance(error, Error)
    assert error.message == "contracts differ; no samples"
    (suite,) = list(xml)
    assert (suite.tests, suite.errors) == (1, 1)


@pytest.mark.parametrize("name", ["FAIL", "INCONCLUSIVE", "INVALID"])
def test_a_file_without_failures_means_pass(name: VerdictName, tmp_path: Path) -> None:
    """Metrics that all pass under a verdict that does not: the reason must still turn the job red."""
    _, cases = written(make_verdict([METRICS[0]], name, ["no target was tested"]), tmp_path / "junit.xml")
    assert not cases["evidence"].is_passed


def test_hostile_text_parses_back(tmp_path: Path) -> None:
    metric = METRICS[1].model_copy(update={"task": HOSTILE, "reason": f"{HOSTILE}\ud800"})
    _, cases = written(make_verdict([metric], "FAIL", [HOSTILE]), tmp_path / "junit.xml")
    ((name, case),) = cases.items()
    assert "<script>alert(1)</script>" in name
    assert "<script>alert(1)</script>" in case.result[0].message


def test_what_is_waived_is_skipped_and_the_waiver_has_a_case(tmp_path: Path) -> None:
    waived = METRICS[3].model_copy(update={"waived": "small suite"})
    verdict = make_verdict([METRICS[0], waived], "PASS", []).model_copy(
        update={"notes": ["waiver 'small suite': July"]}
    )
    xml, cases = written(verdict, tmp_path / "junit.xml")
    (suite,) = list(xml)
    assert (suite.failures, suite.errors, suite.skipped) == (0, 0, 2)
    assert cases["note 1"].result[0].message == "waiver 'small suite': July"


def test_slices_for_show_are_no_cases_and_two_rules_on_one_metric_are_two(tmp_path: Path) -> None:
    shown = METRICS[-1].model_copy(update={"slice": "age>65"})
    target = METRICS[0].model_copy(update={"role": "target"})
    _, cases = written(make_verdict([METRICS[0], target, shown], "PASS", []), tmp_path / "junit.xml")
    assert sorted(cases) == ["smoke/arith/exact_match (guard)", "smoke/arith/exact_match (target)"]
