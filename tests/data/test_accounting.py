"""Mixtures of formats: every record is kept or left with a reason, and every key is read or named."""

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.cli import main
from harness.config.data import DataConfig, SourceConfig
from harness.core.errors import DataError, HarnessError
from harness.data.row import DataRow
from harness.data.sources import Malformed, find_sources, read_rows_of

WORDS = st.text("abcdefgh äöß-.", min_size=3, max_size=20).map(lambda text: f"w{text}w")
MARKED = st.sampled_from([{}, {}, {"weight": 0}, {"weight": 1}, {"train": False}, {"train": True}, {"masked": True}])
Record = tuple[dict[str, Any], list[tuple[str, bool]]]  # and its answers, each with whether it is to be learned


def learned(mark: dict[str, Any]) -> bool:
    return mark in ({}, {"weight": 1}, {"train": True})


@st.composite
def turns(draw: Any) -> tuple[list[dict[str, Any]], list[tuple[str, bool]]]:
    messages: list[dict[str, Any]] = []
    answers = []
    for _ in range(draw(st.integers(1, 3))):
        answer, mark = draw(WORDS), draw(MARKED)
        messages += [{"role": "user", "content": draw(WORDS)}, {"role": "assistant", "content": answer, **mark}]
        answers.append((answer, learned(mark)))
    return messages, answers


@st.composite
def records(draw: Any) -> Record:
    kind = draw(
        st.sampled_from(["triple", "history", "prompt", "question", "messages", "sharegpt", "kto", "dpo", "pair"])
    )
    asked, answer = draw(WORDS), draw(WORDS)
    one = [(answer, True)]
    if kind == "triple":
        return {"instruction": asked, "input": "", "output": answer}, one
    if kind == "history":
        before = draw(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=2))
        record = {"instruction": asked, "output": answer, "history": [list(pair) for pair in before]}
        return record, [*((said, True) for _, said in before), *one]
    if kind == "prompt":
        return {"prompt": asked, "response": answer}, one
    if kind == "question":
        return {"question": asked, "answer": answer}, one
    if kind == "kto":
        good = draw(st.booleans())
        return {"prompt": asked, "completion": answer, "label": good}, [(answer, good)]
    if kind == "dpo":
        return {"prompt": asked, "chosen": answer, "rejected": draw(WORDS)}, one
    if kind == "pair":
        return {"conversation": [{"input": asked, "output": answer}]}, one
    messages, answers = draw(turns())
    if kind == "messages":
        return {"messages": messages}, answers
    return {
        "conversations": [{**m, "role": {"user": "human", "assistant": "gpt"}[m["role"]]} for m in messages]
    }, answers


def read(path: Path) -> tuple[list[DataRow], list[Malformed], Counter[str]]:
    noted: Counter[str] = Counter()
    config = DataConfig(sources={"mine": SourceConfig(path=str(path), licence="CC0-1.0")})
    found = list(read_rows_of(find_sources(config)[0], noted))
    return [f for f in found if isinstance(f, dict)], [f for f in found if isinstance(f, Malformed)], noted


def answers_of(row: DataRow) -> list[tuple[str, bool]]:
    if not row.get("messages"):
        return [(row["output"], True)]
    messages = json.loads(row["messages"])
    return [(m["content"], m.get("train") is not False) for m in messages if m["role"] == "assistant"]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(records(), min_size=1, max_size=8), st.lists(st.sampled_from(["xx", "Ünread", "score2"]), max_size=8),
    st.sampled_from(["lines", "list", "wrapped"]),
)  # fmt: skip
def test_every_record_and_key_of_a_mixture_is_accounted_for(
    tmp_path: Path, mixture: list[Record], further: list[str], written: str
) -> None:
    given_records = []
    for number, (record, _) in enumerate(mixture):
        given_records.append({**record, **({further[number]: "odd"} if number < len(further) else {})})
    path = tmp_path / ("rows.jsonl" if written == "lines" else "rows.json")
    if written == "lines":
        path.write_text("".join(json.dumps(record) + "\n" for record in given_records), encoding="utf-8")
    else:
        path.write_text(json.dumps(given_records if written == "list" else {"data": given_records}), encoding="utf-8")

    rows, left, noted = read(path)

    wanted = [answers for _, answers in mixture if any(on for _, on in answers)]
    assert [answers_of(row) for row in rows] == wanted
    assert len(left) == len(mixture) - len(wanted)
    assert all(place.reason and place.left_out for place in left)
    kept = [n for n, (_, answers) in enumerate(mixture) if any(on for _, on in answers)]
    named = Counter(f"the key {further[n]!r}" for n in kept if n < len(further))
    assert {what: count for what, count in noted.items() if count} == named


LONG = 80_000


@pytest.mark.parametrize(
    "text",
    ["7" * LONG, "1-" * (LONG // 2), "12." * (LONG // 3), "MRN" + " " * LONG + "x", "a@" * (LONG // 2), "x" * LONG],
    ids=["digits", "dashes", "dots", "spaces", "at signs", "letters"],
)
def test_no_answer_takes_time_that_grows_with_its_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """A pattern that tries every start took 30 to 95 seconds on the first four."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"instruction": f"Which {n}?", "output": f"Here it is, number {n}: {part}."}
        for n, part in ((1, "short"), (2, text))
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(["audit", "--input", "rows.jsonl", "--out", "warm"])
    start = time.process_time()
    main(["audit", "--input", "rows.jsonl", "--out", "out"])
    assert time.process_time() - start < 10
    record = json.loads(Path("out/audit.json").read_text())
    assert record["sources"][0]["read"] == 2


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def _endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


@pytest.mark.parametrize("make", [_fifo, _device, _socket, _endless])
def test_what_is_not_a_file_of_rows_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "rows.jsonl")
    start = time.monotonic()
    with pytest.raises(DataError, match=r"pipe, a socket or a device|longer than 64 MiB"):
        read(tmp_path / "rows.jsonl")
    assert time.monotonic() - start < 10


def workbook(path: Path, *rows: list[Any]) -> Any:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return book


HEADER = ["instruction", "output", "id"]


def test_a_workbook_is_read_as_a_person_sees_it(tmp_path: Path) -> None:
    from datetime import datetime

    path = tmp_path / "rows.xlsx"
    workbook(path, HEADER, ["When?", datetime(2024, 5, 1), 1.0], ["How many?", 14.0, 2.0], [], ["Sum?", "=1+1", 3])
    rows, left, noted = read(path)
    assert [(row["id"], row["output"]) for row in rows] == [("1", "2024-05-01"), ("2", "14")]
    assert [(place.where, "B5 has a formula without a stored value" in place.reason) for place in left] == [
        ("row 5", True)
    ]
    assert "rows.xlsx: sheet 'Sheet' is read" in noted


def test_merged_cells_and_several_sheets_of_a_workbook_are_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    book = workbook(path, HEADER, ["Which?", "Tram 7."], ["When?", "At ten."], [None, "At six."])
    book.active.merge_cells("A3:A4")
    book.save(path)
    rows, left, _ = read(path)
    assert [row["output"] for row in rows] == ["Tram 7."]
    assert ["A3:A4" in place.reason for place in left] == [True, True]
    book.create_sheet("More").append(HEADER)
    book.save(path)
    with pytest.raises(HarnessError, match=r"2 sheets with rows .*csv\.sheet=Sheet"):
        read(path)


def test_a_file_that_only_claims_to_be_a_workbook_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    path = tmp_path / "rows.xlsx"
    path.write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match=r"rows\.xlsx is not a readable Excel workbook"):
        read(path)
