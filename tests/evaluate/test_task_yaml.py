"""A user's task files as a fresh process reads them: good ones are accepted, damaged ones are refused with the line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = """\
task: town
dataset_path: json
dataset_kwargs:
  data_files:
    test: rows.jsonl
test_split: test
output_type: generate_until
doc_to_text: '{{q}}'
doc_to_target: '{{a}}'
filter_list:
- name: first
  filter:
  - function: regex
  - function: take_first
metric_list:
- metric: exact_match
"""


def described(folder: Path, **files: str) -> tuple[int, str]:
    """(exit code, output) of `harness evaluate --describe` on the task `town`; `__` stands for a dot in a name."""
    town = folder / "tasks" / "town"
    town.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (town / name.replace("__", ".")).write_text(text)
    if not (town / "rows.jsonl").exists():
        (town / "rows.jsonl").write_text('{"q": "Which town?", "a": "Leeds"}\n' * 3)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from harness.cli import main; raise SystemExit(main())",
            "evaluate",
            "base",
            "suite.tasks=[{name:town}]",
            "--describe",
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_known_metrics_and_filters_are_accepted(tmp_path: Path) -> None:
    """The names are known before anything else has loaded lm-eval's metrics."""
    code, text = described(tmp_path, town__yaml=GOOD)
    assert code == 0, text
    assert "town" in text


@pytest.mark.parametrize(
    ("files", "phrase"),
    [
        ({"town__yaml": GOOD.replace("take_first", "take_frist")}, "no filter take_frist. Did you mean 'take_first'"),
        ({"town__yaml": GOOD.replace("exact_match", "exact_mach")}, "no metric exact_mach. Did you mean 'exact_match'"),
        (
            {"town__yaml": "include: ../town/./b.yaml\ntask: town\n", "b__yaml": "include: ../town/town.yaml\n"},
            "leads back to this file",
        ),
        ({"town__yaml": "- a\n- b\n"}, "holds no keys"),
    ],
)
def test_damaged_task_files_are_refused_with_the_fix(tmp_path: Path, files: dict[str, str], phrase: str) -> None:
    code, text = described(tmp_path, **files)
    assert code == 2
    assert phrase in text
    assert "town.yaml" in text
    assert len(text) < 1500


def test_a_pipe_in_place_of_rows_is_named(tmp_path: Path) -> None:
    town = tmp_path / "tasks" / "town"
    town.mkdir(parents=True)
    os.mkfifo(town / "rows.jsonl")
    code, text = described(tmp_path, town__yaml=GOOD)
    assert code == 2
    assert "rows.jsonl is a pipe or a device" in text


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (None, "is not a regular file"),
        (b"kind: \xf8\n", "byte 7 is not UTF-8"),
        (b"[" * 20_000, "nested too deep"),
    ],
    ids=["pipe", "bytes", "deep"],
)
def test_damaged_behaviour_files_end_at_once(tmp_path: Path, content: bytes | None, phrase: str) -> None:
    task = tmp_path / "tasks" / "mine"
    task.mkdir(parents=True)
    if content is None:
        os.mkfifo(task / "behavior.yaml")
    else:
        (task / "behavior.yaml").write_bytes(content)
    (tmp_path / "rows.jsonl").write_text('{"id": "1", "prompt": "p", "response": "r"}\n')
    done = subprocess.run(
        [sys.executable, "-c", "from harness.cli import main; raise SystemExit(main())", "score", "mine", "rows.jsonl"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert phrase in done.stderr
