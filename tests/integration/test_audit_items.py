"""Stock tasks are covered: the audit looks for the very items that lm-eval will ask."""

from collections import Counter

import pytest
from tiny import HUB

from harness.compose import config_for
from harness.pipeline import evaluation_items

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not HUB.is_dir(), reason="needs the benchmark copies of ../shared/hub"),
]


def test_items_of_stock_and_own_tasks() -> None:
    config = config_for(["experiment=finance_disclaimer", "suite=general", f"hub_dir={HUB}", "tracker=none"])
    items = evaluation_items(config)
    counts = Counter(item["task"] for item in items)
    assert set(counts) == {task.name for task in config.tasks}
    assert counts["arc_easy"] == 2000
    assert all(item["text"].strip() for item in items)
    assert len({(item["task"], item["id"]) for item in items}) == len(items)
