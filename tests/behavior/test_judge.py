"""The judge model: what it is asked, what its replies mean, and how far it is to be trusted."""

import json
from pathlib import Path
from typing import Any

import pytest
from judge_server import judge_server

from harness.behavior.exchange import Exchange
from harness.cli import main
from harness.core.errors import NetworkFault
from harness.core.resources import TASKS
from harness.data.evaluation_items import read_items
from harness.evaluate import llm_judge
from harness.evaluate.journal import Journal
from harness.evaluate.llm_judge import KEY, LlmJudge, Opinion, judge_agreement

SAID = ("PASS", "I say: fail.", "passed", "dunno", "PASS or FAIL")
LABELS = read_items(TASKS / "tone" / "labelled" / "answers.jsonl")
ITEM = read_items(TASKS / "tone" / "items.jsonl")[0]


def test_replies_become_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "secret")
    seen: list[dict[str, Any]] = []
    with judge_server(lambda body: body["messages"][1]["content"].split("\n")[1], seen) as url:
        verdicts = LlmJudge(url, "big", "Be kind.").verdicts([Exchange(said, "An answer") for said in SAID])
    assert verdicts == [True, False, True, None, None]
    assert {(body["path"], body["key"], body["model"], body["temperature"]) for body in seen} == {
        ("/v1/chat/completions", "Bearer secret", "big", 0)
    }
    assert all("Be kind." in body["messages"][0]["content"] for body in seen)


def test_a_busy_judge_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_judge, "FIRST_PAUSE_S", 0.01)
    seen: list[dict[str, Any]] = []
    with judge_server(
        lambda body: "PASS", seen, lambda body: 429 if len(seen) == 1 else 503 if len(seen) == 2 else 200
    ) as url:
        assert LlmJudge(url, "big", "").verdicts([Exchange("q", "a")]) == [True]
    assert len(seen) == 3


def test_a_request_that_is_refused_costs_one_opinion() -> None:
    def too_long(body: dict[str, Any]) -> bool:
        return "long" in body["messages"][1]["content"]

    with judge_server(lambda body: "PASS", [], lambda body: 400 if too_long(body) else 200) as url:
        asked = LlmJudge(url, "big", "")
        long, short = asked.opinions([Exchange("a long question", "a"), Exchange("q", "a")])
        assert (long.passed, short) == (None, Opinion(True, "PASS"))
        assert "PASS" in long.refused  # what the server said
        with pytest.raises(NetworkFault, match="refused"):
            asked.opinions([Exchange("a long question", "a")])


def test_what_a_judge_said_is_not_asked_again(tmp_path: Path) -> None:
    exchanges = [Exchange(f"question {number}", "a") for number in range(6)]
    journal = Journal(tmp_path / "replies.sqlite", {})
    seen: list[dict[str, Any]] = []
    with (
        judge_server(lambda body: "PASS", seen, lambda body: 404 if len(seen) > 3 else 200) as url,
        pytest.raises(NetworkFault, match="refused"),
    ):
        LlmJudge(url, "big", "Be kind.", concurrency=1, memory=journal).opinions(exchanges)
    assert len(journal) == 3
    seen.clear()
    with judge_server(lambda body: "FAIL", seen) as url:
        asked = LlmJudge(url, "big", "Be kind.", memory=journal)
        assert asked.verdicts(exchanges) == [True] * 3 + [False] * 3
        assert asked.verdicts(exchanges) == [True] * 3 + [False] * 3
        assert len(seen) == 3
        assert LlmJudge(url, "big", "Be strict.", memory=journal).verdicts(exchanges) == [False] * 6
    journal.close()


def test_what_is_refused_is_asked_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "replies.sqlite", {})
    pair = [Exchange("a long question", "a"), Exchange("q", "a")]
    with judge_server(lambda body: "PASS", [], lambda body: 400 if "long" in str(body) else 200) as url:
        assert LlmJudge(url, "big", "", memory=journal).verdicts(pair) == [None, True]
    with judge_server(lambda body: "FAIL", []) as url:
        assert LlmJudge(url, "big", "", memory=journal).verdicts(pair) == [False, True]
    journal.close()


def test_the_question_comes_last() -> None:
    """A small model that reads the request last answers it, and judges nothing."""
    asked = LlmJudge("", "big", "Be kind.").messages(Exchange("Why?", "Because."))
    assert asked[-1]["content"].rstrip().endswith("Reply with one word, PASS or FAIL.")


def test_a_judge_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_judge, "FIRST_PAUSE_S", 0.01)
    with pytest.raises(NetworkFault, match=r"http://127\.0\.0\.1:9 did not answer"):
        LlmJudge("http://127.0.0.1:9", "big", "").verdicts([Exchange("q", "a")])


def test_a_judge_that_refuses_says_why() -> None:
    with (
        judge_server(lambda body: "no such model", [], status=404) as url,
        pytest.raises(NetworkFault, match="no such model"),
    ):
        LlmJudge(url, "big", "").verdicts([Exchange("q", "a")])


def test_agreement() -> None:
    right = judge_agreement([True, True, False, False], [True, True, False, False])
    assert (right.kappa, right.same.right, right.unreadable) == (1.0, 4, 0)
    chance = judge_agreement([True, True, False, False], [True, False, True, False])
    assert chance.kappa == 0.0
    silent = judge_agreement([True, False], [None, None])
    assert (silent.kappa, silent.unreadable) == (0.0, 2)
    assert "undefined" in str(judge_agreement([True, True], [True, True]))


def saved(folder: Path) -> str:
    path = folder / "answers.jsonl"
    path.write_text(json.dumps({"id": ITEM["id"], "prompt": ITEM["instruction"], "response": "Well."}) + "\n")
    return str(path)


def test_score_shows_the_judges_verdict_and_its_worth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = {row["response"]: "PASS" if row["pass"] else "FAIL" for row in LABELS}

    def reply(body: dict[str, Any]) -> str:
        answer = body["messages"][1]["content"].split("<answer>\n")[1].partition("\n</answer>")[0]
        return right.get(answer, "FAIL")

    with judge_server(reply, []) as url:
        assert main(["score", "tone", saved(tmp_path), "--judge", f"{url}/v1", "--judge-model", "big"]) == 0
    verdict, worth = capsys.readouterr().out.splitlines()[-2:]
    assert verdict.startswith("judge big: 0.000")
    assert "(0/1) pass" in verdict
    assert f"({len(LABELS)}/{len(LABELS)}), Cohen's kappa 1.00" in worth


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["tone", "--judge", "http://127.0.0.1:9"], "--judge-model"), (["vocabulary", "--judge", "x"], "rubric.md")],
)
def test_what_a_judge_needs(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, *options = arguments
    options += ["--judge-model", "big"] if task == "vocabulary" else []
    items = read_items(TASKS / task / "items.jsonl")
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"id": items[0]["id"], "prompt": items[0]["instruction"], "response": "Well."}) + "\n")
    assert main(["score", task, str(path), *options]) == 2
    assert message in capsys.readouterr().err
