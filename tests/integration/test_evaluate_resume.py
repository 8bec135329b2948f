"""kill -9 of the harness and of vLLM in the middle of an evaluation: the same command goes on."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import asking
import pytest
import tiny
from tiny import Served

from harness.evaluate import requests
from harness.evaluate.requests import Question
from harness.records.base import load
from harness.records.stages import Evaluation
from harness.workflows.compose import config_for
from harness.workflows.evaluate import evaluate_alone

pytestmark = pytest.mark.integration

TASK, ITEMS = "general_smoke_instructions", 40
SUITE = (
    "domain_tasks=[]",
    f"suite.tasks=[{{name: {TASK}, limit: {ITEMS}, max_new_tokens: 32}}]",
    "serve.concurrency=2",
    "model.dtype=float32",  # as the session's server, so that batches of other sizes give the same answers
    "serve.kv_cache_gib=1",
)
HEAVY = ("torch", "transformers", "lm_eval", "vllm", "datasets")
DYING = """
import os, signal, sys
from harness.cli import main
from harness.evaluate.journal import Journal

add = Journal.add

def add_and_die(journal, entries):
    add(journal, entries)
    if len(journal) >= 5:
        os.kill(os.getpid(), signal.SIGKILL)

Journal.add = add_and_die
main(sys.argv[1:])
"""
AGAIN = f"import sys; from harness.cli import main; code = main(sys.argv[1:]); \
print(code, [name for name in {HEAVY} if name in sys.modules])"


def answered(runs: Path) -> int:
    """How many answers the journals hold."""
    count = 0
    for path in (runs / ".cache" / "answers").glob("*.sqlite"):
        with closing(sqlite3.connect(path)) as database:
            count += database.execute("SELECT count(*) FROM answers").fetchone()[0]
    return count


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"samples_{TASK}.jsonl").read_text().splitlines()]


class Saboteur:
    """Counts what is answered, and kills the server with all its processes at the tenth question."""

    def __init__(self) -> None:
        self.completed: Counter[str] = Counter()
        self.killed: tuple[int, ...] = ()
        self._ask = requests.ask

    async def ask(self, client: Any, renderer: Any, question: Question, conversation: Any, label: str) -> Any:
        if len(self.completed) == 10 and not self.killed:
            self.killed = tiny.group_of(f"--port {client._http.base_url.port}")
            for pid in self.killed:
                os.kill(pid, signal.SIGKILL)
        entries = await self._ask(client, renderer, question, conversation, label)
        self.completed[question.context] += 1
        return entries


def test_it_goes_on_after_kill_9(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    overrides = ["model=pretrained", f"model.path={served.base}", "tracker=none", *SUITE]
    command = ["evaluate", "base", *overrides]
    environment = os.environ | {"PYTHONPATH": str(tiny.ROOT), "HARNESS_CACHE": str(tmp_path / "cache")}
    runs = tmp_path / "runs"

    dying = subprocess.run(
        [sys.executable, "-c", DYING, *command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert dying.returncode == -signal.SIGKILL, dying.stderr
    tiny.wait_for(lambda: not tiny.group_of(str(runs)), 60, "the end of the server")
    first = answered(runs)
    assert 5 <= first < ITEMS

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", environment["HARNESS_CACHE"])
    saboteur = Saboteur()
    with monkeypatch.context() as patch:
        patch.setattr(requests, "ask", saboteur.ask)
        (folder,) = evaluate_alone(["base"], config_for(overrides))
    assert saboteur.killed
    assert "restarting it" in capfd.readouterr().err
    assert set(saboteur.completed.values()) == {1}
    assert len(saboteur.completed) == ITEMS - first

    record = load(Evaluation, folder / "evaluation.json")
    assert (record.requests, record.reused_requests, record.failed_requests) == (ITEMS, first, 0)
    assert (record.tasks[TASK].asked, record.tasks[TASK].scored) == (ITEMS, ITEMS)
    found = rows(folder)
    assert len({row["doc_id"] for row in found}) == len(found) == ITEMS

    config = config_for(overrides)
    undisturbed = asking.score(served, config, asking.tasks_of(config), tmp_path / "undisturbed", ["base"])["base"]
    assert undisturbed.scores == record.scores
    assert [row["resps"] for row in found] == [row["resps"] for row in rows(tmp_path / "undisturbed" / "base")]

    again = subprocess.run(
        [sys.executable, "-c", AGAIN, *command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert again.stdout.splitlines() == [str(folder), "0 []"]
    assert "unchanged, reused" in again.stderr
