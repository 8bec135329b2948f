"""Sends the questions of all tasks to all models of one server, many at a time, and survives failures.

A failed request is tried again after growing pauses. A server that dies, or makes no progress for
`serve.stall_timeout_s`, is restarted, and dispatch continues. A question that was in flight when the server died twice
is sent alone; if the server dies again, the question is given up.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from harness.config.experiment import ServeConfig
from harness.core.console import plural, progress, say
from harness.core.errors import EnvironmentFault, RequestRefused, ServerFault, ServerStalled
from harness.evaluate import requests
from harness.evaluate.journal import JournalEntry
from harness.evaluate.requests import Conversation, Question
from harness.prompt.render import Renderer
from harness.serve.client import Client, watch
from harness.serve.server import Endpoint
from harness.serve.session import LiveServer

ATTEMPTS = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
HEALTH_TIMEOUT_S = 30.0
SUSPECT_AFTER = 2
RESTARTS = 6


class ServerGone(EnvironmentFault):
    """The server's process does not answer any more, or hangs; never leaves this file."""


@dataclass(frozen=True, eq=False)
class PendingQuestion:
    """A question that one model of the server has to answer."""

    model: str
    label: str
    question: Question
    conversation: Conversation | None


@dataclass(frozen=True)
class RequestFailure:
    """Why a question has no answer. A `refused` request would be refused again; any other may succeed next time."""

    reason: str
    refused: bool


@dataclass
class RequestDispatcher:
    """Sends questions. `on_result` is called with each question's entries, or with the reason why there are none."""

    renderer: Renderer
    config: ServeConfig
    on_result: Callable[[PendingQuestion, dict[bytes, JournalEntry] | RequestFailure], None]
    restarts: int = 0
    deaths: Counter[PendingQuestion] = field(default_factory=Counter)

    def run(self, questions: Sequence[PendingQuestion], server: LiveServer, title: str) -> None:
        """Returns when every question has its result.

        Raises PromptMismatch at the first prompt whose ids differ from the renderer's. Long answers are started first,
        so that none of them is left running alone at the end.
        """
        waiting = deque(sorted(questions, key=lambda pending: -pending.question.weight))
        total = sum(len(pending.question.keys) for pending in waiting)
        server.endpoint()
        with progress(title, total, "request") as bar:
            while waiting:
                try:
                    asyncio.run(self._until_empty(waiting, server.endpoint(), bar))
                except ServerGone as gone:
                    server.stop()
                    self.restarts += 1
                    died = f"{gone} (its logs: {server.logs})"
                    if self.restarts > RESTARTS:
                        failure = RequestFailure(f"{died} {self.restarts} times", refused=False)
                        while waiting:
                            self._finish(waiting.popleft(), failure, bar)
                    elif waiting:
                        say(f"  {died}; restarting it ({plural(len(waiting), 'question')} left)")

    async def _until_empty(self, waiting: "deque[PendingQuestion]", endpoint: Endpoint, bar: Any) -> None:
        """Finishes every waiting question: most at once, then those that may have killed the server, one by one."""
        ordinary = deque(pending for pending in waiting if self.deaths[pending] < SUSPECT_AFTER)
        suspects = deque(pending for pending in waiting if self.deaths[pending] >= SUSPECT_AFTER)
        waiting.clear()
        try:
            async with AsyncExitStack() as stack:
                clients = {
                    model: await stack.enter_async_context(
                        Client(endpoint, model, self.config.request_timeout_s, self.config.concurrency)
                    )
                    for model in {pending.model for pending in (*ordinary, *suspects)}
                }
                await self._dispatch(ordinary, clients, endpoint, bar)
                await self._dispatch(suspects, clients, endpoint, bar, alone=True)
        finally:
            waiting.extend((*ordinary, *suspects))

    async def _dispatch(
        self,
        waiting: "deque[PendingQuestion]",
        clients: dict[str, Client],
        endpoint: Endpoint,
        bar: Any,
        alone: bool = False,
    ) -> None:
        """Workers take questions off the queue; those in flight when the server dies are put back.

        A question that was sent alone is the cause, and fails.
        """
        in_flight: list[PendingQuestion] = []

        async def work() -> None:
            while waiting:
                pending = waiting.popleft()
                in_flight.append(pending)
                entries = await self._answer(pending, clients[pending.model], endpoint)
                in_flight.remove(pending)
                self._finish(pending, entries, bar)

        async def stop_when_hung() -> None:
            try:
                await watch(endpoint, list(clients.values()), self.config.stall_timeout_s)
            except ServerStalled as stalled:
                raise ServerGone(str(stalled)) from None

        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(stop_when_hung())
                workers = 1 if alone else min(self.config.concurrency, len(waiting))
                if working := [group.create_task(work()) for _ in range(workers)]:
                    await asyncio.wait(working)
                watching.cancel()
        except ExceptionGroup as failures:
            first = min(failures.exceptions, key=lambda error: isinstance(error, ServerGone))
            for pending in in_flight if isinstance(first, ServerGone) else ():
                self.deaths[pending] += 1
                if alone:
                    reason = f"the vLLM server died or hung all {self.deaths[pending]} times that it got this request"
                    self._finish(pending, RequestFailure(reason, refused=False), bar)
                else:
                    waiting.append(pending)
            raise first from None

    async def _answer(
        self, pending: PendingQuestion, client: Client, endpoint: Endpoint
    ) -> dict[bytes, JournalEntry] | RequestFailure:
        """The entries, after up to ATTEMPTS attempts; raises ServerGone when the server no longer answers."""
        from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(ServerFault),
            wait=wait_exponential_jitter(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S, jitter=FIRST_PAUSE_S),
            stop=stop_after_attempt(ATTEMPTS),
            reraise=True,
        )
        try:
            entries: dict[bytes, JournalEntry] | RequestFailure = await retrying(self._once, pending, client, endpoint)
        except ServerFault as error:
            return RequestFailure(f"{_on_one_line(error)} ({ATTEMPTS} attempts)", refused=False)
        return entries

    async def _once(
        self, pending: PendingQuestion, client: Client, endpoint: Endpoint
    ) -> dict[bytes, JournalEntry] | RequestFailure:
        try:
            return await requests.ask(client, self.renderer, pending.question, pending.conversation, pending.label)
        except RequestRefused as refusal:
            return RequestFailure(_on_one_line(refusal), refused=True)
        except ServerFault:
            if await _is_gone(endpoint):
                raise ServerGone("the vLLM server died") from None
            raise

    def _finish(self, pending: PendingQuestion, entries: dict[bytes, JournalEntry] | RequestFailure, bar: Any) -> None:
        self.on_result(pending, entries)
        bar.update(len(pending.question.keys))


async def _is_gone(endpoint: Endpoint) -> bool:
    """Whether the server refuses connections, reports a dead engine, or has not answered for HEALTH_TIMEOUT_S."""
    import httpx

    try:
        async with httpx.AsyncClient(timeout=HEALTH_TIMEOUT_S, trust_env=False, headers=endpoint.headers) as client:
            return (await client.get(f"{endpoint.url}/health")).status_code == httpx.codes.SERVICE_UNAVAILABLE
    except httpx.TransportError:
        return True


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
