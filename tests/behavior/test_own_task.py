"""docs/own_task.md, followed literally: its files written, its commands run, its output compared."""

import re
import shlex
from pathlib import Path

import pytest

from harness.cli import main
from harness.config.experiment import TaskConfig

PAGE = (Path(__file__).parents[2] / "docs" / "own_task.md").read_text()
FILES = re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SESSIONS = re.findall(r"^```console\n\$ (.*?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_has_files_and_commands() -> None:
    assert {name for name, _ in FILES} >= {"tasks/refund/behavior.yaml", "tasks/refund/task.py", "answers.jsonl"}
    assert [command.split()[:2] for command, _ in SESSIONS] == [["harness", "score"], ["harness", "audit"]]


@pytest.mark.parametrize(("command", "output"), SESSIONS, ids=[command for command, _ in SESSIONS])
def test_the_commands_print_what_the_page_says(
    project: Path, capsys: pytest.CaptureFixture[str], command: str, output: str
) -> None:
    assert main(shlex.split(command)[1:]) == 0
    printed = capsys.readouterr().out.replace(f"{project.resolve()}/", "")
    assert re.sub(r"refund-[0-9a-f]{10}", "refund-…", printed) == output


def test_the_failed_answer_says_why(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert main(["score", "refund", "answers.jsonl", "--out", "graded.jsonl"]) == 0
    rows = [json.loads(line) for line in (project / "graded.jsonl").read_text().splitlines()]
    assert [row["pass"] for row in rows] == [True, False, True]
    broken = [rule for rule in rows[1]["rules"] if not rule["pass"]]
    assert [(rule["rule"], rule["found"]) for rule in broken] == [("no_promise", "will definitely get")]


def test_a_passed_rule_names_what_met_it(project: Path) -> None:
    import json

    assert main(["score", "refund", "answers.jsonl", "--out", "graded.jsonl"]) == 0
    first, _, other_topic = [json.loads(line) for line in (project / "graded.jsonl").read_text().splitlines()]
    assert {rule["rule"]: (rule["expected"], rule["found"]) for rule in first["rules"]} == {
        "greeting": ("a wording of 'greeting' in the first sentence", "Good morning"),
        "refund_desk": ("a wording of 'refund_desk' in the last sentence", "refund desk"),
        "no_promise": ("no wording of 'no_promise'", "none"),
        "short": ("at most 60 words", "17 words"),
        "booking_number": ("the booking number that the customer gave", "as expected"),
    }
    assert [(rule["expected"], rule["found"]) for rule in other_topic["rules"]] == [
        ("no wording of 'refund_desk' on this topic", "none")
    ]


def test_a_function_finds_what_no_pattern_can(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = project / "answers.jsonl"
    answers.write_text(answers.read_text().replace("I am sorry that TF-2041", "I am sorry that TF-2042"))
    assert main(["score", "refund", "answers.jsonl"]) == 0
    assert "booking_number 1/2" in capsys.readouterr().out


@pytest.mark.integration
def test_lm_eval_gets_the_task_without_a_yaml_of_its_own(project: Path) -> None:
    pytest.importorskip("lm_eval")
    from harness.evaluate.tasks.load import load_tasks

    task = load_tasks([TaskConfig(name="refund", max_new_tokens=120)], None)["tasks"]["refund"]
    assert len(task.eval_docs) == 3
    assert task.doc_to_text(task.eval_docs[2]) == "Which deck is the cafeteria on?"
    assert task.process_results(task.eval_docs[2], ["On deck five."]) == {"specificity": 1.0}
    assert task.process_results(task.eval_docs[0], ["Hello."])["pass"] == 0.0
    metrics = set(task.higher_is_better())
    assert metrics == {"pass", "greeting", "refund_desk", "no_promise", "short", "booking_number", "specificity"}
