"""Models asked together: failed items, repeats, looks, the A/A check, what another process already asked."""

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import asking
import pytest
import tiny
from asking import tasks_of
from evaluation_folders import guard, policy
from tiny import Served

from harness.config.experiment import Config
from harness.config.gate import SequentialConfig
from harness.core.errors import RequestRefused, ServerFault
from harness.evaluate import dispatch, requests
from harness.evaluate.interim_looks import InterimLooks
from harness.evaluate.journal import Journal, JournalEntry
from harness.evaluate.requests import Question
from harness.gate.comparison import compare
from harness.gate.sequential import first_items
from harness.gate.verdict import decide
from harness.records.stages import Evaluation
from harness.results.evidence import read_evidence
from harness.workflows.interim_looks import looks_of

pytestmark = pytest.mark.integration

TASK, ITEMS = "general_smoke_instructions", 8
SUITE = f"suite.tasks=[{{name: {TASK}, limit: {ITEMS}, max_new_tokens: 8}}]"
CHOICES, CHOSEN = "arc_easy", 4
needs_hub = pytest.mark.skipif(not tiny.HUB.is_dir(), reason=f"no local copies of hub datasets in {tiny.HUB}")


@pytest.fixture(scope="module")
def config(served: Served) -> Config:
    return tiny.config(served.base, "domain_tasks=[]", SUITE)


def rows(folder: Path, task: str = TASK) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"samples_{task}.jsonl").read_text().splitlines()]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often each model was asked each question."""
    asked: Counter[tuple[str, str]] = Counter()
    ask = requests.ask

    async def counting(client: Any, renderer: Any, question: Question, conversation: Any, label: str) -> Any:
        asked[label, question.context] += 1
        return await ask(client, renderer, question, conversation, label)

    monkeypatch.setattr(requests, "ask", counting)
    return asked


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, choose: Callable[[Question], bool]) -> None:
    ask = requests.ask

    async def failing(client: Any, renderer: Any, question: Question, *rest: Any) -> Any:
        if choose(question):
            raise error
        return await ask(client, renderer, question, *rest)

    monkeypatch.setattr(requests, "ask", failing)
    monkeypatch.setattr(dispatch, "FIRST_PAUSE_S", 0.01)


def sums(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Models that know sums, the candidate nine of ten, and nothing else; how often each was asked each request."""
    rows_ = [json.loads(line) for line in (tiny.ROOT / "tasks/general_smoke/arithmetic.jsonl").read_text().splitlines()]
    known = {row["instruction"]: str(json.loads(row["check"])["value"]) for row in rows_}
    asked: Counter[tuple[str, str]] = Counter()

    async def ask(
        client: Any, renderer: Any, question: Question, conversation: Any, label: str
    ) -> dict[bytes, JournalEntry]:
        asked[label, question.keys[0].hex()] += 1
        says = known.get(conversation[0][-1]["content"], "nothing")
        forgot = label == "candidate" and question.keys[0][0] % 10 == 0
        return {question.keys[0]: {"text": "0" if forgot else says}}

    monkeypatch.setattr(requests, "ask", ask)
    return asked


def copied(source: Path, target: Path, label: str, share: float) -> set[str]:
    """A seeded share of a journal's answers in another folder; returns the keys, in hexadecimal."""
    database = sqlite3.connect(source / f"{label}.sqlite")
    found = database.execute("SELECT key, answer FROM answers ORDER BY key").fetchall()
    database.close()
    chosen = random.Random(label).sample(found, round(share * len(found)))
    journal = Journal(target / f"{label}.sqlite", {"model": label})
    journal.add({key: json.loads(answer) for key, answer in chosen})
    journal.close()
    return {key.hex() for key, _ in chosen}


class TestJournal:
    def test_nothing_is_asked_twice_and_what_others_asked_is_counted(
        self, served: Served, config: Config, tmp_path: Path, counted: Counter[tuple[str, str]]
    ) -> None:
        loaded = tasks_of(config)
        first = asking.score(served, config, loaded, tmp_path / "first", ["base"], tmp_path)["base"]
        assert (first.requests, first.reused_requests) == (ITEMS, 0)
        both = asking.score(served, config, loaded, tmp_path / "both", ["base", "candidate"], tmp_path)
        assert both["base"].reused_requests == ITEMS
        assert both["candidate"].reused_requests == 0
        assert len(counted) == 2 * ITEMS
        assert set(counted.values()) == {1}
        assert rows(tmp_path / "first" / "base") == rows(tmp_path / "both" / "base")
        assert both["base"].scores == first.scores

    def test_together_and_alone_give_the_same_answers(self, served: Served, config: Config, tmp_path: Path) -> None:
        """Requests to the base model and to an adapter share batches."""
        loaded = tasks_of(config)
        asking.score(served, config, loaded, tmp_path / "together", ["base", "candidate"])
        for label in ("base", "candidate"):
            asking.score(served, config, loaded, tmp_path / "alone", [label])
            together, alone = (rows(tmp_path / name / label) for name in ("together", "alone"))
            assert [row["resps"] for row in together] == [row["resps"] for row in alone]


