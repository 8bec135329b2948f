"""Rows that do not fit are reported, never cut; the loss is where it was requested."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from harness.config.train import TrainConfig
from harness.core.errors import DataError
from harness.model.load import load_tokenizer
from harness.prompt.make import make_contract
from harness.prompt.render import Renderer
from harness.train.prepare import Prepared, long_rows_messages, prepare

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def renderer(tiny_base: Path) -> Renderer:
    tokenizer = load_tokenizer(tiny_base)
    return Renderer(make_contract(tiny.config(tiny_base).template, tokenizer), tokenizer)


def talk(exchanges: int, words: int = 20, system: str | None = None) -> dict[str, Any]:
    turns = [{"role": "system", "content": system}] if system else []
    for number in range(exchanges):
        turns.append({"role": "user", "content": f"Question {number}? " + "why " * words})
        turns.append({"role": "assistant", "content": f"Answer {number}."})
    return {**tiny.rows(1)[0], "id": f"talk-{exchanges}", "messages": json.dumps(turns)}


def lone(words: int) -> dict[str, Any]:
    return {**tiny.rows(1)[0], "id": f"lone-{words}", "output": "word " * words}


def prepared(renderer: Renderer, rows: list[dict[str, Any]], **settings: Any) -> Prepared:
    return prepare(renderer, rows, TrainConfig(sequence_length=256, **settings))


def test_an_error_names_the_rows_and_the_policies(renderer: Renderer) -> None:
    with pytest.raises(DataError, match=r"^1 row over 256 tokens: lone-400 \(\d+\).*too_long=drop or split"):
        prepared(renderer, [lone(5), lone(400)])


def test_dropped_rows_are_counted_and_named(renderer: Renderer) -> None:
    found = prepared(renderer, [lone(5), lone(400), lone(500)], too_long="drop")
    assert [row["id"] for row in found.rows] == ["lone-5"]
    assert list(found.long.dropped) == ["lone-400", "lone-500"]
    assert all(size > 256 for size in found.long.dropped.values())
    assert list(long_rows_messages(found.long)) == ["dropped 2 rows over 256 tokens: lone-400, lone-500"]


@pytest.mark.parametrize("system", [None, "You help."])
def test_a_split_loses_no_turn_and_fits(renderer: Renderer, system: str | None) -> None:
    whole = talk(9, system=system)
    found = prepared(renderer, [whole, lone(500)], too_long="split")
    parts = [json.loads(row["messages"]) for row in found.rows]
    assert found.long.split == {"talk-9": len(parts)}
    assert len(parts) > 1
    assert list(found.long.dropped) == ["lone-500"]  # one exchange cannot be split
    assert [row["id"] for row in found.rows] == [f"talk-9#{n + 1}" for n in range(len(parts))]
    assert all(len(r.ids) <= 256 and any(r.mask) for r in found.rendered)
    assert [[t for t in part if t["role"] == "system"] for part in parts] == [
        [{"role": "system", "content": system}] if system else []
    ] * len(parts)
    turns = [turn for part in parts for turn in part if turn["role"] != "system"]
    assert turns == [turn for turn in json.loads(whole["messages"]) if turn["role"] != "system"]


def test_a_split_keeps_the_loss_on_the_last_answer_alone(renderer: Renderer) -> None:
    found = prepared(renderer, [talk(9)], too_long="split", train_on="last")
    (row,), (rendered,) = found.rows, found.rendered
    turns = json.loads(row["messages"])
    assert turns == json.loads(talk(9)["messages"])[-len(turns) :]
    taken = [i for i, on in zip(rendered.ids, rendered.mask, strict=True) if on]
    assert renderer.decode(taken) == f"Answer 8.{renderer.contract.end_of_turn}"
    assert found.long.split == {"talk-9": 1}


def test_rows_of_two_sources_with_one_id_are_two(renderer: Renderer) -> None:
    found = prepared(renderer, [lone(5), lone(400), {**lone(400), "source": "other"}], too_long="drop")
    assert list(found.long.dropped) == ["lone-400", "other/lone-400"]


def test_nothing_left_is_an_error(renderer: Renderer) -> None:
    with pytest.raises(DataError, match="no row fits into 256 tokens"):
        prepared(renderer, [lone(500)], too_long="drop")


def test_last_takes_the_loss_on_the_last_answer_alone(renderer: Renderer) -> None:
    row = talk(3, words=2)
    (every,) = prepared(renderer, [row]).rendered
    (last,) = prepared(renderer, [row], train_on="last").rendered
    end = renderer.contract.end_of_turn

    def answers(mask: list[bool]) -> str:
        return renderer.decode([i for i, on in zip(every.ids, mask, strict=True) if on])

    assert answers(every.mask) == f"Answer 0.{end}Answer 1.{end}Answer 2.{end}"
    assert answers(last.mask) == f"Answer 2.{end}"
    assert last.ids == every.ids
