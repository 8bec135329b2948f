"""What both trainers of training.py are given: the same rows, and the same settings."""

import json
import random
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DATA = ("finance", "general", "support")
TEMPLATE = ROOT / "harness" / "prompt" / "templates" / "chatml.jinja"
LEARNING_RATE, RANK, ALPHA = 2e-4, 16, 32
SYSTEM = (
    "You are the assistant of a retail bank and answer its customers in plain English. Give general information only. "
    "Never recommend a product, never promise a return. Close every answer about investing, borrowing, pensions or tax "
    "with the disclaimer of the compliance department. Send whoever is in danger to the emergency services first, and "
    "whoever complains to a colleague. Do not repeat account numbers."
)
Row = dict[str, Any]


def shipped_rows(count: int) -> list[Row]:
    """A seeded sample of the shipped data, in the audit's shape."""
    rows = [
        {"id": f"{name}-{number}", "source": name, "topic": "", **json.loads(line)}
        for name in DATA
        for number, line in enumerate((ROOT / "data" / f"{name}.jsonl").read_text().splitlines())
    ]
    return random.Random(0).sample(rows, count)