class TestFailures:
    def folder(
        self, served: Served, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> tuple[Path, Evaluation]:
        loaded = tasks_of(config)
        asking.score(served, config, loaded, tmp_path / "sound", ["base"])
        prompt = str(rows(tmp_path / "sound" / "base")[3]["arguments"]["gen_args_0"]["arg_0"])
        with monkeypatch.context() as patch:
            failing(patch, error, lambda question: question.context == prompt)
            record = asking.score(served, config, loaded, tmp_path / "broken", ["base"])["base"]
        return tmp_path / "broken" / "base", record

    def test_a_failed_item_is_there_without_a_score(
        self, served: Served, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, record = self.folder(served, config, tmp_path, monkeypatch, ServerFault("the server failed at this"))
        identity = record.tasks[TASK]
        assert (identity.asked, identity.scored, identity.failed) == (ITEMS, ITEMS - 1, 1)
        assert identity.failures == {f"the server failed at this ({dispatch.ATTEMPTS} attempts)": 1}
        assert record.failed_requests == 1
        found = rows(folder)
        assert [row["doc_id"] for row in found] == [row["doc_id"] for row in rows(tmp_path / "sound" / "base")]
        (failed,) = (row for row in found if "failed" in row)
        whole = rows(tmp_path / "sound" / "base")[3]
        assert set(failed) >= set(whole) - set(whole["metrics"]) - {"findings"}
        same = ("doc", "doc_hash", "prompt_hash", "target_hash", "target", "arguments", "filter")
        assert {key: failed[key] for key in same} == {key: whole[key] for key in same}
        assert failed["metrics"] == []
        assert {score.n for score in record.scores} == {ITEMS - 1}

    def test_the_comparison_is_refused(
        self, served: Served, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, record = self.folder(served, config, tmp_path, monkeypatch, RequestRefused("the prompt is too long"))
        assert (record.refused_requests, record.failed_requests) == (1, 0)
        faults = compare(read_evidence(tmp_path / "sound" / "base"), read_evidence(folder)).faults
        assert any("1 item of base has no score" in fault for fault in faults)

    def test_a_task_without_any_answer_is_still_told(
        self, served: Served, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failing(monkeypatch, RequestRefused("the prompt is too long"), lambda question: True)
        record = asking.score(served, config, tasks_of(config), tmp_path, ["base"])["base"]
        assert (record.tasks[TASK].scored, record.tasks[TASK].failed) == (0, ITEMS)
        assert len(rows(tmp_path / "base")) == ITEMS
        assert record.scores == []


class TestRepeats:
    def test_each_repeat_of_a_sampled_answer_is_another(self, served: Served, config: Config, tmp_path: Path) -> None:
        loaded = tasks_of(config)
        task = loaded["tasks"][TASK]
        before = task.get_config("repeats"), dict(task.get_config("generation_kwargs"))
        try:
            task.set_config("repeats", 3)
            task.set_config("generation_kwargs", {**before[1], "do_sample": True, "temperature": 1.0})
            for name in ("first", "again"):
                asking.score(served, config, loaded, tmp_path / name, ["base"])
        finally:
            task.set_config("repeats", before[0])
            task.set_config("generation_kwargs", before[1])
        for row in rows(tmp_path / "first" / "base"):
            (answers,) = row["resps"]
            assert len(set(answers)) == 3
        first, again = (rows(tmp_path / name / "base") for name in ("first", "again"))
        assert [row["resps"] for row in first] == [row["resps"] for row in again]


class TestLooks:
    def test_a_decided_task_is_asked_no_further(self, served: Served, tmp_path: Path) -> None:
        other = "general_smoke_arithmetic"
        tasks = ", ".join(f"{{name: {name}, limit: {ITEMS}, max_new_tokens: 4}}" for name in (TASK, other))
        config = tiny.config(served.base, "domain_tasks=[]", f"suite.tasks=[{tasks}]")
        seen: list[dict[str, int]] = []

        def decided(folders: Mapping[str, Path]) -> list[str]:
            evidence = [read_evidence(folders[label]) for label in ("base", "candidate")]
            assert compare(evidence[0], evidence[1]).faults == []
            seen.append({task: identity.asked for task, identity in evidence[1].identities.items()})
            return [TASK]

        looks = InterimLooks(
            sizes=lambda planned: [3, 5],
            order=lambda task, items: first_items(items, 7, task),
            seed=7,
            rule="stop one task",
            decided=decided,
            in_full=["base"],
        )
        labels = ["base", "candidate"]
        records = asking.score(served, config, tasks_of(config), tmp_path, labels, tmp_path / "journals", looks=looks)
        assert seen == [{TASK: 3, other: 3}, {TASK: 3, other: 5}]
        stopped, whole = records["candidate"].tasks[TASK], records["candidate"].tasks[other]
        assert (stopped.planned, stopped.stopped_at, stopped.asked, stopped.order_seed) == (ITEMS, 3, 3, 7)
        assert (whole.planned, whole.stopped_at, whole.asked) == (ITEMS, ITEMS, ITEMS)
        assert (len(rows(tmp_path / "candidate")), len(rows(tmp_path / "candidate", other))) == (3, ITEMS)
        assert {task.asked for task in records["base"].tasks.values()} == {ITEMS}
        assert [record.reused_requests for record in records.values()] == [0, 0]
        assert compare(read_evidence(tmp_path / "base"), read_evidence(tmp_path / "candidate")).faults == []

    def test_the_decision_never_depends_on_what_was_answered_before(
        self, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two models that answer from a table, with any share of the answers in the journals already."""
        tasks = [TASK, "general_smoke_arithmetic"]
        named = ", ".join(f"{{name: {name}, max_new_tokens: 4}}" for name in tasks)
        config = tiny.config(served.base, "domain_tasks=[]", f"suite.tasks=[{named}]")
        rules = [guard(f"*/{name}/acc", margin="10 points") for name in tasks]
        gate = policy(*rules, sequential=SequentialConfig(looks=4))
        asked = sums(monkeypatch)
        labels = ["base", "candidate"]
        asking.score(served, config, tasks_of(config), tmp_path / "whole", labels, tmp_path / "all")
        decisions = []
        for number, shares in enumerate([(0, 0), (1, 0), (0, 1), (0.5, 0.5), (1, 1)]):
            out, journals = tmp_path / f"out-{number}", tmp_path / f"some-{number}"
            known = {
                label: copied(tmp_path / "all", journals, label, share)
                for label, share in zip(labels, shares, strict=True)
            }
            asked.clear()
            looks = looks_of(gate, config.suite, "base", "candidate")
            found = asking.score(served, config, tasks_of(config), out, labels, journals, looks=looks)["candidate"]
            assert not any(key in known[label] for label, key in asked), "nothing is asked twice"
            stops = {task: (one.stopped_at, one.planned) for task, one in found.tasks.items()}
            verdict = decide(gate, compare(read_evidence(out / "base"), read_evidence(out / "candidate"), gate))
            decisions.append((stops, {line.task: (line.verdict, line.look, line.n) for line in verdict.metrics}))
        assert all(decision == decisions[0] for decision in decisions)
        stops, lines = decisions[0]
        assert stops == {tasks[0]: (55, 110), tasks[1]: (98, 130)}
        assert lines == {tasks[0]: ("PASS", 2, 55), tasks[1]: ("FAIL", 3, 98)}


class TestAA:
    def test_it_says_what_share_flips(self, served: Served, tmp_path: Path, counted: Counter[tuple[str, str]]) -> None:
        config = tiny.config(served.base, "domain_tasks=[]", SUITE, "suite.aa=true")
        record = asking.score(served, config, tasks_of(config), tmp_path, ["base"], tmp_path)["base"]
        assert set(counted.values()) == {1}
        assert len(counted) == 2 * ITEMS
        assert record.aa_flip_share is not None
        assert set(record.aa_flip_share) == {TASK}
        assert record.aa_flip_share[TASK] == 0
        told = json.loads((tmp_path / "base" / "aa.json").read_text())["tasks"][TASK]
        assert told["items"] == ITEMS
        assert set(told["metrics"]) == {"acc"}
        assert told["max_nats"] is None

    @needs_hub
    def test_it_measures_likelihoods_and_every_model_sees_the_same_examples(
        self, served: Served, tmp_path: Path
    ) -> None:
        suite = f"suite.tasks=[{{name: {CHOICES}, limit: {CHOSEN}, num_fewshot: 2}}]"
        config = tiny.config(served.base, "domain_tasks=[]", suite, "suite.aa=true", f"hub_dir={tiny.HUB}")
        labels = ["base", "candidate"]
        records = asking.score(served, config, tasks_of(config), tmp_path, labels)
        for label in labels:
            told = json.loads((tmp_path / label / "aa.json").read_text())["tasks"][CHOICES]
            assert 0 <= told["max_nats"] < 1e-3
            assert records[label].requests == 4 * CHOSEN
        assert compare(read_evidence(tmp_path / "base"), read_evidence(tmp_path / "candidate")).faults == []
