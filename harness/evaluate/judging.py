"""Has a judge model grade saved answers, or those of an evaluation, and reports how far the judge can be trusted."""

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.behavior.grading import FILE, Rate
from harness.behavior.registry import behavior_folders
from harness.config.experiment import JudgeConfig
from harness.core.console import plural, say
from harness.core.errors import ConfigError, HarnessError, UsageError
from harness.core.layout import EVALUATION
from harness.core.store import write_json
from harness.data.evaluation_items import exchange, read_items
from harness.evaluate.journal import Journal
from harness.evaluate.llm_judge import RUBRIC, JudgeAgreement, LlmJudge, judge_agreement
from harness.evaluate.score import saved_exchanges
from harness.records.base import load
from harness.records.stages import Checkpoint, Evaluation, TaskScore
from harness.serve.server import BASE, Endpoint

JUDGE_METRIC = "judge"
JUDGE_RECORD = "judge.json"


def judge_saved_answers(task: str, responses: Path, url: str, model: str | None) -> str:
    """Two lines: how many answers the judge passes, and its agreement with the labels.

    Raises UsageError when the judge's name, the rubric or the labelled answers are missing, NetworkFault when the judge
    cannot be reached.
    """
    if not model:
        raise UsageError("--judge also needs --judge-model NAME, the judge's name on that server")
    exchanges, _ = saved_exchanges(task, responses)
    folder = behavior_folders()[task]
    absent = [name for name in (RUBRIC, str(FILE)) if not (folder / name).is_file()]
    if absent:
        raise UsageError(f"a model cannot judge task {task}: {folder} has no {' and no '.join(absent)}")
    judge = LlmJudge(_address(url), model, (folder / RUBRIC).read_text())
    trust = _trust(judge, folder)
    verdicts = judge.verdicts([answered for _, answered in exchanges])
    passed, unreadable = verdicts.count(True), verdicts.count(None)
    replies = plural(unreadable, "unreadable reply", "unreadable replies")
    return f"judge {model}: {Rate(passed, len(verdicts))} pass, {replies}\njudge {model}: {trust}"


def _address(url: str) -> str:
    return url.removesuffix("/").removesuffix("/v1")


def _trust(judge: LlmJudge, folder: Path) -> JudgeAgreement:
    """The judge's agreement with the task's labelled answers."""
    labels = read_items(folder / FILE)
    verdicts = judge.verdicts([exchange(row, row["response"]) for row in labels])
    return judge_agreement([row["pass"] for row in labels], verdicts)


