"""Answers judged by a model: saved ones, and those of an evaluation; beside how far the judge can be trusted."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.behavior.grading import FILE, Rate
from harness.behavior.judge import RUBRIC, Agreement, Judge, agreement
from harness.behavior.registry import behavior_folders
from harness.config import JudgeConfig
from harness.console import say
from harness.data.evaluation_items import read_items
from harness.data.task_files import exchange
from harness.errors import HarnessError, UsageError
from harness.evaluate.score import saved_exchanges
from harness.records import Evaluation, TaskScore, load
from harness.serve.server import Endpoint
from harness.store import write_json

METRIC = "judge"
RECORD = "judge.json"


def judged(task: str, responses: Path, url: str, model: str | None) -> str:
    """Two lines: how many answers the judge passes, and how far it can be trusted. Raises UsageError, NetworkFault."""
    if not model:
        raise UsageError("--judge needs --judge-model NAME: the judge's name on that server")
    exchanges, _ = saved_exchanges(task, responses)
    folder = behavior_folders()[task]
    absent = [name for name in (RUBRIC, str(FILE)) if not (folder / name).is_file()]
    if absent:
        raise UsageError(f"task {task} cannot be judged by a model: there is no {' and no '.join(absent)} in {folder}")
    judge = Judge(_address(url), model, (folder / RUBRIC).read_text())
    trust = _trust(judge, folder)
    verdicts = judge.verdicts([said for _, said in exchanges])
    passed, unreadable = verdicts.count(True), verdicts.count(None)
    return f"judge {model}: {Rate(passed, len(verdicts))} pass, {unreadable} unreadable replies\njudge {model}: {trust}"


def _address(url: str) -> str:
    return url.removesuffix("/").removesuffix("/v1")


def _trust(judge: Judge, folder: Path) -> Agreement:
    """The judge on the task's labelled answers."""
    labels = read_items(folder / FILE)
    verdicts = judge.verdicts([exchange(row, row["response"]) for row in labels])
    return agreement([row["pass"] for row in labels], verdicts)


def judge_samples(folder: Path, config: JudgeConfig | None, endpoint: Callable[[], Endpoint]) -> None:
    """Has an evaluation's answers judged where their task has a rubric; does nothing without config.

    Writes judge_<task>.jsonl and judge.json, and the score `judge` into the record. For information only: no sample
    changes, so no comparison rests on it, and where the judge fails the evaluation stays as it is and the reason is
    said. `endpoint` gives the evaluation's own server, asked when no `url` is configured.
    """
    if config is None:
        return
    record = load(Evaluation, folder / "evaluation.json")
    rubrics = {task: path / RUBRIC for task, path in behavior_folders().items() if (path / RUBRIC).is_file()}
    tasks = [task for task in record.tasks if task in rubrics]
    if not tasks:
        say(f"  the judge has nothing to do: no task of the suite has a {RUBRIC}")
        return
    try:
        own = endpoint() if config.url is None else None
        found = {task: _judge_task(folder, task, config, rubrics[task], own) for task in tasks}
    except HarnessError as fault:
        say(f"  not judged: {fault}")
        return
    _write(folder, record, config, found)


def _judge_task(
    folder: Path, task: str, config: JudgeConfig, rubric: Path, own: Endpoint | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A task's verdicts (True, False, or None for an unreadable reply), an item a row, and a summary."""
    url, key = (_address(config.url or ""), None) if own is None else (own.url, own.key)
    judge = Judge(url, config.model, rubric.read_text(), key=key)
    lines = (folder / f"samples_{task}.jsonl").read_text().split("\n")
    rows = [row for line in lines if line.strip() and (row := json.loads(line)).get("metrics")]
    verdicts = judge.verdicts([exchange(row["doc"], str(row["filtered_resps"][0])) for row in rows])
    told: dict[str, Any] = {"passed": verdicts.count(True), "judged": len(verdicts), "unreadable": verdicts.count(None)}
    if (rubric.parent / FILE).is_file():
        trust = _trust(judge, rubric.parent)
        kappa = None if math.isnan(trust.kappa) else trust.kappa
        told |= {"agreement_with_labels": trust.same.value, "labels": trust.same.of, "kappa": kappa}
    paired = zip(rows, verdicts, strict=True)
    return [{"doc_id": row["doc_id"], "doc_hash": row["doc_hash"], "pass": verdict} for row, verdict in paired], told


def _write(
    folder: Path, record: Evaluation, config: JudgeConfig, found: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]]
) -> None:
    """The verdicts, judge.json and the record; only after everything was judged."""
    scores: list[TaskScore] = []
    for task, (rows, told) in found.items():
        (folder / f"judge_{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        readable = told["judged"] - told["unreadable"]
        if readable:
            value = told["passed"] / readable
            scores.append(TaskScore(task=task, metric=METRIC, value=value, stderr=None, n=readable))
        counts = f"{told['passed']} of {told['judged']} pass, {told['unreadable']} replies unreadable"
        say(f"  judge {config.model} on {task}: {counts}")
    tasks = {task: told for task, (_, told) in found.items()}
    write_json(folder / RECORD, {"model": config.model, "url": config.url, "tasks": tasks})
    record.model_copy(update={"scores": [*record.scores, *scores]}).save(folder / "evaluation.json")
