"""Answers judged by a model: saved ones, and those of an evaluation; beside how far the judge can be trusted."""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.behavior.grading import FILE, Rate
from harness.behavior.registry import behavior_folders
from harness.config.experiment import JudgeConfig
from harness.core.console import say
from harness.core.errors import ConfigError, HarnessError, UsageError
from harness.core.layout import EVALUATION
from harness.core.store import write_json
from harness.data.evaluation_items import exchange, read_items
from harness.evaluate.journal import Journal
from harness.evaluate.llm_judge import RUBRIC, JudgeAgreement, LlmJudge, Opinion, judge_agreement
from harness.evaluate.score import saved_exchanges
from harness.records.base import load
from harness.records.stages import Checkpoint, Evaluation, TaskScore
from harness.serve.server import BASE, Endpoint

JUDGE_METRIC = "judge"
JUDGE_RECORD = "judge.json"


def judge_saved_answers(task: str, responses: Path, url: str, model: str | None) -> str:
    """Two lines: how many answers the judge passes, and how far it can be trusted. Raises UsageError, NetworkFault."""
    if not model:
        raise UsageError("--judge needs --judge-model NAME: the judge's name on that server")
    exchanges, _ = saved_exchanges(task, responses)
    folder = behavior_folders()[task]
    absent = [name for name in (RUBRIC, str(FILE)) if not (folder / name).is_file()]
    if absent:
        raise UsageError(f"task {task} cannot be judged by a model: there is no {' and no '.join(absent)} in {folder}")
    judge = LlmJudge(_address(url), model, (folder / RUBRIC).read_text())
    trust = _trust(judge, folder)
    verdicts = judge.verdicts([said for _, said in exchanges])
    passed, unreadable = verdicts.count(True), verdicts.count(None)
    return f"judge {model}: {Rate(passed, len(verdicts))} pass, {unreadable} unreadable replies\njudge {model}: {trust}"


def _address(url: str) -> str:
    return url.removesuffix("/").removesuffix("/v1")


def _trust(judge: LlmJudge, folder: Path) -> JudgeAgreement:
    """The judge on the task's labelled answers."""
    labels = read_items(folder / FILE)
    verdicts = judge.verdicts([exchange(row, row["response"]) for row in labels])
    return judge_agreement([row["pass"] for row in labels], verdicts)


