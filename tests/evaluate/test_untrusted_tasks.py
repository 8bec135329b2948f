"""Looking at a stranger's suite runs nothing of it, templates stay in their sandbox, and its data are found."""

import json
from pathlib import Path

import pytest

from harness.cli import main
from harness.config.experiment import TaskConfig
from harness.core.errors import DataError, ExitCode
from harness.evaluate.tasks.load import load_tasks, sandbox_templates

ROWS = "".join(json.dumps({"q": f"Which line goes to stop {n}?", "a": f"line {n}"}) + "\n" for n in range(12))
CODE = 'from pathlib import Path\nPath("it_ran").write_text("imported")\ndef question(doc): return doc["q"]\n'
TASK = """task: town
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: '{{q}}'
doc_to_target: '{{a}}'
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
CODED = TASK.replace("'{{q}}'", "!function code.question")
INNER = TASK.replace("task: town", "task: inner")
ESCAPE = """'{{ cycler.__init__.__globals__.os.open("it_ran", 65) }}'"""
FOREIGN = "metric_list: [{metric: tasks/town/code.py, aggregation: mean"
UNKNOWN, BY_CODE = "its items are known to its code alone", "town                          ?"


def write(folder: Path, files: dict[str, str]) -> None:
    task = folder / "tasks" / "town"
    for name, text in ({"rows.jsonl": ROWS, "code.py": CODE} | files).items():
        (task / name).parent.mkdir(parents=True, exist_ok=True)
        (task / name).write_text(text)


BEHAVIOR = "kind: rules\nrules: [{name: f, function: 'code:question', expected: x}, {name: g, max_words: 9}]\n"
ITEMS = "".join(
    json.dumps({"id": f"i{n}", "instruction": "q", "input": "", "topic": "t", "slice": ""}) + "\n" for n in range(3)
)
WAYS = {
    "a function": {"town.yaml": CODED},
    "a class": {"town.yaml": "task: town\nclass: !function code.question\n"},
    "an included function": {"town.yaml": "task: town\ninclude: base.inc\n", "base.inc": CODED},
    "a list of includes": {"town.yaml": "task: town\ninclude: [base.inc]\n", "base.inc": CODED},
    "an included name": {"town.yaml": "include: base.inc\n", "base.inc": CODED},
    "a group's override": {
        "town.yaml": "group: town\ntask: [inner]\nprocess_docs: !function code.question\n",
        "inner.yaml": INNER,
    },
    "an included group": {
        "town.yaml": "include: [base.inc]\n",
        "base.inc": "group: town\ntask: [inner]\nprocess_docs: !function code.question\n",
        "inner.yaml": INNER,
    },
    "an included tag": {
        "one.yaml": "task: inner\ninclude: base.inc\n",
        "base.inc": CODED.replace("task: town", "tag: town"),
    },
    "a metric in a file": {"town.yaml": TASK.replace("metric_list: [{metric: exact_match, aggregation: mean", FOREIGN)},
    "a metric of a group's member": {
        "town.yaml": f"group: town\ntask:\n- task: inner\n  {FOREIGN}}}]\n",
        "inner.yaml": INNER,
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_looking_at_a_suite_runs_no_code(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, WAYS[way])
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "base", "suite.tasks=[{name:town}]", "--describe"]) == ExitCode.DONE
    said = capsys.readouterr().out
    assert UNKNOWN in said
    assert BY_CODE in said
    assert not Path("it_ran").exists()


def test_the_ways_do_run_code_where_it_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests above can fail."""
    write(tmp_path, WAYS["a list of includes"])
    monkeypatch.chdir(tmp_path)
    load_tasks([TaskConfig(name="town")], None)
    assert Path("it_ran").exists()


@pytest.mark.parametrize("key", ["doc_to_text", "doc_to_target"])
def test_a_template_does_not_leave_its_sandbox(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = {"doc_to_text": "'{{q}}'", "doc_to_target": "'{{a}}'"}[key]
    write(tmp_path, {"town.yaml": TASK.replace(f"{key}: {usual}", f"{key}: {ESCAPE}")})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"town.*unsafe"):
        load_tasks([TaskConfig(name="town")], None)
    assert not Path("it_ran").exists()


def test_a_template_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loops = "{% for i in range(99999) %}" * 2 + "{% endfor %}" * 2
    write(tmp_path, {"town.yaml": TASK.replace("{{q}}", loops)})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"town: it computes for more than"):
        load_tasks([TaskConfig(name="town")], None)


def test_templates_render_as_in_lm_eval() -> None:
    from lm_eval import utils

    sandbox_templates()
    document = {"q": "Which line?", "choices": ["a", "b"], "n": 3}
    made = (
        "{{q.strip()}}\n{% for c in choices %}{{'ABC'[loop.index0]}}. {{c}}\n{% endfor %}{{q|regex_replace('l','L')}}\n"
    )
    assert utils.apply_template(made, document) == "Which line?\nA. a\nB. b\nWhich Line?\n"


@pytest.mark.parametrize(
    ("given", "files", "items"),
    [
        ("data_files: {test: rows.jsonl}", {}, 12),
        ("data_files: {test: sub/rows.jsonl}", {"sub/rows.jsonl": ROWS}, 12),
        ("data_files: {test: ../town/rows.jsonl}", {}, 12),
        ("data_files: {test: 'r*.jsonl'}", {}, 12),
        ("data_files: {test: [rows.jsonl, more.jsonl]}", {"more.jsonl": ROWS}, 24),
        ("data_files: {test: FOLDER/rows.jsonl}", {}, 12),
        ("data_dir: data", {"data/test.jsonl": ROWS}, 12),
    ],
)
@pytest.mark.parametrize("inline", [False, True])
def test_data_beside_the_yaml_file(
    given: str, files: dict[str, str], items: int, inline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = given.replace("FOLDER", str(tmp_path / "tasks" / "town"))
    text = TASK.replace("data_files: {test: rows.jsonl}", whole)
    if inline:
        text = "group: town\ntask:\n" + INNER.replace("data_files: {test: rows.jsonl}", whole).replace("\n", "\n  ")
        text = text.replace("task: inner", "- task: inner").rstrip()
    write(tmp_path, {"town.yaml": text, **files})
    monkeypatch.chdir(tmp_path)
    loaded = load_tasks([TaskConfig(name="town")], None)["tasks"]
    assert [len(task.eval_docs) for task in loaded.values()] == [items]


@pytest.mark.parametrize("files", [{}, {"town.yaml": CODED}], ids=["alone", "beside a task's YAML"])
def test_a_behaviour_of_a_stranger_is_counted_and_not_run(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, {"behavior.yaml": BEHAVIOR, "items.jsonl": ITEMS, **files})
    monkeypatch.chdir(tmp_path)
    suite = ["suite.tasks=[{name: town, limit: 2}]", "domain_tasks=[]"]
    assert main(["evaluate", "base", *suite, "--describe"]) == 0
    assert "town                          2" in capsys.readouterr().out
    (tmp_path / "policy.yaml").write_text(
        "name: p\nrequire: []\nrules: [{metric: '*/town/g', role: target, floor: 0.5}]\n"
    )
    assert main(["gate", "--plan", "policy=policy.yaml", *suite]) == 0
    assert "town/g (floor 0.5): 2 items" in capsys.readouterr().out
    assert not (tmp_path / "it_ran").exists()
    # Where the task is used, its function decides.
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"id": "i0", "prompt": "q", "response": "r"}) + "\n")
    main(["score", "town", str(answers)])
    assert (tmp_path / "it_ran").exists()
