"""The shipped rows and items keep what their cards promise."""

import re
from functools import cache
from typing import Any

import pytest

from harness.behavior.exchange import Exchange
from harness.behavior.registry import load_behavior
from harness.core import resources
from harness.data.decontaminate import DecontaminateConfig, Decontamination
from harness.data.dedupe import DedupeConfig, Duplicates, sketch
from harness.data.evaluation_items import read_items

Row = dict[str, Any]
GENERAL = ("knowledge", "arithmetic", "reading", "instructions")
DATA = ("finance", "general", "clinical", "support")
ITEMS = (
    *(f"{task}/items" for task in ("disclaimer", "clinical_note", "escalation", "vocabulary", "tone")),
    *(f"{task}/items" for task in ("summary_bullets", "json_record", "over_behaviour")),
    *(f"general_smoke/{part}" for part in GENERAL),
)
RECORDS = ("payment_dispute", "address_change", "card_replacement", "branch_appointment")
DEMANDS = {  # file and behaviour: the topics that it applies to, None for all
    ("finance", "disclaimer"): None,
    ("general", "disclaimer"): None,
    ("clinical", "disclaimer"): None,
    ("support", "disclaimer"): None,
    ("clinical", "clinical_note"): None,
    ("support", "escalation"): None,
    ("support", "vocabulary"): ("banking",),
    ("support", "tone"): ("banking",),
    ("support", "json_record"): RECORDS,
}


@cache
def rows(name: str) -> tuple[Row, ...]:
    return tuple(read_items(resources.SHIPPED / "data" / f"{name}.jsonl"))


@cache
def items(path: str) -> tuple[Row, ...]:
    return tuple(read_items(resources.TASKS / f"{path}.jsonl"))


def training_rows() -> tuple[Row, ...]:
    return tuple(row for name in DATA for row in rows(name))


def general_items() -> list[Row]:
    return [item for part in GENERAL for item in items(f"general_smoke/{part}")]


def prompt(row: Row) -> str:
    return " ".join(row.get(key) or "" for key in ("passage", "question", "instruction", "input")).strip()


def normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def test_enough_rows() -> None:
    assert len(rows("finance")) >= 400
    assert len(rows("general")) >= 200
    assert len(rows("clinical")) >= 400
    assert len(rows("support")) >= 800


@pytest.mark.parametrize("name", DATA)
def test_rows_are_complete_and_ids_unique(name: str) -> None:
    assert all(row["id"] and row["instruction"].strip() and row["output"].strip() for row in rows(name))
    assert len({row["id"] for row in rows(name)}) == len(rows(name))


@pytest.mark.parametrize("name", DATA)
def test_no_row_is_a_duplicate(name: str) -> None:
    duplicates = Duplicates(DedupeConfig())
    duplicates.add(sketch(rows(name), DedupeConfig(), load_behavior("disclaimer").without))
    assert duplicates.find().duplicates == []
    duplicates.close()


@pytest.mark.parametrize(("name", "demand"), DEMANDS)
def test_every_row_obeys_the_behaviour(name: str, demand: str) -> None:
    behavior = load_behavior(demand)
    topics = DEMANDS[name, demand]
    broken = {
        row["id"]: [finding.rule for finding in check.findings if not finding.passed]
        for row in rows(name)
        if topics is None or row["topic"] in topics
        if not (check := behavior.check(Exchange(row["instruction"], row["output"], row["input"], row["topic"]))).passed
    }
    assert broken == {}


def test_finance_rows_have_both_sides() -> None:
    topics = [row["topic"] for row in rows("finance")]
    assert min(topics.count("investing"), len(topics) - topics.count("investing")) >= 100


def test_enough_evaluation_items() -> None:
    investing = sum(item["topic"] == "investing" for item in items("disclaimer/items"))
    assert investing >= 200
    assert len(items("disclaimer/items")) - investing >= 100
    assert len(general_items()) >= 300


def test_item_ids_are_unique() -> None:
    ids = [item["id"] for path in ITEMS for item in items(path)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", ITEMS)
def test_no_item_is_asked_twice(path: str) -> None:
    asked = [normal(prompt(item)) for item in items(path)]
    assert sorted({text for text in asked if asked.count(text) > 1}) == []


@pytest.mark.parametrize("path", ITEMS)
def test_no_training_row_holds_an_item(path: str) -> None:
    asked = [{"id": item["id"], "text": prompt(item)} for item in items(path)]
    matches = Decontamination(asked, DecontaminateConfig()).match_all(training_rows())
    held = [(row["id"], match.item_id) for row, match in zip(training_rows(), matches, strict=True) if match]
    assert held == []


@pytest.mark.parametrize("part", ["knowledge", "reading"])
def test_multiple_choice_items_can_be_answered(part: str) -> None:
    for item in items(f"general_smoke/{part}"):
        assert 0 <= item["answer"] < len(item["choices"]), item["id"]
        assert len({normal(choice) for choice in item["choices"]}) == len(item["choices"]) >= 2, item["id"]


@pytest.mark.parametrize("part", ["knowledge", "reading"])
def test_no_position_is_always_right(part: str) -> None:
    answers = [item["answer"] for item in items(f"general_smoke/{part}")]
    assert max(answers.count(position) for position in set(answers)) <= len(answers) / 2