@dataclass
class SampleJudge:
    """The judge of an evaluation's answers, where their task has a rubric: behind `config.url`, or by `name` on the
    evaluation's own `server` (None: that server does not have it). What it said is kept in `memory`.

    For information only: no sample changes, so no comparison rests on it.
    """

    config: JudgeConfig
    server: Callable[[], Endpoint]
    name: str | None
    memory: Journal | None = None
    trust: dict[str, JudgeAgreement] = field(default_factory=dict)

    def judge(self, folder: Path) -> None:
        """Writes judge_<task>.jsonl and judge.json beside an evaluation's samples, and the score `judge` in its record.

        Where the judge fails, nothing but the record's `judge_fault` says so.
        """
        record = load(Evaluation, folder / EVALUATION)
        rubrics = {task: path / RUBRIC for task, path in behavior_folders().items() if (path / RUBRIC).is_file()}
        tasks = [task for task in record.tasks if task in rubrics]
        if not tasks:
            say(f"  the judge has nothing to do: no task of the suite has a {RUBRIC}")
            return
        if self.config.url is None and self.name is None:
            say(f"  {record.label} is not judged: its server does not have {self.config.model!r}; give suite.judge.url")
            return
        try:
            found = {task: self._judge_task(folder, task, rubrics[task]) for task in tasks}
        except HarnessError as fault:
            say(f"  {record.label} is not judged, the same command tries again: {fault}")
            record.model_copy(update={"judge_fault": str(fault)}).save(folder / EVALUATION)
            return
        _write(folder, record, self.config, found)

    def _judge_task(self, folder: Path, task: str, rubric: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """A task's verdicts (True, False, or None for an unreadable or no reply), an item a row, and a summary."""
        judge = self._of(rubric.read_text())
        lines = (folder / f"samples_{task}.jsonl").read_text().split("\n")
        rows = [row for line in lines if line.strip() and (row := json.loads(line)).get("metrics")]
        opinions = judge.opinions([exchange(row["doc"], str(row["filtered_resps"][0])) for row in rows])
        told = _counts(opinions)
        if (rubric.parent / FILE).is_file():
            trust = self.trust.get(task) or _trust(judge, rubric.parent)
            self.trust[task] = trust
            kappa = None if math.isnan(trust.kappa) else trust.kappa
            told |= {"agreement_with_labels": trust.same.value, "labels": trust.same.of, "kappa": kappa}
            told["labels_unreadable"] = trust.unreadable
        names = [{"doc_id": row["doc_id"], "doc_hash": row["doc_hash"]} for row in rows]
        return [{**name, **_written(found)} for name, found in zip(names, opinions, strict=True)], told

    def _of(self, rubric: str) -> LlmJudge:
        if self.config.url is not None:
            return LlmJudge(_address(self.config.url), self.config.model, rubric, memory=self.memory)
        own = self.server()
        return LlmJudge(own.url, str(self.name), rubric, key=own.key, constrained=True, memory=self.memory)


def sample_judge(
    config: JudgeConfig | None,
    served: Mapping[str, Checkpoint],
    server: Callable[[], Endpoint],
    memory: Journal | None = None,
) -> SampleJudge | None:
    """The configured judge, for models on a `server` that has `served`. None without one.

    A model is named by its label; 'base' means the adapters' base model too, and never a full model of another name:
    that would be the judge of itself.
    """
    if config is None:
        return None
    name: str | None
    if (found := served.get(config.model)) is not None:
        name = BASE if found.kind == "full" else config.model
    else:
        of_adapters = config.model == BASE and any(one.kind == "adapter" for one in served.values())
        name = BASE if of_adapters else None
    return SampleJudge(config, server, name, memory)


def require_judge(config: JudgeConfig | None, labels: Collection[str]) -> None:
    """Raises ConfigError where the judge is to be one of the evaluated models, and is none of them."""
    if config is not None and config.url is None and config.model not in {BASE, *labels}:
        known = ", ".join(sorted({BASE, *labels}))
        mend = f"name one of them ({known}), or give suite.judge.url"
        raise ConfigError([f"suite.judge.model: {config.model!r} is none of the evaluated models; {mend}"])


def _counts(opinions: Sequence[Opinion]) -> dict[str, Any]:
    passed = [opinion.passed for opinion in opinions]
    refused = sum(bool(opinion.refused) for opinion in opinions)
    return {
        "passed": passed.count(True),
        "judged": len(passed),
        "unreadable": passed.count(None) - refused,
        "refused": refused,
    }


def _written(opinion: Opinion) -> dict[str, Any]:
    """Verdict and the judge's own words, or why its server took no request."""
    return {"pass": opinion.passed, **({"refused": opinion.refused} if opinion.refused else {"reply": opinion.reply})}


def _worth(told: dict[str, Any]) -> str:
    if "labels" not in told:
        return ""
    kappa = "undefined" if told["kappa"] is None else f"{told['kappa']:.2f}"
    return f"; agrees with {told['agreement_with_labels']:.1%} of {told['labels']} labels (kappa {kappa})"


def _write(
    folder: Path, record: Evaluation, config: JudgeConfig, found: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]]
) -> None:
    """The verdicts, judge.json and the record; only after everything was judged."""
    scores: list[TaskScore] = []
    for task, (rows, told) in found.items():
        (folder / f"judge_{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        readable = told["judged"] - told["unreadable"] - told["refused"]
        if readable:
            value = told["passed"] / readable
            scores.append(TaskScore(task=task, metric=JUDGE_METRIC, value=value, stderr=None, n=readable))
        counts = f"{told['passed']} of {told['judged']} pass, {told['unreadable']} replies unreadable"
        counts += f", {told['refused']} refused" if told["refused"] else ""
        say(f"  judge {config.model} on {task}, {record.label}: {counts}{_worth(told)}")
    tasks = {task: told for task, (_, told) in found.items()}
    write_json(folder / JUDGE_RECORD, {"model": config.model, "url": config.url, "tasks": tasks})
    record.model_copy(update={"scores": [*record.scores, *scores]}).save(folder / EVALUATION)
