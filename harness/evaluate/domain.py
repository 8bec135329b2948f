"""What domain tasks share: items beside the task's YAML, prompts by the one rule, metrics from a behaviour."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from harness.behavior.exchange import Check
from harness.behavior.registry import Behavior, load_behavior
from harness.data.evaluation_items import exchange, read_items
from harness.prompt.messages import user_text


def items(config_source: str, file: str, **_: Any) -> dict[str, Any]:
    """The items of a task as lm-eval's `custom_dataset`: JSON lines beside the YAML, split `test`."""
    from datasets import Dataset

    return {"test": Dataset.from_list(read_items(Path(config_source).parent / file))}


def user_prompt(doc: dict[str, Any]) -> str:
    """The user's turn, joined as in training."""
    return user_text(doc["instruction"], doc["input"])


def grader(name: str) -> Callable[[dict[str, Any], list[str]], dict[str, float]]:
    """lm-eval's `process_results` for the task of a behaviour: its metrics on one answer."""

    def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
        return behavior_metrics(name, doc, results[0])

    return process_results


def behavior_metrics(name: str, doc: dict[str, Any], response: str) -> dict[str, float]:
    """The metrics of a behaviour on one answer; only those that apply to the item's topic."""
    return graded(name, doc, response).metrics


def graded(name: str, doc: dict[str, Any], response: str) -> Check:
    """Everything a behaviour finds in one answer to an item."""
    return _behavior(name).check(exchange(doc, response))


@cache
def _behavior(name: str) -> Behavior:
    return load_behavior(name)
