"""Flips beyond chance, relative drop and the summary over a suite."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import ttest_1samp

from harness.stats.checks import FloatArray
from harness.stats.forgetting import chance_adjusted_flips, relative_drop, suite_summary


def answers(both: int, b: int, c: int, neither: int) -> tuple[FloatArray, FloatArray]:
    counts = [both, b, c, neither]
    return np.repeat([1.0, 1.0, 0.0, 0.0], counts), np.repeat([1.0, 0.0, 1.0, 0.0], counts)


def flips(b: int, c: int, n: int) -> FloatArray:
    return np.repeat([-1.0, 1.0, 0.0], [b, c, n - b - c])


def test_guessing_alone_is_no_forgetting() -> None:
    """1,600 items unknown to both models, four choices: 300 flip each way by chance and 900 stay wrong."""
    adjusted = chance_adjusted_flips(300, 300, 900, 1600, choices=4)
    assert adjusted.forgetting == adjusted.transfer == 0
    assert adjusted.forgetting_low == 0
    assert adjusted.forgetting_high < 0.05


def test_what_was_known_is_recovered() -> None:
    """1,000 items kept, 400 forgotten, 160 learned, 640 unknown to both; expected cells of the response model."""
    b, c, wrong = 400 * 0.75 + 640 * 3 / 16, 160 * 0.75 + 640 * 3 / 16, 640 * 9 / 16
    adjusted = chance_adjusted_flips(int(b), int(c), int(wrong), 2200, choices=4)
    assert adjusted.forgetting == pytest.approx(400 / 2200)
    assert adjusted.transfer == pytest.approx(160 / 2200)
    assert adjusted.forgetting_low < 400 / 2200 < adjusted.forgetting_high


def test_many_choices_leave_the_raw_flips() -> None:
    adjusted = chance_adjusted_flips(50, 20, 400, 1000, choices=100_000)
    assert (adjusted.forgetting, adjusted.transfer) == pytest.approx((0.05, 0.02), abs=1e-4)


@pytest.mark.parametrize(("choices", "forgotten", "unknown"), [(2, 0.05, 0.3), (4, 0.1, 0.4), (5, 0.02, 0.1)])
def test_interval_of_forgetting_covers_the_truth(choices: int, forgotten: float, unknown: float) -> None:
    generator, guess = np.random.default_rng(1), 1 / choices
    lost = forgotten * (1 - guess) + unknown * guess * (1 - guess)
    cells = [lost, unknown * guess * (1 - guess), unknown * (1 - guess) ** 2]
    drawn = generator.multinomial(400, [*cells, 1 - sum(cells)], size=2000)
    adjusted = [chance_adjusted_flips(b, c, wrong, 400, choices) for b, c, wrong, _ in drawn.tolist()]
    covered = np.mean([a.forgetting_low <= forgotten <= a.forgetting_high for a in adjusted])
    assert 0.93 <= covered <= 0.975


@pytest.mark.parametrize("counts", [(3, 3, 5, 10, 4), (1, 1, 1, 10, 1), (0, 0, 0, 0, 4), (-1, 0, 0, 5, 4)])
def test_impossible_flips_are_refused(counts: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"need n >= 1|whole number"):
        chance_adjusted_flips(*counts)


def test_relative_drop_of_published_counts() -> None:
    """Cavo et al. 2012 (59, 16, 6, 80): ratio 0.8667; Tang's score limits by R's contingencytables 0.7476, 0.9876."""
    found = relative_drop(*answers(59, 16, 6, 80))
    assert found is not None
    assert 1 - found.drop == pytest.approx(0.8667, abs=5e-5)
    assert 1 - found.high == pytest.approx(0.7476, abs=0.01)
    assert 1 - found.low == pytest.approx(0.9876, abs=0.01)


def test_relative_drop_inverts_the_t_test() -> None:
    baseline, candidate = answers(120, 30, 12, 38)

    def excess(ratio: float) -> float:
        return float(ttest_1samp(candidate - ratio * baseline, 0).pvalue) - 0.1

    found = relative_drop(baseline, candidate, 0.9)
    assert found is not None
    assert 1 - found.high == pytest.approx(brentq(excess, 0.5, 1 - found.drop - 1e-9))
    assert 1 - found.low == pytest.approx(brentq(excess, 1 - found.drop + 1e-9, 1.3))


def test_relative_drop_from_little_or_nothing() -> None:
    assert relative_drop(np.zeros(20), np.ones(20)) is None
    baseline, candidate = answers(0, 1, 2, 37)
    found = relative_drop(baseline, candidate)
    assert found is not None
    assert (found.drop, found.low, found.high) == (-1.0, -math.inf, 1.0)
    with pytest.raises(ValueError, match="non-negative"):
        relative_drop(-np.ones(3), np.ones(3))


def test_suite_summary_names_the_worst_and_counts_falls() -> None:
    found = suite_summary([flips(10, 12, 500), flips(60, 10, 500), flips(20, 19, 500)], 0.95, seed=0)
    assert (found.tasks, found.worst_index, found.fell, found.fell_low, found.fell_high) == (3, 1, 2, 1, 3)
    assert found.worst == pytest.approx(-0.1)
    assert found.worst_low < -0.1 < found.worst_high < 0
    assert found.mean == pytest.approx((0.004 - 0.1 - 0.002) / 3)
    assert found.mean_low < found.mean < found.mean_high


def test_suite_summary_covers_the_truth() -> None:
    """Ten tasks, two of which truly fell by 8 points: worst and count are covered together in 95% of suites."""
    generator, covered = np.random.default_rng(2), []
    truth = np.array([-0.08, -0.08, *[0.0] * 8])
    for _ in range(400):
        drawn = [generator.multinomial(300, [(0.2 - d) / 2, (0.2 + d) / 2, 0.8])[:2] for d in truth]
        found = suite_summary([flips(int(b), int(c), 300) for b, c in drawn], 0.95, seed=0)
        worst = found.worst_low <= -0.08 <= found.worst_high
        covered.append(
            (worst and found.fell_low <= 2 <= found.fell_high, found.mean_low <= truth.mean() <= found.mean_high)
        )
    held, mean = np.mean(covered, axis=0)
    assert held >= 0.93
    assert 0.92 <= mean <= 0.98


def test_suite_summary_takes_scores_too_and_refuses_nothing() -> None:
    found = suite_summary([np.random.default_rng(3).normal(-0.1, 0.2, 300), flips(0, 0, 100)], 0.95, seed=0)
    assert found.worst_index == 0
    assert found.worst_high < 0
    with pytest.raises(ValueError, match="at least one task"):
        suite_summary([], 0.95, seed=0)
