import math

import pytest
from report_views import METRICS, make_verdict, metric

from harness.records.gate import MetricVerdict
from harness.report import wording


def changed(**update: object) -> MetricVerdict:
    return METRICS[0].model_copy(update=update)


@pytest.mark.parametrize(
    ("value", "text"), [(-0.021, "-2.1 pp"), (0.0, "+0.0 pp"), (-0.0001, "+0.0 pp"), (1.0, "+100.0 pp")]
)
def test_differences_of_shares_are_percentage_points(value: float, text: str) -> None:
    assert wording.difference_text(METRICS[0], value) == text


def test_other_scales_keep_their_unit() -> None:
    words = METRICS[-1]
    assert wording.value_text(words, words.baseline) == "-84.2"
    assert wording.difference_text(words, words.delta) == "-6.83"


def test_a_value_that_is_no_number_says_so() -> None:
    assert wording.value_text(changed(baseline=math.nan), math.nan) == "not a number"
    assert wording.interval_text(changed(ci_low=-math.inf)) == "[unknown, +2.6]"


def test_limits_read_by_role() -> None:
    target = metric("s/t/m", "target", "PASS", (0.5, 0.6, 0.05, 0.15), margin=0.03, floor=0.55)
    assert wording.limit_text(target) == "improve by 3.0 pp, floor 55.0%"
    assert wording.limit_text(METRICS[0]) == "margin 2.0 pp"
    assert wording.limit_text(METRICS[-1]) == "–"


def test_slices_are_named_and_the_worst_comes_first() -> None:
    assert wording.metric_name(changed(slice="age>65")) == "smoke/arith/exact_match [age>65]"
    order = [m.verdict for m in wording.worst_first(make_verdict(METRICS, "FAIL", []))]
    assert order == ["FAIL", "INCONCLUSIVE", "PASS", "PASS", "PASS"]
    assert wording.worst_first(make_verdict(METRICS, "FAIL", []))[-1].role == "info"
