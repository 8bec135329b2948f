"""Grades saved answers with a domain task's own checks, without a model or a server."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.behavior.exchange import Check, Exchange
from harness.behavior.registry import behavior_folders, load_behavior
from harness.core.console import plural
from harness.core.errors import ConfigError, DataError, nearest
from harness.data.evaluation_items import ITEMS, check_task_files, exchange, read_items
from harness.prompt.messages import user_text

COLUMNS = ("id", "prompt", "response")
TABLES = (".csv", ".tsv", ".xlsx", ".xlsm")
ERRORS_SHOWN = 20
MISSING_SHOWN = 3


@dataclass(frozen=True)
class SavedAnswer:
    """One saved answer: the item's id, the prompt as it was sent, the response, and its place in the file."""

    id: str
    prompt: str
    response: str
    where: str


@dataclass(frozen=True)
class Scores:
    """The checks of all answers, as (id, check) in the file's order; the ids of the items; how a table was read."""

    checks: list[tuple[str, Check]]
    items: Sequence[str]
    notes: Sequence[str] = ()

    @property
    def passed(self) -> int:
        return sum(check.passed for _, check in self.checks)

    @property
    def rates(self) -> dict[str, tuple[int, int]]:
        """Passed and checked answers for each rule."""
        checked = Counter(finding.rule for _, check in self.checks for finding in check.findings)
        passed = Counter(finding.rule for _, check in self.checks for finding in check.findings if finding.passed)
        return {rule: (passed[rule], of) for rule, of in checked.items()}

    def rows(self) -> list[dict[str, Any]]:
        """The rows that `harness score --out` writes."""
        return [{"id": key, "pass": check.passed, "rules": check.rules()} for key, check in self.checks]

    def explanations(self) -> list[str]:
        """One line an answer, then one a rule: whether it is met, what it expects, and the words that were found."""
        lines = []
        for key, check in self.checks:
            lines.append(f"{key}: {'pass' if check.passed else 'fail'}")
            for rule in check.findings:
                mark = "met   " if rule.passed else "broken"
                lines.append(f"  {mark} {rule.rule}: expected {rule.expected}; found {rule.found}")
        return lines

    def summary(self) -> str:
        """One line with counts and rates."""
        of = len(self.checks)
        rules = ", ".join(f"{rule} {passed}/{checked}" for rule, (passed, checked) in self.rates.items())
        answers, items = plural(of, "answer"), plural(len(self.items), "item")
        counts = f"{answers} to {items}: {self.passed} pass, {of - self.passed} fail ({self.passed / of:.1%} pass)"
        answered = {key for key, _ in self.checks}
        missing = [key for key in self.items if key not in answered]
        more = f" and {len(missing) - MISSING_SHOWN} more" if len(missing) > MISSING_SHOWN else ""
        absent = f"; no answer to {', '.join(missing[:MISSING_SHOWN])}{more}" if missing else ""
        return f"{counts}; {rules}{absent}"


def score_file(task: str, path: Path) -> Scores:
    """Grades the answers in a file. Raises ConfigError for an invalid task, DataError with all errors of the file."""
    notes: list[str] = []
    exchanges, items = saved_exchanges(task, path, notes)
    behavior = load_behavior(task)
    return Scores([(key, behavior.check(answered)) for key, answered in exchanges], items, notes)


def saved_exchanges(
    task: str, path: Path, said: list[str] | None = None
) -> tuple[list[tuple[str, Exchange]], list[str]]:
    """(item id, exchange) of each answer in a file, and the ids of the task's items. Raises as `score_file` does.

    `said` receives what was found out about a table: its encoding and delimiter, the columns that are not read.
    """
    said = said if said is not None else []
    folders = behavior_folders()
    if task not in folders:
        raise ConfigError([f"task {task}: there is no tasks/{task}/behavior.yaml. {nearest(task, folders)}"])
    check_task_files([task])
    items = {item["id"]: item for item in read_items(folders[task] / ITEMS)}
    return [(a.id, exchange(items[a.id], a.response)) for a in _answers(path, items, said)], list(items)


