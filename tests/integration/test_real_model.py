"""The whole chain on a real model: SmolLM2-135M learns the disclaimer, and the gate says how sure that is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from harness.model.load import local_model
from harness.workflows.compose import config_for

pytestmark = pytest.mark.real

REDUCED = (
    "data.sources.finance.path=finance.jsonl",
    "data.sources.general.path=general.jsonl",
    "domain_tasks=[{name: disclaimer, limit: 30, max_new_tokens: 96}]",
    "suite.tasks=[{name: general_smoke, limit: 5}]",
    "train.epochs=2",
    "tracker=none",
)


def thin_out(name: str, topics: dict[str, int], folder: Path) -> None:
    """So many rows of each topic of a shipped file, evenly spread."""
    rows = [json.loads(line) for line in (tiny.ROOT / "data" / name).read_text().splitlines()]
    kept: list[str] = []
    for topic, count in topics.items():
        own = [row for row in rows if row["topic"] == topic]
        kept += [json.dumps(own[n * len(own) // count]) for n in range(count)]
    (folder / name).write_text("\n".join(kept))


def test_the_disclaimer_is_learnt(tmp_path: Path) -> None:
    base = local_model(config_for([]).model)  # converted once into the cache
    assert (base / "model.safetensors").is_file()
    thin_out("finance.jsonl", {"investing": 100, "banking": 25}, tmp_path)
    thin_out("general.jsonl", {"general": 20}, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "run", "experiment=finance_disclaimer", *REDUCED],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tiny.ROOT)},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode in (0, 10, 11), done.stderr
    (run,) = (path.parent for path in tmp_path.glob("runs/*/run.json"))
    assert (run / "report" / "index.html").stat().st_size > 0
    found = json.loads((run / "verdict.json").read_text())["metrics"]
    metrics = {(m["task"], m["metric"]): m for m in found if m["slice"] == "all"}
    recall = metrics["disclaimer", "recall"]
    assert recall["n"] > 5
    assert recall["baseline"] < 0.2
    assert recall["candidate"] > recall["baseline"] + 0.3