@dataclass
class SampleJudge:
    """The judge of an evaluation's answers, for tasks that have a rubric.

    The judge is behind `config.url`, or has a `name` on the evaluation's own `server` (None: it is not on that
    server). `memory` keeps its replies. The result is for information only: no sample changes, so no comparison rests
    on it.
    """

    config: JudgeConfig
    server: Callable[[], Endpoint]
    name: str | None
    memory: Journal | None = None
    trust: dict[str, JudgeAgreement] = field(default_factory=dict)

    def judge(self, folder: Path) -> None:
        """Writes judge_<task>.jsonl and judge.json beside the samples, and adds the score `judge` to the record.

        When the judge fails, only the reason is written: `judge_fault` in the record.
        """
        record = load(Evaluation, folder / EVALUATION)
        rubrics = {task: path / RUBRIC for task, path in behavior_folders().items() if (path / RUBRIC).is_file()}
        tasks = [task for task in record.tasks if task in rubrics]
        if not tasks:
            say(f"  nothing to judge: no task of the suite has a {RUBRIC}")
            return
        if self.config.url is None and self.name is None:
            say(
                f"  {record.label} is not judged: its server does not have the model {self.config.model!r}; "
                "set suite.judge.url"
            )
            return
        try:
            verdicts = {task: self._judge_task(folder, task, rubrics[task]) for task in tasks}
        except HarnessError as error:
            say(f"  {record.label} is not judged; run the same command to try again: {error}")
            record.model_copy(update={"judge_fault": str(error)}).save(folder / EVALUATION)
            return
        _write(folder, record, self.config, verdicts)

    def _judge_task(self, folder: Path, task: str, rubric: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """A row for each item with its verdict (None for an unreadable or refused reply), and a summary of the task."""
        text = rubric.read_text()
        if self.config.url is not None:
            judge = LlmJudge(_address(self.config.url), self.config.model, text, memory=self.memory)
        else:
            own = self.server()
            judge = LlmJudge(own.url, str(self.name), text, key=own.key, constrained=True, memory=self.memory)
        lines = (folder / f"samples_{task}.jsonl").read_text().split("\n")
        rows = [row for line in lines if line.strip() and (row := json.loads(line)).get("metrics")]
        opinions = judge.opinions([exchange(row["doc"], str(row["filtered_resps"][0])) for row in rows])
        passed = [opinion.passed for opinion in opinions]
        refused = sum(bool(opinion.refused) for opinion in opinions)
        summary: dict[str, Any] = {
            "passed": passed.count(True),
            "judged": len(passed),
            "unreadable": passed.count(None) - refused,
            "refused": refused,
        }
        if (rubric.parent / FILE).is_file():
            trust = self.trust.get(task) or _trust(judge, rubric.parent)
            self.trust[task] = trust
            kappa = None if math.isnan(trust.kappa) else trust.kappa
            summary |= {"agreement_with_labels": trust.same.value, "labels": trust.same.of, "kappa": kappa}
            summary["labels_unreadable"] = trust.unreadable
        verdicts = []
        for row, opinion in zip(rows, opinions, strict=True):
            why = {"refused": opinion.refused} if opinion.refused else {"reply": opinion.reply}
            verdicts.append({"doc_id": row["doc_id"], "doc_hash": row["doc_hash"], "pass": opinion.passed, **why})
        return verdicts, summary


def sample_judge(
    config: JudgeConfig | None,
    served: Mapping[str, Checkpoint],
    server: Callable[[], Endpoint],
    memory: Journal | None = None,
) -> SampleJudge | None:
    """The configured judge for the models `served` by a `server`; None without a judge.

    The judge is named by its label. 'base' also means the adapters' base model, but never a full model with another
    label: that model would judge itself.
    """
    if config is None:
        return None
    name: str | None
    if (judging := served.get(config.model)) is not None:
        name = BASE if judging.kind == "full" else config.model
    else:
        of_adapters = config.model == BASE and any(checkpoint.kind == "adapter" for checkpoint in served.values())
        name = BASE if of_adapters else None
    return SampleJudge(config, server, name, memory)


def require_judge(config: JudgeConfig | None, labels: Collection[str]) -> None:
    """Raises ConfigError when the judge has no URL and is not one of the evaluated models."""
    if config is not None and config.url is None and config.model not in {BASE, *labels}:
        known = ", ".join(sorted({BASE, *labels}))
        raise ConfigError(
            [
                f"suite.judge.model: {config.model!r} is not one of the evaluated models. "
                f"Name one of them ({known}), or set suite.judge.url"
            ]
        )


def _write(
    folder: Path,
    record: Evaluation,
    config: JudgeConfig,
    verdicts: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]],
) -> None:
    """Writes the verdicts, judge.json and the record, once all tasks are judged."""
    scores: list[TaskScore] = []
    for task, (rows, summary) in verdicts.items():
        (folder / f"judge_{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        readable = summary["judged"] - summary["unreadable"] - summary["refused"]
        if readable:
            value = summary["passed"] / readable
            scores.append(TaskScore(task=task, metric=JUDGE_METRIC, value=value, stderr=None, n=readable))
        counts = f"{summary['passed']} of {summary['judged']} pass, {summary['unreadable']} unreadable"
        counts += f", {summary['refused']} refused" if summary["refused"] else ""
        if "labels" in summary:
            kappa = "undefined" if summary["kappa"] is None else f"{summary['kappa']:.2f}"
            share = f"{summary['agreement_with_labels']:.1%}"
            counts += f"; agrees with {share} of {plural(summary['labels'], 'label')} (kappa {kappa})"
        say(f"  judge {config.model} on {task}, {record.label}: {counts}")
    tasks = {task: summary for task, (_, summary) in verdicts.items()}
    write_json(folder / JUDGE_RECORD, {"model": config.model, "url": config.url, "tasks": tasks})
    record.model_copy(update={"scores": [*record.scores, *scores]}).save(folder / EVALUATION)
