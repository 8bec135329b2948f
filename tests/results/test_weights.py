"""Groups that weigh their tasks equally: the estimate is lm-eval's own, and the tests are on it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_folders import Folder, answers, compare_both, guard, policy, samples
from lm_eval.api.metrics import aggregate_subtask_metrics, unweighted_mean_stderr

from harness.config.gate import GateConfig
from harness.gate.verdict import decide
from harness.records.base import load
from harness.records.gate import Comparison, MetricComparison
from harness.records.stages import Evaluation, TaskScore
from harness.results.evidence import read_evidence

SIZES = {"small": 40, "large": 400}
GROUP = {"all": ["small", "large"]}


def folder(right: dict[str, int], label: str, first: int = 0) -> Folder:
    tasks = {task: samples(answers(right[task], of, first)) for task, of in SIZES.items()}
    return Folder(tasks, groups=GROUP, label=label)


def reported(right: dict[str, int], equally: bool) -> float:
    means = [right[task] / of for task, of in SIZES.items()]
    return float(aggregate_subtask_metrics(means, list(SIZES.values()), weight_by_size=not equally))


def compared(
    path: Path,
    before: dict[str, int],
    after: dict[str, int],
    equally: tuple[bool, bool] = (True, True),
    gate: GateConfig | None = None,
) -> Comparison:
    """Two lm-eval output folders whose results tell the group's mean."""
    sides = []
    for right, weighing, label in ((before, equally[0], "base"), (after, equally[1], "mine")):
        groups = {"all": {"acc,none": reported(right, weighing), "alias": "all"}}
        written = folder(right, label).write_lm_eval(path / label, groups=groups)
        sides.append(read_evidence(written))
    return compare_both(sides, gate)


def of_group(comparison: Comparison) -> MetricComparison:
    return next(metric for metric in comparison.metrics if metric.task == "all")


BEFORE, AFTER = {"small": 36, "large": 300}, {"small": 28, "large": 304}


@pytest.mark.parametrize("equally", [True, False])
def test_a_group_is_weighed_as_its_reported_mean(tmp_path: Path, equally: bool) -> None:
    metric = of_group(compared(tmp_path, BEFORE, AFTER, (equally, equally)))
    assert metric.baseline == pytest.approx(reported(BEFORE, equally))
    assert metric.candidate == pytest.approx(reported(AFTER, equally))
    assert metric.delta == pytest.approx(reported(AFTER, equally) - reported(BEFORE, equally))
    assert metric.equal_weights == equally


def test_the_interval_has_the_standard_error_of_lm_evals_unweighted_mean(tmp_path: Path) -> None:
    metric = of_group(compared(tmp_path, BEFORE, AFTER))
    d = [np.repeat([-1.0, 0.0], [8, 32]), np.repeat([1.0, 0.0], [4, 396])]
    error = float(unweighted_mean_stderr([one.std(ddof=1) / np.sqrt(len(one)) for one in d]))
    assert metric.ci_high + metric.ci_low == pytest.approx(2 * metric.delta)
    assert 1.96 * error < metric.ci_high - metric.delta < 2.1 * error


def test_a_small_task_that_collapses_fails_its_group_only_where_tasks_count_the_same(tmp_path: Path) -> None:
    gate = policy(guard("*/all/acc"))
    collapsed = {"small": 8, "large": 300}
    equally = decide(gate, compared(tmp_path / "equally", BEFORE, collapsed, gate=gate))
    by_size = decide(gate, compared(tmp_path / "size", BEFORE, collapsed, (False, False), gate=gate))
    assert equally.verdict == "FAIL"
    assert "fell by 35.0 points" in equally.reasons[0]
    assert "fell by 6.4 points" in by_size.reasons[0]


def test_an_equal_model_passes_with_enough_items(tmp_path: Path) -> None:
    gate = policy(guard("*/all/acc", margin="10 points"))
    comparison = compared(tmp_path, BEFORE, {"small": 36, "large": 301}, gate=gate)
    assert decide(gate, comparison).verdict == "PASS"


def test_few_items_of_a_task_that_counts_much_never_pass_a_narrow_margin(tmp_path: Path) -> None:
    """40 items without a flip rule nothing out below 2 × 2 points of their task."""
    gate = policy(guard("*/all/acc", margin="2 points"))
    assert decide(gate, compared(tmp_path, BEFORE, {"small": 36, "large": 301}, gate=gate)).verdict == "INCONCLUSIVE"


def test_a_better_model_passes_in_a_group_of_many_sizes(tmp_path: Path) -> None:
    """Of these sizes the shares of unseen failures add up to just under 1."""
    rights: dict[str, tuple[int, int]] = {f"t{n}": (n // 2, n) for n in (51, 40, 33, 19, 21, 7, 9)}
    sides = []
    for label, more in (("base", 0), ("mine", 2)):
        tasks = {task: samples(answers(right + more, n)) for task, (right, n) in rights.items()}
        mean = float(np.mean([(right + more) / n for right, n in rights.values()]))
        written = Folder(tasks, groups={"all": list(tasks)}, label=label).write_lm_eval(
            tmp_path / label, groups={"all": {"acc,none": mean, "alias": "all"}}
        )
        sides.append(read_evidence(written))
    gate = policy(guard("*/all/acc", margin="10 points"))
    comparison = compare_both(sides, gate)
    assert of_group(comparison).equal_weights
    assert decide(gate, comparison).verdict == "PASS"


def test_sides_that_weigh_a_group_differently_are_invalid(tmp_path: Path) -> None:
    comparison = compared(tmp_path, BEFORE, AFTER, (True, False))
    assert any("group all: acc weighs tasks by size on one side" in fault for fault in comparison.faults)


def test_our_own_evaluations_tell_it_by_their_scores(tmp_path: Path) -> None:
    sides: list[Any] = []
    for right, label in ((BEFORE, "base"), (AFTER, "mine")):
        written = folder(right, label).write(tmp_path / label)
        record = written / "evaluation.json"
        score = TaskScore(task="all", metric="acc", value=reported(right, True), stderr=None, n=440)
        found = load(Evaluation, record)
        found.model_copy(update={"scores": [*found.scores, score]}).save(record)
        sides.append(read_evidence(written))
    assert of_group(compare_both(sides)).delta == pytest.approx(reported(AFTER, True) - reported(BEFORE, True))
