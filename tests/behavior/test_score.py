"""harness score: saved answers graded with a task's own checks, and every fault of the file in one message."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.core.resources import TASKS
from harness.data.evaluation_items import read_items

ITEMS = read_items(TASKS / "json_record" / "items.jsonl")


def answer(item: dict[str, Any], response: str | None = None) -> dict[str, Any]:
    right = item["details"]["record"]
    return {"id": item["id"], "prompt": item["instruction"], "response": right if response is None else response}


def sample(item: dict[str, Any], response: str) -> dict[str, Any]:
    return {
        "doc_id": 0,
        "doc": item,
        "arguments": {"gen_args_0": {"arg_0": "<|im_start|>user"}},
        "resps": [[response]],
        "filtered_resps": [response],
        "metrics": ["valid"],
    }


def write(folder: Path, rows: list[Any]) -> str:
    path = folder / "answers.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_every_answer_gets_its_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, [answer(ITEMS[0]), answer(ITEMS[1], "Sure! Here is your record."), answer(ITEMS[2], "{}")])
    assert main(["score", "json_record", path, "--out", str(tmp_path / "made" / "graded.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "made" / "graded.jsonl").read_text().splitlines()]
    assert [(row["id"], row["pass"]) for row in rows] == [(i["id"], n == 0) for n, i in enumerate(ITEMS[:3])]
    assert all(set(rule) == {"rule", "pass", "expected", "found"} for row in rows for rule in row["rules"])
    broken = {rule["rule"] for rule in rows[1]["rules"] if not rule["pass"]}
    assert broken == {"only_json", "schema", "fields"}
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"3 answers to {len(ITEMS)} items: 1 pass, 2 fail (33.3% pass)")
    assert "only_json 2/3" in last
    assert last.endswith(f"; no answer to {', '.join(i['id'] for i in ITEMS[3:6])} and {len(ITEMS) - 6} more")


def test_samples_of_lm_eval_are_graded_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, [sample(ITEMS[0], ITEMS[0]["details"]["record"]), sample(ITEMS[1], "no")])
    assert main(["score", "json_record", path]) == 0
    assert "2 answers" in (out := capsys.readouterr().out)
    assert "1 pass, 1 fail" in out


def test_the_only_item_without_an_answer_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "json_record", write(tmp_path, [answer(item) for item in ITEMS[1:]])]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"; no answer to {ITEMS[0]['id']}")
    assert main(["score", "json_record", write(tmp_path, [answer(item) for item in ITEMS])]) == 0
    assert "no answer" not in capsys.readouterr().out


def test_all_faults_of_the_file_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        answer(ITEMS[0]),
        {"id": "jsn-002"},
        answer(ITEMS[1]) | {"id": "nobody"},
        "{",
        answer(ITEMS[0]),
        answer(ITEMS[2]) | {"prompt": "Something else."},
        answer(ITEMS[3]) | {"response": None},
        [],
    ]
    assert main(["score", "json_record", write(tmp_path, rows)]) == 2
    told = capsys.readouterr().err
    for fault in (
        "7 errors",
        "line 2: missing prompt, response",
        "line 3: the task has no item 'nobody'",
        "line 4 is not JSON",
        "line 5: item jsn-001 already has an answer in line 1",
        "line 6: the prompt does not contain the instruction",
        "line 7: response must be text",
        "line 8 is not a JSON object",
    ):
        assert fault in told
    assert "Traceback" not in told


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_without_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (tmp_path / "answers.jsonl").write_text(content)
    assert main(["score", "json_record", str(tmp_path / "answers.jsonl")]) == 2
    assert "holds no answers" in capsys.readouterr().err


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "json_record", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl does not exist" in capsys.readouterr().err
    (tmp_path / "answers.jsonl").write_bytes(b"\xff\xfe")
    assert main(["score", "json_record", str(tmp_path / "answers.jsonl")]) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_an_unknown_task_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "json_recrod", write(tmp_path, [])]) == 2
    assert "Did you mean 'json_record'" in capsys.readouterr().err


def test_it_takes_no_overrides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "json_record", write(tmp_path, [answer(ITEMS[0])]), "suite=smoke"]) == 2
    assert "suite=smoke" in capsys.readouterr().err


def test_tables_are_graded_like_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Semicolons and capital headers, a column that is not read, line ends inside a cell; and the same in Excel."""
    import csv

    from openpyxl import Workbook

    rows = [answer(ITEMS[0]), answer(ITEMS[1], "Sure!\nHere is your record."), answer(ITEMS[2], "")]
    cells = [["ID", "Prompt", "Response", "Reviewer"], *([*row.values(), "A"] for row in rows)]
    with (tmp_path / "answers.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows(cells)
    book = Workbook()
    for line in cells:
        book.active.append(line)
    book.save(tmp_path / "answers.xlsx")
    graded = {}
    for name in ("answers.csv", "answers.xlsx", "answers.jsonl"):
        path = write(tmp_path, rows) if name.endswith("jsonl") else str(tmp_path / name)
        assert main(["score", "json_record", path, "--out", str(tmp_path / "graded.jsonl")]) == 0
        graded[name] = (tmp_path / "graded.jsonl").read_text()
        assert ("not read: reviewer" in capsys.readouterr().err) == (not name.endswith("jsonl"))
    assert len(set(graded.values())) == 1
    (tmp_path / "odd.csv").write_text("id,prompt\na,b\n")
    assert main(["score", "json_record", str(tmp_path / "odd.csv")]) == 2
    assert "line 2: missing response" in capsys.readouterr().err


def test_a_floor_and_the_words_that_decided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, [answer(ITEMS[0]), answer(ITEMS[1], "Sure! Here is your record.")])
    assert main(["score", "json_record", path, "--floor", "0.5"]) == 0
    assert main(["score", "json_record", path, "--floor", "0.51"]) == 10
    assert "1 of 2 answers pass (50.0%), fewer than --floor 0.51" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["score", "json_record", path, "--floor", "95"])
    assert stopped.value.code == 2
    assert "is not a number from 0 to 1" in capsys.readouterr().err
    assert main(["score", "json_record", path, "--explain"]) == 0
    printed = capsys.readouterr().out + capsys.readouterr().err
    assert f"{ITEMS[1]['id']}: fail" in printed
    assert "broken only_json: expected" in printed
