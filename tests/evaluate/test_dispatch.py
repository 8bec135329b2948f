"""Dispatch: every question gets exactly one result, whatever the server does; a failure has its reason."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest
from fake_server import DIES, HANGS, HANGS_UP, OK, FakeServer, Renderer, question

from harness.config.experiment import ServeConfig
from harness.core.errors import PromptMismatch
from harness.evaluate import dispatch
from harness.evaluate.dispatch import PendingQuestion, RequestDispatcher, RequestFailure
from harness.evaluate.journal import JournalEntry
from harness.evaluate.requests import Question
from harness.serve.session import LiveServer

PROMPTS = [f"question {number:03d}" for number in range(40)]
Results = dict[str, dict[bytes, JournalEntry] | RequestFailure]


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(dispatch, "LONGEST_PAUSE_S", 0.02)


def dispatched(
    server: FakeServer, prompts: Sequence[str] = PROMPTS, concurrency: int = 8, stall_timeout_s: float = 120
) -> Results:
    """The results by prompt; two results of one question are an error."""
    results: Results = {}

    def on_result(one: PendingQuestion, entries: dict[bytes, JournalEntry] | RequestFailure) -> None:
        assert one.question.context not in results
        results[one.question.context] = entries

    config = ServeConfig(concurrency=concurrency, request_timeout_s=600, stall_timeout_s=stall_timeout_s)
    pending = [PendingQuestion("base", "base", question(p), ([{"role": "user", "content": p}], True)) for p in prompts]
    with LiveServer(server.start) as live:
        RequestDispatcher(Renderer(), config, on_result).run(pending, live, "test")  # type: ignore[arg-type]
    assert sorted(results) == sorted(prompts)
    return results


def texts(results: Results) -> dict[str, str]:
    return {
        prompt: entries[prompt.encode()]["text"]
        for prompt, entries in results.items()
        if not isinstance(entries, RequestFailure)
    }


def failures(results: Results) -> dict[str, RequestFailure]:
    return {prompt: entries for prompt, entries in results.items() if isinstance(entries, RequestFailure)}


def always(status: int, of: str = "") -> Callable[[str, int], int]:
    return lambda prompt, before: status if of in prompt else OK


def test_every_question_is_answered_and_concurrency_is_bounded() -> None:
    together = threading.Barrier(8)

    def behave(prompt: str, before: int) -> int:
        together.wait(timeout=30)  # opens when eight are in flight: fewer would break it
        return OK

    server = FakeServer(behave)
    assert texts(dispatched(server)) == {prompt: prompt.upper() for prompt in PROMPTS}
    assert set(server.asked.values()) == {1}
    assert server.most_in_flight == 8


@pytest.mark.parametrize("trouble", [500, 503 + 1, 429, HANGS_UP])
def test_a_request_that_fails_at_first_is_retried(trouble: int) -> None:
    server = FakeServer(lambda prompt, before: trouble if before < 2 and prompt.endswith("7") else OK)
    assert len(texts(dispatched(server))) == len(PROMPTS)
    assert server.asked["question 007"] == 3
    assert server.starts == 1


def test_a_request_that_always_fails_is_recorded_with_the_reason() -> None:
    results = dispatched(FakeServer(always(500, "007")))
    assert len(texts(results)) == len(PROMPTS) - 1
    (failure,) = failures(results).values()
    assert "the vLLM server failed" in failure.reason
    assert f"{dispatch.ATTEMPTS} attempts" in failure.reason
    assert not failure.refused


def test_a_refused_request_is_not_retried() -> None:
    server = FakeServer(always(400, "007"))
    (failure,) = failures(dispatched(server)).values()
    assert failure.refused
    assert server.asked["question 007"] == 1


def test_a_server_that_dies_once_is_restarted() -> None:
    server = FakeServer(lambda prompt, before: DIES if prompt.endswith("20") and before == 0 else OK)
    assert len(texts(dispatched(server))) == len(PROMPTS)
    assert server.starts == 2
    assert set(server.answered.values()) == {1}


def test_a_question_that_kills_the_server_is_the_only_one_given_up() -> None:
    server = FakeServer(always(DIES, "020"))
    results = dispatched(server)
    assert set(failures(results)) == {"question 020"}
    assert "died or hung all 3 times" in failures(results)["question 020"].reason
    assert len(texts(results)) == len(PROMPTS) - 1
    assert {server.answered[p] for p in PROMPTS if p != "question 020"} == {1}


def test_a_server_that_hangs_is_restarted(capsys: pytest.CaptureFixture[str]) -> None:
    server = FakeServer(lambda prompt, before: HANGS if prompt.endswith("20") and before == 0 else OK)
    assert len(texts(dispatched(server, stall_timeout_s=0.5))) == len(PROMPTS)
    assert server.starts == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "has answered nothing and computed nothing for 0.5 s" in said
    assert "restarting it (1 question left)" in said


def test_a_question_that_hangs_the_server_is_the_only_one_given_up() -> None:
    results = dispatched(FakeServer(always(HANGS, "020")), stall_timeout_s=0.3)
    assert set(failures(results)) == {"question 020"}
    assert "died or hung all 3 times" in failures(results)["question 020"].reason


def test_a_slow_server_is_not_taken_for_one_that_hangs() -> None:
    def behave(prompt: str, before: int) -> int:
        time.sleep(0.2)  # one answer at a time, the whole far longer than the server may take for one
        return OK

    server = FakeServer(behave)
    assert len(texts(dispatched(server, PROMPTS[:10], concurrency=1, stall_timeout_s=1))) == 10
    assert server.starts == 1


def test_a_server_that_always_dies_ends_dispatch() -> None:
    server = FakeServer(always(DIES))
    assert len(failures(dispatched(server))) == len(PROMPTS)
    assert server.starts == dispatch.RESTARTS + 1


def test_a_prompt_mismatch_ends_dispatch_at_once() -> None:
    class Other(Renderer):
        def encode(self, text: str) -> list[int]:
            return [1, *text.encode()]

    server = FakeServer(always(OK))
    pending = [PendingQuestion("base", "base", question(p), ([{"role": "user", "content": p}], True)) for p in PROMPTS]
    config = ServeConfig(concurrency=4)
    with LiveServer(server.start) as live, pytest.raises(PromptMismatch, match="generation, base"):
        RequestDispatcher(Other(), config, lambda *_: None).run(pending, live, "test")  # type: ignore[arg-type]
    assert sum(server.asked.values()) <= 8


def test_long_answers_are_started_first() -> None:
    server = FakeServer(always(OK))
    results: list[int] = []
    lengths = [4, 256, 16, 1024, 8]
    pending = [
        PendingQuestion(
            "base",
            "base",
            Question(f"q{n}", (f"q{n}".encode(),), {"max_tokens": n}),
            ([{"role": "user", "content": f"q{n}"}], True),
        )
        for n in lengths
    ]

    def on_result(one: PendingQuestion, _: object) -> None:
        results.append(one.question.weight)

    with LiveServer(server.start) as live:
        RequestDispatcher(Renderer(), ServeConfig(concurrency=1), on_result).run(pending, live, "test")  # type: ignore[arg-type]
    assert results == sorted(lengths, reverse=True)
