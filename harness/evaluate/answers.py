"""The answers of one model: from its journal, from the current requests, and the reasons for those that are missing."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.evaluate.dispatch import PendingQuestion, RequestFailure
from harness.evaluate.journal import Journal, JournalEntry
from harness.evaluate.plan import PlannedItem, RequestPlan, Value
from harness.evaluate.requests import Question, without


@dataclass
class Answers:
    """Answers of one model by request key.

    `model` is the server's name for the model, `label` the one of its results. `reused` answers came from the journal:
    another process got them, in other batches. `merged` marks likelihoods whose first token would have merged with
    the prompt.
    """

    model: str
    label: str
    journal: Journal | None
    values: dict[bytes, Value] = field(default_factory=dict)
    reused: set[bytes] = field(default_factory=set)
    merged: set[bytes] = field(default_factory=set)
    failures: dict[bytes, RequestFailure] = field(default_factory=dict)

    def add(self, key: bytes, entry: JournalEntry, reused: bool = False) -> None:
        """Keeps one answer in memory."""
        self.values[key] = entry["text"] if "text" in entry else (entry["nats"], entry["greedy"])
        self.failures.pop(key, None)
        if entry.get("merged"):
            self.merged.add(key)
        if reused:
            self.reused.add(key)

    def load_cached(self, keys: Iterable[bytes]) -> None:
        """Adds the answers to these requests that the journal already holds."""
        if self.journal is not None:
            for key, entry in self.journal.lookup(key for key in keys if key not in self.values):
                self.add(key, entry, reused=True)

    def add_result(self, question: Question, entries: dict[bytes, JournalEntry] | RequestFailure) -> None:
        """Adds the answers to a question, to the journal first; or the reason why there are none."""
        if isinstance(entries, RequestFailure):
            self.failures |= dict.fromkeys(question.keys, entries)
            return
        if self.journal is not None:
            self.journal.add(entries)
        for key, entry in entries.items():
            self.add(key, entry)

    def missing(self, plan: RequestPlan, questions: list[Question]) -> list[PendingQuestion]:
        """The questions that still need an answer. Requests that have failed are not sent again."""
        known = self.values.keys() | self.failures.keys()
        left = (without(question, known) for question in questions)
        conversations = plan.model.conversations
        return [PendingQuestion(self.model, self.label, q, conversations.get(q.context)) for q in left if q is not None]

    def failure(self, item: PlannedItem) -> str | None:
        """Why an item has no score; None when all its requests were answered."""
        return next((self.failures[k].reason for keys in item.keys for k in keys if k in self.failures), None)
