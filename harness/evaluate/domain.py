"""What domain tasks share: items beside the task's YAML, prompts by the one rule, metrics from a behaviour."""

from functools import cache
from pathlib import Path
from typing import Any

from harness.behavior.exchange import Exchange
from harness.behavior.registry import Behavior, load_behavior
from harness.data.evaluation_items import read_items
from harness.prompt.messages import user_text


def items(config_source: str, file: str, **_: Any) -> dict[str, Any]:
    """The items of a task as lm-eval's `custom_dataset`: JSON lines beside the YAML, split `test`."""
    from datasets import Dataset

    return {"test": Dataset.from_list(read_items(Path(config_source).parent / file))}


def user_prompt(doc: dict[str, Any]) -> str:
    """The user's turn, joined as in training."""
    return user_text(doc["instruction"], doc["input"])


def behavior_metrics(name: str, doc: dict[str, Any], response: str) -> dict[str, float]:
    """The metrics of a behaviour on one answer; only those that apply to the item's topic."""
    exchange = Exchange(doc["instruction"], response, doc["input"], doc["topic"])
    return _behavior(name).check(exchange).metrics


@cache
def _behavior(name: str) -> Behavior:
    return load_behavior(name)
