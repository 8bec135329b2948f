"""Saved answers judged by a model, beside the agreement of that model with the task's labelled answers."""

from pathlib import Path

from harness.behavior.grading import FILE, Rate
from harness.behavior.judge import RUBRIC, Judge, agreement
from harness.behavior.registry import behavior_folders
from harness.data.evaluation_items import read_items
from harness.data.task_files import exchange
from harness.errors import UsageError
from harness.evaluate.score import saved_exchanges


def judged(task: str, responses: Path, url: str, model: str | None) -> str:
    """Two lines: how many answers the judge passes, and how far it can be trusted. Raises UsageError, NetworkFault."""
    if not model:
        raise UsageError("--judge needs --judge-model NAME: the judge's name on that server")
    exchanges, _ = saved_exchanges(task, responses)
    folder = behavior_folders()[task]
    absent = [name for name in (RUBRIC, str(FILE)) if not (folder / name).is_file()]
    if absent:
        raise UsageError(f"task {task} cannot be judged by a model: there is no {' and no '.join(absent)} in {folder}")
    judge = Judge(url.removesuffix("/").removesuffix("/v1"), model, (folder / RUBRIC).read_text())
    labels = read_items(folder / FILE)
    trust = agreement(
        [row["pass"] for row in labels], judge.verdicts([exchange(row, row["response"]) for row in labels])
    )
    verdicts = judge.verdicts([said for _, said in exchanges])
    passed, unreadable = verdicts.count(True), verdicts.count(None)
    return f"judge {model}: {Rate(passed, len(verdicts))} pass, {unreadable} unreadable replies\njudge {model}: {trust}"
