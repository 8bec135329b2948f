"""Where the audit meets the engine: items of stock tasks, and rows of several turns as they are trained on."""

import json
from collections import Counter
from pathlib import Path

import pytest
from tiny import HUB, config

from harness.data.audit import audit
from harness.data.tables import read_rows
from harness.model.load import load_tokenizer
from harness.train.finetune import finetune
from harness.workflows.compose import config_for
from harness.workflows.evaluate import evaluation_items

pytestmark = pytest.mark.integration


@pytest.mark.skipif(not HUB.is_dir(), reason="needs the benchmark copies of ../shared/hub")
def test_items_of_stock_and_own_tasks() -> None:
    chosen = config_for(
        [
            "experiment=finance_disclaimer",
            "suite=general",
            f"hub_dir={HUB}",
            "tracker=none",
            "suite.skip=[truthfulqa_mc2]",
        ]
    )
    items = evaluation_items(chosen)
    counts = Counter(item["task"] for item in items)
    assert {task.name for task in chosen.tasks} - {"general_mmlu"} | {"general_smoke", "mmlu_anatomy"} <= set(counts)
    assert counts["arc_easy"] == 2000
    assert all(item["text"].strip() for item in items)
    assert len({(item["task"], item["id"]) for item in items}) == len(items)


def test_every_answer_of_a_conversation_is_trained_on(tiny_base: Path, tmp_path: Path) -> None:
    turns = ["What is a bond?", "A loan that can be traded on a market.", "Who sells it?", "The bank that you trust."]
    messages = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, turns, strict=True)]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": messages}))
    small = config(tiny_base, f"++data.sources={{mine: {{path: {tmp_path / 'rows.jsonl'}, licence: CC0-1.0}}}}")
    mine = small.data.model_copy(update={"sources": {"mine": small.data.sources["mine"]}})
    audit(mine, small.audit, [], tmp_path)
    (tmp_path / "checkpoint").mkdir()
    summary = finetune(small.training, tiny_base, read_rows(tmp_path), tmp_path / "checkpoint")
    tokenizer = load_tokenizer(tiny_base)
    answers = [len(tokenizer.encode(text, add_special_tokens=False)) + 1 for text in turns[1::2]]
    assert (summary.rows, summary.supervised_tokens) == (1, sum(answers))
