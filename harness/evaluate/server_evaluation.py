"""Evaluates models of one server together: all items at once or in interim looks, and again for the repeat check.

The repeat check evaluates a model twice, in other batches. What changes between the two passes is noise, not training.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from harness.config.experiment import EvaluationConfig
from harness.core.console import plural, say
from harness.core.store import write_json
from harness.evaluate.answers import Answers
from harness.evaluate.dispatch import PendingQuestion, RequestDispatcher, RequestFailure
from harness.evaluate.interim_looks import InterimLooks
from harness.evaluate.journal import JournalEntry
from harness.evaluate.judging import SampleJudge
from harness.evaluate.plan import ItemIndices, PlannedItem, RequestPlan
from harness.evaluate.write import AskedItems, write_evaluation
from harness.serve.session import LiveServer

REPEAT_CHECK_FILE = "aa.json"
AnswerValues = dict[str, dict[int, Any]]


@dataclass(frozen=True)
class RepeatAgreement:
    """How far two passes over the same items agree, for each task.

    `items` counts the items that were scored in both passes. `flip_share` is the share of them whose result changed in
    any metric, `metrics` the share for each metric, `answers_differ` the share whose answers changed at all.
    `max_nats` is the largest change of a log-likelihood, None where there are none.
    """

    tasks: dict[str, dict[str, Any]]

    @property
    def flip_shares(self) -> dict[str, float]:
        return {task: values["flip_share"] for task, values in self.tasks.items() if values["flip_share"] is not None}

    def __str__(self) -> str:
        changed = [f"{task} {share:.1%}" for task, share in self.flip_shares.items() if share]
        nats = [values["max_nats"] for values in self.tasks.values() if values["max_nats"] is not None]
        flips = f"items that flip: {', '.join(changed) or 'none'}"
        return f"{flips}; log-likelihoods differ by up to {max(nats):.3f} nats" if nats else flips

    def save(self, path: Path) -> None:
        write_json(path, {"second_pass": "opposite order, journal bypassed", "tasks": self.tasks})


def repeat_agreement(plan: RequestPlan, first: Answers, again: Answers, items: ItemIndices | None) -> RepeatAgreement:
    """The agreement of two passes over the same items."""
    scored = [plan.score(answers.values, items) or {"samples": {}} for answers in (first, again)]
    return RepeatAgreement(
        {
            task: _of_task(own, first, again, *(_values(results["samples"].get(task, [])) for results in scored))
            for task, own in plan.chosen(items).items()
        }
    )


def _values(rows: list[dict[str, Any]]) -> AnswerValues:
    """Values by metric (with its filter, unless that is the default one) and item."""
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
    nats = []
    for keys in (keys for item in both for keys in item.keys):
        before, after = first.values[keys[0]], again.values[keys[0]]
        if not isinstance(before, str) and not isinstance(after, str):
            nats.append(abs(before[0] - after[0]))
    return {
        "items": len(both),
        "flip_share": _share(len(set().union(*changed.values())), len(both)),
        "metrics": {metric: _share(len(items), len(left[metric])) for metric, items in changed.items()},
        "answers_differ": _share(differing, len(both)),
        "max_nats": max(nats, default=None),
    }


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


@dataclass
class ServerEvaluation:
    """One evaluation of several models on one server; `answers` holds those of each model by its label on the server.

    `names` holds the label that an evaluation is recorded under, where it is not that one.
    """

    plan: RequestPlan
    answers: dict[str, Answers]
    server: LiveServer
    config: EvaluationConfig
    judge: SampleJudge | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    started_at: float = field(default_factory=time.monotonic)

    def ask_all(
        self, looks: InterimLooks | None = None, beside: Mapping[str, Path] = MappingProxyType({})
    ) -> AskedItems:
        """Gets answers to all items, or to those that the looks need; returns the items that were evaluated.

        The looks also see the finished evaluations `beside`.
        """
        if looks is None:
            self._ask(None)
            return AskedItems()
        with ExitStack() as stack:

            def results(items: ItemIndices) -> Mapping[str, Path]:
                """The evaluations of the items up to now, in folders that are removed with the stack."""
                folders = dict(beside)
                for label in self.answers:
                    folders[label] = Path(stack.enter_context(TemporaryDirectory(prefix="harness-look-")))
                    self._write(label, "", AskedItems(items, looks.seed), None, folders[label])
                return folders

            planned = {task: [item.index for item in own] for task, own in self.plan.tasks.items()}
            return AskedItems(looks.run(planned, self._ask, results), looks.seed)

    def repeat_check(self, asked_items: AskedItems) -> dict[str, RepeatAgreement]:
        """Asks every question again, in the opposite order and bypassing the journal; the agreement by label."""
        again = {label: Answers(first.model, f"{label}, again", None) for label, first in self.answers.items()}
        replace(self, answers=again)._ask(asked_items.items, backwards=True)
        agreements = {
            label: repeat_agreement(self.plan, first, again[label], asked_items.items)
            for label, first in self.answers.items()
        }
        for label, agreement in agreements.items():
            say(f"  repeat check of {label}: {agreement}")
        return agreements

    def write(
        self, label: str, weights_sha256: str, asked_items: AskedItems, repeat: RepeatAgreement | None, folder: Path
    ) -> None:
        """Writes the evaluation of one model, and has it judged where the suite has a judge."""
        self._write(label, weights_sha256, asked_items, repeat, folder)
        if self.judge is not None:
            self.judge.judge(folder)

    def _write(
        self, label: str, weights_sha256: str, asked_items: AskedItems, repeat: RepeatAgreement | None, folder: Path
    ) -> None:
        answers = replace(self.answers[label], label=self.names.get(label, label))
        seconds = time.monotonic() - self.started_at
        shares = None if repeat is None else repeat.flip_shares
        write_evaluation(self.plan, answers, weights_sha256, self.config, folder, seconds, asked_items, shares)
        if repeat is not None:
            repeat.save(folder / REPEAT_CHECK_FILE)

    def _ask(self, items: ItemIndices | None, backwards: bool = False) -> None:
        """Takes answers from the journals, then requests all missing ones together."""
        by_label = {answers.label: answers for answers in self.answers.values()}
        questions = self.plan.questions(items)
        keys = {key for question in questions for key in question.keys}
        for answers in by_label.values():
            answers.load_cached(keys)
        pending = [left for answers in by_label.values() for left in answers.missing(self.plan, questions)]
        total = len(keys) * len(by_label)
        requests = sum(len(one.question.keys) for one in pending)
        if requests < total:
            say(f"  {total - requests} of {total} requests were answered before (journal)")
        if not pending:
            return

        def on_result(one: PendingQuestion, entries: dict[bytes, JournalEntry] | RequestFailure) -> None:
            by_label[one.label].add_result(one.question, entries)

        dispatcher = RequestDispatcher(self.plan.renderer, self.config.serve, on_result)
        self.server.endpoint()
        started = time.monotonic()
        dispatcher.run(pending[::-1] if backwards else pending, self.server, ", ".join(by_label))
        seconds = time.monotonic() - started
        say(f"  {plural(requests, 'request')} answered in {seconds:.1f} s ({requests / seconds:.0f} per second)")
        if failed := sum(len(answers.failures) for answers in by_label.values()):
            say(f"  {plural(failed, 'request')} without an answer: the items are recorded as failed, with the reason")
