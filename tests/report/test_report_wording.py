import math

import pytest
from report_views import METRICS, make_verdict, metric

from harness.records.gate import Forgetting, MetricVerdict, Relative
from harness.report import wording


def changed(**update: object) -> MetricVerdict:
    return METRICS[0].model_copy(update=update)


@pytest.mark.parametrize(
    ("value", "text"), [(-0.021, "-2.1 points"), (0.0, "+0.0 points"), (-0.0001, "+0.0 points"), (1.0, "+100.0 points")]
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
    assert wording.limit_text(target) == "improve by 3.0 points, floor 55.0%"
    assert wording.limit_text(METRICS[0]) == "margin 2.0 points"
    assert wording.limit_text(METRICS[-1]) == "–"


def test_slices_are_named_and_the_worst_comes_first() -> None:
    assert wording.metric_name(changed(slice="age>65")) == "smoke/arith/exact_match [age>65]"
    order = [m.verdict for m in wording.worst_first(make_verdict(METRICS, "FAIL", []))]
    assert order == ["FAIL", "INCONCLUSIVE", "PASS", "PASS", "PASS"]
    assert wording.worst_first(make_verdict(METRICS, "FAIL", []))[-1].role == "info"


LOST = Forgetting(
    tasks=4, worst="quiz/acc", worst_delta=0.033, worst_low=-0.021, worst_high=0.06, mean=0.05, mean_low=0.012,
    mean_high=0.088, fell=0, fell_low=0, fell_high=4,
)  # fmt: skip


@pytest.mark.parametrize(
    ("fell", "low", "high", "text"),
    [
        (0, 0, 4, "4 tasks: no task scored lower; up to 4 of 4 could still have lost ability (95%)."),
        (0, 0, 0, "4 tasks: no task scored lower; none lost ability (95%)."),
        (2, 0, 3, "4 tasks: 2 of 4 tasks scored lower; up to 3 of 4 could have lost ability (95%)."),
        (2, 1, 3, "4 tasks: 2 of 4 tasks scored lower; 1 to 3 of 4 lost ability (95%)."),
        (2, 2, 2, "4 tasks: 2 of 4 tasks scored lower; 2 of 4 lost ability (95%)."),
    ],
)
def test_forgetting_says_how_many_tasks_lost_ability(fell: int, low: int, high: int, text: str) -> None:
    lost = LOST.model_copy(update={"fell": fell, "fell_low": low, "fell_high": high})
    assert wording.forgetting_text(lost).startswith(f"Forgetting over {text}")


@pytest.mark.parametrize(("worst", "text"), [(0.033, "Smallest change"), (-0.033, "Largest fall")])
def test_forgetting_does_not_call_a_gain_a_loss(worst: float, text: str) -> None:
    sentence = wording.forgetting_text(LOST.model_copy(update={"worst_delta": worst}))
    assert f"{text}: quiz/acc {100 * worst:+.1f} points [-2.1, +6.0]. Mean: +5.0 points [+1.2, +8.8]." in sentence


@pytest.mark.parametrize(
    ("drop", "text"),
    [
        (Relative(drop=-0.282, low=-0.389, high=-0.187), "relative change +28.2% [+18.7%, +38.9%]"),
        (Relative(drop=0.031, low=0.004, high=0.056), "relative change -3.1% [-5.6%, -0.4%]"),
        (Relative(drop=0.5, low=None, high=1.0), "relative change -50.0% [-100.0%, –]"),
    ],
)
def test_a_relative_change_has_the_sign_of_the_change(drop: Relative, text: str) -> None:
    assert wording.extras_text(changed(relative_drop=drop)) == text
