"""Nothing of a record is lost on its way to a row: context, input, system message; and nothing is made up."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config.data import SourceConfig
from harness.core.errors import DataError
from harness.data.files import read_records
from harness.data.formats import rows_of
from harness.data.licences import LicencePolicy, judge_licence

SOURCE = SourceConfig(path="rows.jsonl", licence="MIT")
SYSTEM = {"role": "system", "content": "Be kind."}


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    rows: Any = rows_of(record, SOURCE)
    assert not isinstance(rows, str), rows
    row: dict[str, Any] = rows[0]
    assert len(rows) == 1
    return row


@pytest.mark.parametrize(
    ("record", "given"),
    [
        ({"question": "Who?", "context": "Ann came.", "answer": "Ann"}, "Ann came."),
        ({"question": "Who?", "passage": "Ann came.", "answer": "Ann"}, "Ann came."),
        ({"prompt": "Who?", "input": "Ann came.", "output": "Ann"}, "Ann came."),
        ({"prompt": "Who?", "response": "Ann"}, ""),
    ],
)
def test_what_a_question_is_about_stays_with_it(record: dict[str, str], given: str) -> None:
    row = row_of(record)
    assert row["input"] == given


@pytest.mark.parametrize(
    "record",
    [
        {"system": "Be kind.", "prompt": "Who?", "response": "Ann"},
        {"system_prompt": "Be kind.", "question": "Who?", "answer": "Ann"},
        {"system": "Be kind.", "instruction": "Who?", "output": "Ann"},
        {"system": "Be kind.", "conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Ann"}]},
    ],
)
def test_a_system_message_is_trained_with(record: dict[str, object]) -> None:
    row = row_of(record)
    turns = json.loads(row["messages"])
    assert turns[0] == SYSTEM
    assert [turn["content"] for turn in turns[1:]] == ["Who?", "Ann"]


def test_ranks_that_are_no_numbers_come_last() -> None:
    replies = [
        {"role": "assistant", "text": "second", "rank": "0"},
        {"role": "assistant", "text": "first", "rank": 1},
    ]
    row = row_of({"prompt": {"role": "prompter", "text": "Who?", "replies": replies}})
    assert row["output"] == "first"


def test_a_second_list_in_a_file_is_not_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"instruction": "a", "output": "b"}]\n[{"instruction": "c", "output": "d"}]')
    with pytest.raises(DataError, match="its list of 1 row is followed by"):
        list(read_records(path, {"instruction", "output"}))


def test_a_header_in_another_case_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("Question,Answer\nWho?,Ann\n")
    (record,) = read_records(path, {"question", "answer"})
    assert record.values == {"question": "Who?", "answer": "Ann"}


@pytest.mark.parametrize(
    "licence", ["(MIT OR GPL-3.0) AND CC-BY-NC-4.0", "CC-BY-NC-4.0 AND (MIT OR Apache-2.0)", "CC-BY-NC-4.0 AND MIT"]
)
def test_no_combination_hides_a_forbidden_licence(licence: str) -> None:
    assert judge_licence(licence, LicencePolicy()).reason is not None
