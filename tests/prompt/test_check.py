"""The parity check names the token and the likely cause, and misses no difference."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import PromptMismatch
from harness.prompt.check import first_difference, likely_cause, require_equal

EXPECTED = [1, *range(100, 120)]
IDS = st.lists(st.integers(0, 50), max_size=40)


def decode(ids: list[int]) -> str:
    return " ".join(f"t{token}" for token in ids)


def message(expected: list[int], fed: list[int]) -> str:
    with pytest.raises(PromptMismatch) as caught:
        require_equal(expected, fed, decode, "item 7 of task general_smoke")
    return str(caught.value)


@pytest.mark.parametrize(
    ("fed", "position", "cause"),
    [
        ([1, *EXPECTED], 1, "adds a BOS"),
        (EXPECTED[1:], 0, "drops the BOS"),
        ([1, 900, 901, 902, *EXPECTED[1:]], 1, "system message in front"),
        (EXPECTED[:12], 12, "ends early"),
        ([*EXPECTED, 7, 8], len(EXPECTED), "appends tokens"),
        ([*EXPECTED[:9], 999, *EXPECTED[10:]], 9, "another chat template"),
        ([], 0, "ends early"),
    ],
)
def test_difference_is_shown_with_its_cause(fed: list[int], position: int, cause: str) -> None:
    text = message(EXPECTED, fed)
    assert f"First difference at token {position} (lengths: training {len(EXPECTED)}, server {len(fed)})" in text
    assert cause in text
    assert "item 7 of task general_smoke" in text


def test_the_window_is_decoded_and_five_tokens_wide() -> None:
    text = message(EXPECTED, [*EXPECTED[:9], 999, *EXPECTED[10:]])
    training, server = (line for line in text.splitlines() if line.startswith("  "))
    assert "[108 't108']" in training
    assert "[999 't999']" in server
    for line in (training, server):
        assert "103 't103'" in line
        assert "113 't113'" in line
        assert "t102" not in line
        assert "t114" not in line


def test_a_server_that_was_fed_nothing() -> None:
    assert "(nothing)" in message(EXPECTED, [])


def test_a_system_message_before_a_prompt_without_bos() -> None:
    assert "system message" in likely_cause(EXPECTED[1:], [900, 901, 902, *EXPECTED[1:]])


@given(IDS)
def test_equal_ids_pass(ids: list[int]) -> None:
    require_equal(ids, tuple(ids), decode, "anywhere")


@given(IDS.filter(bool), st.data())
def test_any_single_change_is_found_where_it_is(ids: list[int], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(ids) - 1))
    kind = data.draw(st.sampled_from(["replace", "drop", "insert"]))
    new = data.draw(st.integers(51, 60))
    fed = ids[:index] + ([] if kind == "drop" else [new]) + ids[index + (kind != "insert") :]
    if kind == "drop":
        # Dropping one of several equal tokens shows where the row of them ends.
        while index + 1 < len(ids) and ids[index + 1] == ids[index]:
            index += 1
    assert first_difference(ids, fed) == index
    assert f"First difference at token {index} " in message(ids, fed)


@given(IDS, IDS)
def test_it_raises_exactly_for_different_ids(left: list[int], right: list[int]) -> None:
    if left == right:
        require_equal(left, right, decode, "anywhere")
        return
    with pytest.raises(PromptMismatch):
        require_equal(left, right, decode, "anywhere")
