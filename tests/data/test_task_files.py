"""Domain tasks with errors: all of them in one message, before anything is trained or served."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.behavior.registry import behavior_folders
from harness.cli import main
from harness.core.errors import ConfigError
from harness.data.evaluation_items import check_task_files, domain_items, require_unseen, task_errors
from harness.workflows.compose import config_for
from harness.workflows.run import check

GOOD = {
    "id": "own-1",
    "instruction": "May I moor here?",
    "input": "",
    "topic": "harbour",
    "slice": "plain",
    "details": {},
}
RULES = "kind: rules\nrules: [{name: polite, require: ['\\bplease\\b']}]\n"
RECORD = """\
kind: json_record
schemas:
  harbour: {type: object, required: [berth], properties: {berth: {type: integer}}}
"""


def make(folder: Path, behavior: str, items: list[dict[str, Any]] | str) -> Path:
    task = folder / "tasks" / "own"
    task.mkdir(parents=True)
    (task / "behavior.yaml").write_text(behavior)
    text = items if isinstance(items, str) else "".join(json.dumps(item) + "\n" for item in items)
    (task / "items.jsonl").write_text(text)
    return task


def test_every_shipped_task_is_without_fault() -> None:
    check_task_files(behavior_folders())


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    second = {key: value for key, value in GOOD.items() if key != "instruction"} | {"id": "own-2"}
    items: list[dict[str, Any]] = [
        GOOD,
        GOOD,
        second,
        GOOD | {"id": "own-3", "topic": ""},
        GOOD | {"id": 4},
        GOOD | {"id": "own-5", "details": {"a": 1}},
    ]
    broken = RULES.replace("\\bplease", "(please")
    faults = task_errors(make(tmp_path, broken, items))
    for number, told in enumerate(
        [
            "is not a regular expression",
            "line 2: id own-1 occurs twice (first in line 1)",
            "line 3: instruction is missing",
            "line 4: topic is empty",
            "line 5: id is not text",
            "line 6: details must have the keys of the items before ([]), not ['a']",
        ]
    ):
        assert told in faults[number]
    assert len(faults) == 6


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ("", "items.jsonl is empty"),
        ("not json\n", "line 1: not JSON"),
        ("[1]\n", "line 1: not a JSON object"),
        ('\n{"id": "a"}\n', "line 2: instruction is missing"),
        ("\xff\n", "line 1: not JSON"),
    ],
)
def test_items_that_are_none(tmp_path: Path, items: str, told: str) -> None:
    task = make(tmp_path, RULES, "")
    (task / "items.jsonl").write_bytes(items.encode("latin-1"))
    assert any(told in fault for fault in task_errors(task))


def test_a_task_without_items(tmp_path: Path) -> None:
    task = make(tmp_path, RULES, [GOOD])
    (task / "items.jsonl").unlink()
    (fault,) = task_errors(task)
    assert "does not exist" in fault


def test_a_schema_that_is_none_is_named(tmp_path: Path) -> None:
    broken = RECORD.replace("type: integer", "type: whole")
    assert any(
        "not a valid JSON Schema" in fault and "berth" in fault for fault in task_errors(make(tmp_path, broken, []))
    )


@pytest.mark.parametrize(
    ("details", "told"),
    [
        ({}, "details.record"),
        ({"record": "{"}, "not JSON"),
        ({"record": '{"berth": "seven"}'}, "is not of type 'integer'"),
        ({"record": '{"berth": 7, "berth": 8}'}, "a key occurs twice"),
    ],
)
def test_a_right_answer_that_is_wrong_itself(tmp_path: Path, details: dict[str, str], told: str) -> None:
    faults = task_errors(make(tmp_path, RECORD, [GOOD | {"details": details}]))
    assert any(told in fault for fault in faults)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("{name: empty}", "demands nothing"),
        ("{name: Twice, max_words: 3}", "name"),
        ("{name: pass, max_words: 3}", "reserved"),
        ("{name: f, function: task:nothing}", "cannot be loaded"),
        ("{name: f, function: 'os:no_such'}", "cannot be loaded"),
        ("{name: f, forbid: ['[']}", "not a regular expression"),
        ("{name: f, max_words: 0}", "greater than or equal to 1"),
        ("{name: f, requires: [a]}", "rules.0.requires: unknown key. Did you mean 'require'?"),
    ],
)
def test_a_faulty_rule_is_named(tmp_path: Path, rule: str, told: str) -> None:
    faults = task_errors(make(tmp_path, f"kind: rules\nrules: [{rule}]\n", [GOOD]))
    assert any(told in fault for fault in faults), faults


def test_a_run_stops_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, RULES.replace("\\bplease", "(please"), [GOOD, GOOD])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        check(config_for(["+domain_tasks=[{name: own}]", "hub_dir=nowhere"]))
    assert len(caught.value.errors) == 3, "the missing hub_dir is told with the task's faults"


def test_an_evaluation_stops_before_a_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, RULES, [GOOD, GOOD])
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "base", "+domain_tasks=[{name: own}]"]) == 2
    assert "own-1 occurs twice" in capsys.readouterr().err


def test_an_item_among_the_training_rows_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, RULES, [GOOD, GOOD | {"id": "own-2", "instruction": "Where is the crane?"}])
    monkeypatch.chdir(tmp_path)
    items = domain_items(config_for(["+domain_tasks=[{name: own}]"]).domain_tasks)
    row = {"id": "r-9", "instruction": "may I  moor here?", "input": "", "output": "Please do."}
    with pytest.raises(ConfigError, match=r"own-1 is in the training data .*row r-9") as caught:
        require_unseen(items, [row], "runs/x/data")
    assert len(caught.value.errors) == 1
    require_unseen(items, [row | {"instruction": "May I anchor here?"}], "runs/x/data")
