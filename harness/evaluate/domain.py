"""Functions for the YAML of domain tasks: their items, the user prompt, and the metrics of a behaviour."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from harness.behavior.exchange import Check
from harness.behavior.registry import Behavior, load_behavior
from harness.behavior.rules import runs_functions
from harness.data.evaluation_items import exchange, read_items
from harness.prompt.messages import user_text


def items(config_source: str, file: str, **_: Any) -> dict[str, Any]:
    """The items of a task as lm-eval's `custom_dataset`: the JSON lines in `file` beside the YAML, as split `test`."""
    from datasets import Dataset

    return {"test": Dataset.from_list(read_items(Path(config_source).parent / file))}


def user_prompt(doc: dict[str, Any]) -> str:
    """The user's turn: instruction and input, joined as in training."""
    return user_text(doc["instruction"], doc["input"])


def grader(name: str) -> Callable[[dict[str, Any], list[str]], dict[str, float]]:
    """lm-eval's `process_results` for a behaviour's task; the returned function gives the metrics of one answer."""

    def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
        return behavior_metrics(name, doc, results[0])

    return process_results


def behavior_metrics(name: str, doc: dict[str, Any], response: str) -> dict[str, float]:
    """A behaviour's metrics of one answer: only those that apply to the item's topic."""
    return graded(name, doc, response).metrics


def graded(name: str, doc: dict[str, Any], response: str) -> Check:
    """A behaviour's check of one answer to an item, with all findings."""
    return _behavior(name, runs_functions()).check(exchange(doc, response))


@cache
def _behavior(name: str, with_functions: bool) -> Behavior:
    return load_behavior(name)
