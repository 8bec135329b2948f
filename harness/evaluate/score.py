"""Grades saved answers with a domain task's own checks: no model, no server."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.behavior.exchange import Check, Exchange
from harness.behavior.registry import behavior_folders, load_behavior
from harness.core.errors import ConfigError, DataError, nearest
from harness.data.evaluation_items import ITEMS, check_task_files, exchange, read_items
from harness.prompt.messages import user_text

ERRORS_SHOWN = 20


@dataclass(frozen=True)
class SavedAnswer:
    """One saved answer: the item's id, the prompt as it was asked, the response, the file's line."""

    id: str
    prompt: str
    response: str
    line: int


@dataclass(frozen=True)
class Scores:
    """What the checks say of all answers, in the file's order; `items` counts the items of the task."""

    checks: list[tuple[str, Check]]
    items: int

    @property
    def passed(self) -> int:
        return sum(check.passed for _, check in self.checks)

    @property
    def rates(self) -> dict[str, tuple[int, int]]:
        """Passed and judged answers a rule."""
        judged = Counter(finding.rule for _, check in self.checks for finding in check.findings)
        right = Counter(finding.rule for _, check in self.checks for finding in check.findings if finding.passed)
        return {rule: (right[rule], of) for rule, of in judged.items()}

    def rows(self) -> list[dict[str, Any]]:
        """The output's rows (INTERFACE of `score`)."""
        return [{"id": key, "pass": check.passed, "rules": check.rules()} for key, check in self.checks]

    def summary(self) -> str:
        """One line with counts and rates."""
        of = len(self.checks)
        rules = ", ".join(f"{rule} {right}/{judged}" for rule, (right, judged) in self.rates.items())
        counts = f"{of} answers to {self.items} items: {self.passed} pass, {of - self.passed} fail"
        return f"{counts} ({self.passed / of:.1%} pass); {rules}"


def score_file(task: str, path: Path) -> Scores:
    """Grades the answers in a file. Raises ConfigError for a faulty task, DataError with every fault of the file."""
    exchanges, items = saved_exchanges(task, path)
    behavior = load_behavior(task)
    return Scores([(key, behavior.check(said)) for key, said in exchanges], items)


def saved_exchanges(task: str, path: Path) -> tuple[list[tuple[str, Exchange]], int]:
    """Each answer of a file with its item, by the item's id, and the number of items. Raises as `score` does."""
    folders = behavior_folders()
    if task not in folders:
        raise ConfigError([f"task {task}: there is no tasks/{task}/behavior.yaml. {nearest(task, folders)}"])
    check_task_files([task])
    items = {item["id"]: item for item in read_items(folders[task] / ITEMS)}
    return [(a.id, exchange(items[a.id], a.response)) for a in _answers(path, items)], len(items)


def _answers(path: Path, items: dict[str, dict[str, Any]]) -> list[SavedAnswer]:
    """The file's answers, each to a known item, each item once."""
    read = [_answer(number, line) for number, line in enumerate(_lines(path), 1) if line.strip()]
    answers = [answer for answer in read if isinstance(answer, SavedAnswer)]
    faults: list[str] = []
    seen: dict[str, int] = {}
    for answer in read:
        faults += [answer] if isinstance(answer, str) else _mismatch(answer, items, seen)
        if isinstance(answer, SavedAnswer):
            seen.setdefault(answer.id, answer.line)
    if faults:
        shown = "\n".join(f"  - {fault}" for fault in faults[:ERRORS_SHOWN])
        more = f"\n  … and {len(faults) - ERRORS_SHOWN} more" if len(faults) > ERRORS_SHOWN else ""
        raise DataError(f"{path}: {len(faults)} fault{'s' if len(faults) > 1 else ''}:\n{shown}{more}")
    if not answers:
        raise DataError(f"{path} holds no answers")
    return answers


def _lines(path: Path) -> Sequence[str]:
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    try:
        return path.read_bytes().decode().split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from None


def _answer(number: int, line: str) -> SavedAnswer | str:
    """The answer in a line, or what is wrong with the line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"line {number} is not JSON: {error}"
    if not isinstance(row, dict):
        return f"line {number} is not a JSON object"
    fields = _sample_fields(row) if isinstance(row.get("doc"), dict) else row
    absent = [key for key in ("id", "prompt", "response") if key not in fields]
    if absent:
        return f"line {number}: {', '.join(absent)} missing (a row has id, prompt, response; or is an lm-eval sample)"
    wrong = [key for key in ("id", "prompt", "response") if not isinstance(fields[key], str)]
    if wrong:
        return f"line {number}: {', '.join(wrong)} is not text"
    return SavedAnswer(fields["id"], fields["prompt"], fields["response"], number)


def _sample_fields(row: dict[str, Any]) -> dict[str, Any]:
    """id, prompt and response of an lm-eval sample; what it does not hold is left out."""
    doc = row["doc"]
    fields: dict[str, Any] = {"prompt": user_text(str(doc.get("instruction", "")), str(doc.get("input") or ""))}
    if "id" in doc:
        fields["id"] = doc["id"]
    response = next(iter(row.get("filtered_resps") or row.get("resps") or []), None)
    while isinstance(response, list) and response:
        response = response[0]
    return fields if response is None else {**fields, "response": response}


def _mismatch(answer: SavedAnswer, items: dict[str, dict[str, Any]], seen: dict[str, int]) -> list[str]:
    """Why an answer cannot be graded: no such item, another prompt than the item's, a second answer."""
    if answer.id not in items:
        return [f"line {answer.line}: the task has no item {answer.id!r}; its ids are like {next(iter(items))}"]
    if answer.id in seen:
        return [f"line {answer.line}: item {answer.id} has an answer already (line {seen[answer.id]})"]
    if _plain(items[answer.id]["instruction"]) not in _plain(answer.prompt):
        return [f"line {answer.line}: the prompt does not hold the instruction of item {answer.id}"]
    return []


def _plain(text: str) -> str:
    return " ".join(text.split())
