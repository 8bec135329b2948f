"""What changes neither loss nor gradients is left out, and nothing else is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.prompt.render import Rendered
from harness.train.packing import IGNORED, join

ROWS = st.lists(
    st.tuples(st.lists(st.integers(1, 3), min_size=1, max_size=12), st.integers(0, 25)), min_size=1, max_size=5
)


def inputs_of(rows: list[Rendered]) -> dict[str, Any]:
    import torch

    packed = join(rows)
    return {
        "input_ids": torch.tensor([packed.input_ids]),
        "position_ids": torch.tensor([packed.position_ids]),
        "labels": torch.tensor([packed.labels]),
        "row": torch.tensor([[number for number, row in enumerate(rows) for _ in row.ids]]),
        "shard": torch.tensor(0),
    }


def rows_of(inputs: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """(ids, labels) of every row, what it shares put back in front."""
    ids, positions, labels, numbers = (inputs[n][0].tolist() for n in ("input_ids", "position_ids", "labels", "row"))
    found: list[tuple[list[int], list[int]]] = []
    for number in sorted(set(numbers)):
        places = [place for place, of in enumerate(numbers) if of == number]
        start = positions[places[0]]
        assert [positions[place] for place in places] == list(range(start, start + len(places)))
        root = found[0] if start else ([], [])
        found.append(([*root[0][:start], *(ids[p] for p in places)], [*root[1][:start], *(labels[p] for p in places)]))
    return found


@given(beginning=st.integers(0, 20), rows=ROWS)
def test_every_row_is_found_again_whole_with_all_its_labels(beginning: int, rows: list[Any]) -> None:
    from harness.train.cpu.unused_tokens import share_prompt

    rendered = [
        Rendered(ids := [7] * beginning + own, [t >= supervised for t in range(len(ids))]) for own, supervised in rows
    ]
    inputs = inputs_of(rendered)
    found = share_prompt(inputs)
    assert rows_of(found) == rows_of(inputs)
    assert (found["labels"] != IGNORED).sum() == (inputs["labels"] != IGNORED).sum()


@pytest.mark.parametrize(
    ("lengths", "supervised_from", "left_out"),
    [((30, 40), 25, 20), ((30, 40), 10, 9), ((30, 40), 8, 0), ((30,), 25, 0), ((12, 40), 30, 11)],
    ids=["prompt", "supervised", "too-little", "one-row", "a-whole-row-is-shared"],
)
def test_only_what_is_not_supervised_and_worth_it_is_shared(
    lengths: tuple[int, ...], supervised_from: int, left_out: int
) -> None:
    from harness.train.cpu.unused_tokens import share_prompt

    rendered = [
        Rendered(
            ids := [7] * min(20, length) + [number + 100] * (length - 20),
            [t >= supervised_from for t in range(len(ids))],
        )
        for number, length in enumerate(lengths)
    ]
    inputs = inputs_of(rendered)
    tokens = share_prompt(inputs)["input_ids"].shape[1]
    assert inputs["input_ids"].shape[1] - tokens == left_out * (len(lengths) - 1)
    assert share_prompt(inputs)["shard"] == 0


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=1, max_size=6))
def test_what_follows_the_last_label_of_a_row_is_left_out_and_nothing_else(masks: list[list[bool]]) -> None:
    from harness.train.cpu.unused_tokens import drop_tails

    inputs = inputs_of([Rendered(list(range(1, 1 + len(mask))), mask) for mask in masks])
    found = drop_tails(inputs)
    assert found["shard"] == 0
    wanted = []
    for number, mask in enumerate(masks):
        predicted = [place for place, supervised in enumerate(mask) if supervised]
        wanted += [(number, place) for place in range(max(predicted, default=0))]  # the one before predicts it
    if not wanted:
        assert found == inputs
        return
    assert list(zip(found["row"][0].tolist(), found["position_ids"][0].tolist(), strict=True)) == wanted
    assert [found["labels"][0].tolist().count(label) for label in range(1, 13)] == [
        inputs["labels"][0].tolist().count(label) for label in range(1, 13)
    ]
