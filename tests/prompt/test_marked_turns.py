"""A turn that is marked as not to be learned stays in the conversation and gets no loss."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config.data import SourceConfig
from harness.data.formats import LeftOut, rows_of
from harness.data.row import exchanges, joined_exchanges
from harness.prompt.messages import row_messages
from harness.workflows.compose import config_for

SOURCE = SourceConfig(path="rows.jsonl", licence="MIT")
TURNS = [
    {"role": "user", "content": "Which bus?"},
    {"role": "assistant", "content": "Go away."},
    {"role": "user", "content": "Please."},
    {"role": "assistant", "content": "Line 14."},
]


def marked(number: int, **mark: object) -> dict[str, object]:
    return {"messages": [{**turn, **(mark if n == number else {})} for n, turn in enumerate(TURNS)]}


@pytest.mark.parametrize(
    "mark", [{"weight": 0}, {"train": False}, {"training": False}, {"loss": False}, {"masked": True}]
)
def test_a_marked_answer_is_carried_as_marked(mark: dict[str, object]) -> None:
    rows = rows_of(marked(1, **mark), SOURCE)
    assert isinstance(rows, list)
    turns: list[Any] = [m.get("train") for m in row_messages(rows[0])]
    assert turns == [None, False, None, None]
    again = joined_exchanges(rows[0], exchanges(rows[0]))
    assert again["messages"] == rows[0]["messages"]


def test_a_loss_mask_by_turn_and_by_answer() -> None:
    for mask in ([0, 0, 0, 1], [0, 1]):
        rows = rows_of({"messages": TURNS, "loss_mask": mask}, SOURCE)
        assert isinstance(rows, list)
        assert [m.get("train") for m in json.loads(rows[0]["messages"])] == [None, False, None, None]


def test_all_answers_marked_leave() -> None:
    assert isinstance(rows_of({"messages": TURNS, "loss_mask": [0, 0]}, SOURCE), LeftOut)
    assert isinstance(rows_of({"prompt": "a", "completion": "b", "label": False}, SOURCE), LeftOut)
    assert isinstance(rows_of({"prompt": "a", "rejected": "b"}, SOURCE), LeftOut)


def test_a_mask_of_another_length_is_malformed() -> None:
    assert "loss_mask has 3 entries" in str(rows_of({"messages": TURNS, "loss_mask": [1, 1, 1]}, SOURCE))


@pytest.mark.integration
def test_no_loss_is_taken_on_it(tiny_base: Path) -> None:
    from harness.model.load import load_tokenizer
    from harness.prompt.make import make_contract
    from harness.prompt.render import Renderer

    config = config_for(["experiment=finance_disclaimer", "model=pretrained", f"model.path={tiny_base}"])
    tokenizer = load_tokenizer(tiny_base)
    renderer = Renderer(make_contract(config.template, tokenizer), tokenizer)
    rows = rows_of(marked(1, weight=0), SOURCE)
    assert isinstance(rows, list)
    whole, part = renderer.training(TURNS), renderer.training(row_messages(rows[0]))
    assert part.ids == whole.ids
    learned = renderer.decode([token for token, on in zip(part.ids, part.mask, strict=True) if on])
    assert "Line 14." in learned
    assert "Go away." not in learned
    assert sum(part.mask) < sum(whole.mask)
