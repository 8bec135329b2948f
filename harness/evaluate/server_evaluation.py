"""One plan asked of models of a server together, once or in looks, and once more for the A/A check."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from harness.config.experiment import EvaluationConfig
from harness.core.console import say
from harness.core.store import write_json
from harness.evaluate.answers import Answers
from harness.evaluate.dispatch import PendingQuestion, RequestDispatcher, RequestFailure
from harness.evaluate.interim_looks import InterimLooks
from harness.evaluate.journal import JournalEntry
from harness.evaluate.judging import SampleJudge
from harness.evaluate.plan import ItemIndices, PlannedItem, RequestPlan
from harness.evaluate.write import AskedItems, write_evaluation
from harness.serve.session import LiveServer

# The A/A check: one model asked twice, in other batches. What changes between the two is noise, not training.


REPEAT_CHECK_FILE = "aa.json"
AnswerValues = dict[str, dict[int, Any]]


@dataclass(frozen=True)
class RepeatAgreement:
    """How far two passes agree, task by task.

    `items` were scored in both; `flip_share` of them changed in any metric, `metrics` says in which; `answers_differ`
    is the share whose answers changed at all; `max_nats` the largest change of a log-likelihood (None without any).
    """

    tasks: dict[str, dict[str, Any]]

    @property
    def flip_shares(self) -> dict[str, float]:
        return {task: found["flip_share"] for task, found in self.tasks.items() if found["flip_share"] is not None}

    def __str__(self) -> str:
        changed = [f"{task} {share:.1%}" for task, share in self.flip_shares.items() if share]
        nats = max((found["max_nats"] for found in self.tasks.values() if found["max_nats"] is not None), default=None)
        told = f"items that flip: {', '.join(changed) or 'none'}"
        return told if nats is None else f"{told}; log-likelihoods differ by up to {nats:.3f} nats"

    def save(self, path: Path) -> None:
        write_json(path, {"second_pass": "opposite order, journal bypassed", "tasks": self.tasks})


def repeat_agreement(plan: RequestPlan, first: Answers, again: Answers, items: ItemIndices | None) -> RepeatAgreement:
    """What changed between two passes over the same items."""
    scored = [plan.score(one.values, items) or {"samples": {}} for one in (first, again)]
    return RepeatAgreement(
        {
            task: _of_task(own, first, again, *(_values(found["samples"].get(task, [])) for found in scored))
            for task, own in plan.chosen(items).items()
        }
    )


def _values(rows: list[dict[str, Any]]) -> AnswerValues:
    """AnswerValues by metric (named with its filter unless that is the default) and item."""
    values: AnswerValues = {}
    for row in rows:
        for name in row["metrics"]:
            metric = name if row["filter"] == "none" else f"{name},{row['filter']}"
            values.setdefault(metric, {})[row["doc_id"]] = row[name]
    return values


def _of_task(
    own: list[PlannedItem], first: Answers, again: Answers, left: AnswerValues, right: AnswerValues
) -> dict[str, Any]:
    changed = {
        metric: {item for item in before.keys() & right.get(metric, {}).keys() if before[item] != right[metric][item]}
        for metric, before in left.items()
    }
    both = [item for item in own if first.failure(item) is None and again.failure(item) is None]
    differing = sum(any(first.values[k] != again.values[k] for keys in item.keys for k in keys) for item in both)
    return {
        "items": len(both),
        "flip_share": _share(len(set().union(*changed.values())), len(both)),
        "metrics": {metric: _share(len(items), len(left[metric])) for metric, items in changed.items()},
        "answers_differ": _share(differing, len(both)),
        "max_nats": max(_nats(both, first, again), default=None),
    }


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _nats(items: list[PlannedItem], first: Answers, again: Answers) -> Iterator[float]:
    for item in items:
        for keys in item.keys:
            before, after = first.values[keys[0]], again.values[keys[0]]
            if not isinstance(before, str) and not isinstance(after, str):
                yield abs(before[0] - after[0])


@dataclass
class ServerEvaluation:
    """Models of one server with their answers by label."""

    plan: RequestPlan
    answers: dict[str, Answers]
    server: LiveServer
    config: EvaluationConfig
    judge: SampleJudge | None = None
    started_at: float = field(default_factory=time.monotonic)

    def ask_all(
        self, looks: InterimLooks | None = None, beside: Mapping[str, Path] = MappingProxyType({})
    ) -> AskedItems:
        """Has everything answered, or what the looks demand, which see the finished evaluations `beside` too; returns
        what that was."""
        if looks is None:
            self._ask(None)
            return AskedItems()
        with ExitStack() as stack:

            def results(items: ItemIndices) -> Mapping[str, Path]:
                asked_items = AskedItems(items, looks.seed)
                return {**beside, **{label: self._result(stack, label, asked_items) for label in self.answers}}

            planned = {task: [item.index for item in own] for task, own in self.plan.tasks.items()}
            return AskedItems(looks.run(planned, self._ask, results), looks.seed)

    def _result(self, stack: ExitStack, label: str, asked_items: AskedItems) -> Path:
        """The evaluation of what a model was asked so far, in a folder that goes with the stack."""
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="harness-look-")))
        self._write(label, "", asked_items, None, folder)
        return folder

    def repeat_check(self, asked_items: AskedItems) -> dict[str, RepeatAgreement]:
        """Every question once more, in the opposite order and past the journal; what changed, by label."""
        again = {label: Answers(first.model, f"{label}, again", None) for label, first in self.answers.items()}
        replace(self, answers=again)._ask(asked_items.items, backwards=True)
        found = {
            label: repeat_agreement(self.plan, first, again[label], asked_items.items)
            for label, first in self.answers.items()
        }
        for label, agreed in found.items():
            say(f"  {label} asked twice: {agreed}")
        return found

    def write(
        self, label: str, weights_sha256: str, asked_items: AskedItems, again: RepeatAgreement | None, folder: Path
    ) -> None:
        """The evaluation of one model, judged where the suite has a judge."""
        self._write(label, weights_sha256, asked_items, again, folder)
        if self.judge is not None:
            self.judge.judge(folder)

    def _write(
        self, label: str, weights_sha256: str, asked_items: AskedItems, again: RepeatAgreement | None, folder: Path
    ) -> None:
        seconds = time.monotonic() - self.started_at
        shares = None if again is None else again.flip_shares
        write_evaluation(
            self.plan, self.answers[label], weights_sha256, self.config, folder, seconds, asked_items, shares
        )
        if again is not None:
            again.save(folder / REPEAT_CHECK_FILE)

    def _ask(self, items: ItemIndices | None, backwards: bool = False) -> None:
        """Answers from the journals, then all that is missing in one dispatcher."""
        answers = self.answers
        questions = self.plan.questions(items)
        keys = {key for question in questions for key in question.keys}
        for one in answers.values():
            one.load_cached(keys)
        asked = [left for one in answers.values() for left in one.missing(self.plan, questions)]
        total = len(keys) * len(answers)
        requests = sum(len(one.question.keys) for one in asked)
        if requests < total:
            say(f"  {total - requests} of {total} requests were answered before (journal)")
        if asked:
            self._dispatch(asked[::-1] if backwards else asked)

    def _dispatch(self, asked: list[PendingQuestion]) -> None:
        by_label = {one.label: one for one in self.answers.values()}

        def on_result(one: PendingQuestion, entries: dict[bytes, JournalEntry] | RequestFailure) -> None:
            by_label[one.label].add_result(one.question, entries)

        dispatcher = RequestDispatcher(self.plan.renderer, self.config.serve, on_result)
        self.server.endpoint()
        started = time.monotonic()
        dispatcher.run(asked, self.server, ", ".join(by_label))
        requests, seconds = sum(len(one.question.keys) for one in asked), time.monotonic() - started
        say(f"  {requests} requests answered in {seconds:.1f} s ({requests / seconds:.0f} a second)")
        failed = sum(len(one.failures) for one in by_label.values())
        if failed:
            say(f"  {failed} requests got no answer; their items are recorded as failed, with the reason")