def _answers(path: Path, items: dict[str, dict[str, Any]], said: list[str]) -> list[SavedAnswer]:
    """The file's answers: each belongs to a known item, and no item has two. Raises DataError for anything else."""
    if not path.is_file():
        state = "is not a regular file; save the answers to one" if path.exists() else "does not exist"
        raise DataError(f"{path} {state}")
    read = _of_table(path, said) if path.suffix.lower() in TABLES else _of_lines(path)
    answers = [answer for answer in read if isinstance(answer, SavedAnswer)]
    errors: list[str] = []
    seen: dict[str, str] = {}
    for answer in read:
        errors += [answer] if isinstance(answer, str) else _mismatch(answer, items, seen)
        if isinstance(answer, SavedAnswer):
            seen.setdefault(answer.id, answer.where)
    if errors:
        shown = "\n".join(f"  - {error}" for error in errors[:ERRORS_SHOWN])
        more = f"\n  … and {len(errors) - ERRORS_SHOWN} more" if len(errors) > ERRORS_SHOWN else ""
        raise DataError(f"{path}: {plural(len(errors), 'error')}:\n{shown}{more}")
    if not answers:
        raise DataError(f"{path} holds no answers: it has no line with id, prompt and response")
    return answers


def _of_lines(path: Path) -> list[SavedAnswer | str]:
    """The answers of a file in JSON lines, and the errors in it."""
    try:
        lines = path.read_bytes().decode().split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from None
    read: list[SavedAnswer | str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            read.append(f"line {number} is not JSON: {error}")
        else:
            read.append(_answer(f"line {number}", row))
    return read


def _of_table(path: Path, said: list[str]) -> list[SavedAnswer | str]:
    """The answers of a CSV, TSV or Excel file with the columns id, prompt and response, and the errors in it.

    `said` receives what was found out about the file, and the columns that are not read.
    """
    from harness.data.files import read_records

    read: list[SavedAnswer | str] = []
    unread: dict[str, None] = {}
    for record in read_records(path, set(COLUMNS), said=said):
        if record.values is None:
            read.append(f"{record.where}: {record.reason}")
            continue
        values = {str(name).strip().lower(): value for name, value in record.values.items()}
        unread |= dict.fromkeys(name for name in values if name not in COLUMNS)
        read.append(_answer(record.where, {name: values[name] for name in COLUMNS if name in values}))
    if unread:
        said.append(f"{path.name}: not read: {', '.join(unread)}")
    return read


def _answer(where: str, row: Any) -> SavedAnswer | str:
    """The answer in a row, or the error in it."""
    if not isinstance(row, dict):
        return f"{where} is not a JSON object"
    fields = _sample_fields(row) if isinstance(row.get("doc"), dict) else row
    absent = [key for key in COLUMNS if key not in fields]
    if absent:
        return f"{where}: missing {', '.join(absent)} (a row holds id, prompt and response, or is an lm-eval sample)"
    wrong = [key for key in COLUMNS if not isinstance(fields[key], str)]
    if wrong:
        return f"{where}: {' and '.join(wrong)} must be text"
    return SavedAnswer(fields["id"], fields["prompt"], fields["response"], where)


def _sample_fields(row: dict[str, Any]) -> dict[str, Any]:
    """id, prompt and response of an lm-eval sample, without those that it does not hold."""
    doc = row["doc"]
    fields: dict[str, Any] = {"prompt": user_text(str(doc.get("instruction", "")), str(doc.get("input") or ""))}
    if "id" in doc:
        fields["id"] = doc["id"]
    response = next(iter(row.get("filtered_resps") or row.get("resps") or []), None)
    while isinstance(response, list) and response:
        response = response[0]
    return fields if response is None else {**fields, "response": response}


def _mismatch(answer: SavedAnswer, items: dict[str, dict[str, Any]], seen: dict[str, str]) -> list[str]:
    """Why an answer cannot be graded: an unknown item, a second answer to it, or another prompt than the item's."""
    if answer.id not in items:
        return [f"{answer.where}: the task has no item {answer.id!r}; its ids have the form {next(iter(items))}"]
    if answer.id in seen:
        return [f"{answer.where}: item {answer.id} already has an answer in {seen[answer.id]}"]
    if _plain(items[answer.id]["instruction"]) not in _plain(answer.prompt):
        return [f"{answer.where}: the prompt does not contain the instruction of item {answer.id}"]
    return []


def _plain(text: str) -> str:
    return " ".join(text.split())
