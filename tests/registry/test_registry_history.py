"""The history's chain: no edit of its text goes unseen, whatever it is."""

import json

from hypothesis import given
from hypothesis import strategies as st

from harness.checkpoint.history import HistoryEntry, before_current, current_of, demanded_of, read_lines

words = st.text(max_size=12)


def chained(whys: list[str]) -> list[HistoryEntry]:
    entries: list[HistoryEntry] = []
    for number, why in enumerate(whys, 1):
        previous = entries[-1].hash if entries else ""
        entries.append(act(number, "promote", f"model-{number}", why=why, previous=previous).sealed())
    return entries


def act(number: int, action: str, model: str, why: str = "", previous: str = "") -> HistoryEntry:
    values = {"number": number, "action": action, "alias": "production", "model": model, "run_id": model}
    values |= {"when": "2026-01-01T00:00:00+00:00", "who": "ada", "why": why, "previous": previous}
    return HistoryEntry.model_validate(
        values | {"digests": {"weights": model}, "policy": {"name": f"policy of {model}"}}
    )


def text_of(entries: list[HistoryEntry]) -> str:
    return "\n".join(json.dumps(entry.model_dump(), sort_keys=True) for entry in entries)


@given(st.lists(words, min_size=1, max_size=4))
def test_an_unedited_history_reads_back(whys: list[str]) -> None:
    entries = chained(whys)
    assert read_lines(text_of(entries).split("\n"), "here") == (entries, [])


@given(st.lists(words, min_size=1, max_size=4), st.data())
def test_any_other_character_shows(whys: list[str], data: st.DataObject) -> None:
    entries = chained(whys)
    text = text_of(entries)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda c: c != text[place]))
    found, faults = read_lines((text[:place] + other + text[place + 1 :]).split("\n"), "here")
    assert faults or found == entries, "an edit that says something else, and no fault"


@given(st.lists(words, min_size=2, max_size=5, unique=True), st.data())
def test_lines_in_another_order_or_number_show(whys: list[str], data: st.DataObject) -> None:
    lines = text_of(chained(whys)).split("\n")
    kept = data.draw(st.permutations(lines).filter(lambda order: list(order) != lines))
    assert read_lines(kept, "here")[1]
    assert read_lines(lines[1:], "here")[1]


def test_rollbacks_undo_promotions_one_by_one() -> None:
    history = [act(1, "promote", "a"), act(2, "promote", "b"), act(3, "promote", "c")]
    assert (before := before_current(history, "production")) is not None
    assert before.model == "b"
    history.append(act(4, "rollback", "b"))
    assert (before := before_current(history, "production")) is not None
    assert before.model == "a"
    history.append(act(5, "promote", "d"))
    assert (before := before_current(history, "production")) is not None
    assert before.model == "b"


def test_a_policy_act_moves_nothing() -> None:
    history = [act(1, "promote", "a"), act(2, "policy", "")]
    current = current_of(history, "production")
    assert current is not None
    assert current.model == "a"
    assert demanded_of(history, "production") == {"name": "policy of "}
    assert demanded_of(history, "staging") is None
