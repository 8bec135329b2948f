"""The graders are graded: labelled answers of every task, precision and recall of both verdicts."""

import re
from pathlib import Path

import pytest

from harness.behavior.grading import FILE, Grading, grading
from harness.behavior.registry import behavior_folders, load_behavior
from harness.core.resources import TASKS
from harness.data.evaluation_items import exchange, read_items

LABELLED = sorted(name for name, folder in behavior_folders().items() if (folder / FILE).is_file())
TARGET = 0.97


def graded(name: str) -> Grading:
    behavior = load_behavior(name)
    rows = read_items(TASKS / name / FILE)
    return grading(rows, lambda row: behavior.check(exchange(row, row["response"])))


@pytest.mark.parametrize("name", LABELLED)
def test_precision_and_recall_reach_the_target(name: str) -> None:
    result = graded(name)
    assert result.lowest >= TARGET, f"{result}\npassed wrongly: {result.missed}\nfailed wrongly: {result.accused}"


@pytest.mark.parametrize("name", LABELLED)
def test_the_labels_are_many_hard_and_of_both_kinds(name: str) -> None:
    rows = read_items(TASKS / name / FILE)
    assert len(rows) >= 120
    assert sum(row["hard"] for row in rows) >= len(rows) / 2
    assert 0.3 <= sum(row["pass"] for row in rows) / len(rows) <= 0.7
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(row["pass"] == (not row["broken"]) for row in rows)


@pytest.mark.parametrize("name", LABELLED)
def test_the_labelled_answers_are_kept_apart_from_the_items(name: str) -> None:
    items = {item["id"] for item in read_items(TASKS / name / "items.jsonl")}
    assert not items & {row["id"] for row in read_items(TASKS / name / FILE)}


@pytest.mark.parametrize("name", LABELLED)
def test_the_card_states_the_figures(name: str) -> None:
    result = graded(name)
    card = " ".join((TASKS / name / "README.md").read_text().split())
    for rate in (result.fail_precision, result.fail_recall, result.pass_precision, result.pass_recall):
        assert str(rate) in card


def test_counts_and_rates() -> None:
    from harness.behavior.exchange import Check, RuleFinding

    rows = [
        {"id": str(i), "pass": good, "hard": i == 0, "said": said}
        for i, (good, said) in enumerate([(True, True), (True, False), (False, False), (False, False), (False, True)])
    ]
    result = grading(rows, lambda row: Check([RuleFinding("r", row["said"], "", "")]))
    assert (result.rows, result.hard, result.missed, result.accused) == (5, 1, ["4"], ["1"])
    assert [r.value for r in (result.fail_precision, result.fail_recall)] == [pytest.approx(2 / 3)] * 2
    assert [r.value for r in (result.pass_precision, result.pass_recall)] == [0.5, 0.5]
    assert re.fullmatch(r"0\.667 \[0\.\d{3}, 0\.\d{3}\] \(2/3\)", str(result.fail_recall))


def test_paths_are_those_of_the_shipped_tasks() -> None:
    assert Path("labelled/answers.jsonl") == FILE
    assert LABELLED
