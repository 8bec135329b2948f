"""Evaluations without the stages around them: on the session's server, with answers kept where a test can look."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

from tiny import Served

from harness.config.experiment import Config, TaskConfig
from harness.evaluate.answers import Answers
from harness.evaluate.interim_looks import InterimLooks
from harness.evaluate.journal import Journal, JournalEntry
from harness.evaluate.plan import RequestPlan, ServedModel
from harness.evaluate.requests import Question, ask, generation, likelihoods
from harness.evaluate.server_evaluation import ServerEvaluation
from harness.evaluate.tasks.load import load_tasks, seeded_samples
from harness.prompt.render import Renderer
from harness.records.base import load
from harness.records.stages import Evaluation
from harness.serve.client import Client
from harness.serve.session import LiveServer


def tasks_of(config: Config) -> dict[str, Any]:
    return _loaded(tuple(config.tasks), config.hub_dir)


@cache
def _loaded(tasks: tuple[TaskConfig, ...], hub_dir: str | None) -> dict[str, Any]:
    """lm-eval reads its whole index for a load: some seconds each time."""
    return load_tasks(tasks, Path(hub_dir) if hub_dir else None)


class Direct:
    """One model without the dispatcher: each question is sent with a client of the test's own."""

    def __init__(self, client: Callable[[], Client], renderer: Renderer, label: str):
        self._client, self._renderer, self._label = client, renderer, label
        self.model = ServedModel(renderer)

    def apply_chat_template(self, history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        return self.model.apply_chat_template(history, add_generation_prompt)

    def generate(self, context: str, settings: Mapping[str, Any]) -> str:
        (entry,) = self._ask(generation(self._renderer, context, settings)).values()
        return str(entry["text"])

    def likelihood(self, context: str, continuation: str) -> float:
        (entry,) = self._ask(likelihoods(context, [continuation])).values()
        return float(entry["nats"])

    def _ask(self, question: Question) -> dict[bytes, JournalEntry]:
        async def asked() -> dict[bytes, JournalEntry]:
            async with self._client() as client:
                conversation = self.model.conversations.get(question.context)
                return await ask(client, self._renderer, question, conversation, self._label)

        return asyncio.run(asked())


def _journal(folder: Path | None, label: str) -> Journal | None:
    return None if folder is None else Journal(folder / f"{label}.sqlite", {"model": label})


def score(
    served: Served,
    config: Config,
    loaded: dict[str, Any],
    out: Path,
    labels: Sequence[str],
    journals: Path | None = None,
    renderer: Renderer | None = None,
    looks: InterimLooks | None = None,
) -> dict[str, Evaluation]:
    """The named models of the session's server on the configuration's tasks; evaluations are in `out`/<label>."""
    plan = RequestPlan(loaded, seeded_samples(loaded, config.tasks, config.suite.seed), renderer or served.renderer)
    answers = {label: Answers(label, label, _journal(journals, label)) for label in labels}
    server = LiveServer(lambda: nullcontext(lambda: served.endpoint))
    whole = {label for label in labels if looks is None or label in looks.in_full}
    for part in filter(None, (whole, set(labels) - whole)):
        evaluation = ServerEvaluation(
            plan, {label: answers[label] for label in labels if label in part}, server, config.evaluation
        )
        asked_items = evaluation.ask_all(looks if part - whole else None, {label: out / label for label in whole})
        again = evaluation.repeat_check(asked_items) if config.suite.aa else {}
        for label in part:
            (out / label).mkdir(parents=True, exist_ok=True)
            evaluation.write(label, label, asked_items, again.get(label), out / label)
    for label in labels:
        if (journal := answers[label].journal) is not None:
            journal.close()
    return {label: load(Evaluation, out / label / "evaluation.json") for label in labels}
