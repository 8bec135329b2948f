"""All questions of all tasks and all models of a server in flight together.

A failed request is tried again with growing pauses. A server that dies is started again and the dispatcher goes on; a
question that was in flight at two deaths is asked alone, and given up when the server dies of it once more.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from harness.config.experiment import ServeConfig
from harness.core.console import progress, say
from harness.core.errors import EnvironmentFault, RequestRefused, ServerFault
from harness.evaluate import requests
from harness.evaluate.journal import JournalEntry
from harness.evaluate.requests import Conversation, Question
from harness.prompt.render import Renderer
from harness.serve.client import Client
from harness.serve.server import Endpoint
from harness.serve.session import LiveServer

ATTEMPTS = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
HEALTH_TIMEOUT_S = 30.0
SUSPECT_AFTER = 2
RESTARTS = 6


class ServerGone(EnvironmentFault):
    """The server's process does not answer any more; never leaves this file."""


@dataclass(frozen=True, eq=False)
class PendingQuestion:
    """A question to one model of the server."""

    model: str
    label: str
    question: Question
    conversation: Conversation | None


@dataclass(frozen=True)
class RequestFailure:
    """Why there is no answer. What the server refuses it will refuse again; anything else may work another time."""

    reason: str
    refused: bool


@dataclass
class RequestDispatcher:
    """Questions on their way. `on_result` is called with each question's entries, or with why there are none."""

    renderer: Renderer
    config: ServeConfig
    on_result: Callable[[PendingQuestion, dict[bytes, JournalEntry] | RequestFailure], None]
    restarts: int = 0
    deaths: Counter[PendingQuestion] = field(default_factory=Counter)

    def run(self, asked: Sequence[PendingQuestion], server: LiveServer, title: str) -> None:
        """Returns when every question has landed. Raises PromptMismatch at the first prompt that is another.

        Long ones are begun first, so that none is left alone at the end.
        """
        waiting = deque(sorted(asked, key=lambda one: -one.question.weight))
        total = sum(len(one.question.keys) for one in waiting)
        server.endpoint()
        with progress(title, total, "request") as bar:
            while waiting:
                try:
                    asyncio.run(self._until_empty(waiting, server.endpoint(), bar))
                except ServerGone as gone:
                    server.stop()
                    self._after_death(waiting, f"{gone} (its logs: {server.logs})", bar)

    def _after_death(self, waiting: "deque[PendingQuestion]", gone: str, bar: Any) -> None:
        self.restarts += 1
        if self.restarts > RESTARTS:
            while waiting:
                self._report(waiting.popleft(), RequestFailure(f"{gone} {self.restarts} times", refused=False), bar)
        elif waiting:
            say(f"  {gone}; it is started again ({len(waiting)} questions left)")

    async def _until_empty(self, waiting: "deque[PendingQuestion]", endpoint: Endpoint, bar: Any) -> None:
        """Lands everything that waits: together first, then one by one what may have killed the server."""
        together = deque(one for one in waiting if self.deaths[one] < SUSPECT_AFTER)
        alone = deque(one for one in waiting if self.deaths[one] >= SUSPECT_AFTER)
        waiting.clear()
        try:
            async with AsyncExitStack() as stack:
                clients = {
                    model: await stack.enter_async_context(
                        Client(endpoint, model, self.config.request_timeout_s, self.config.concurrency)
                    )
                    for model in {one.model for one in (*together, *alone)}
                }
                await self._dispatch_all(together, clients, endpoint, bar)
                await self._dispatch_all(alone, clients, endpoint, bar, alone=True)
        finally:
            waiting.extend((*together, *alone))

    async def _dispatch_all(
        self,
        waiting: "deque[PendingQuestion]",
        clients: dict[str, Client],
        endpoint: Endpoint,
        bar: Any,
        alone: bool = False,
    ) -> None:
        """Workers take questions off the queue; what was in flight when the server dies is put back."""
        in_flight: list[PendingQuestion] = []

        async def work() -> None:
            while waiting:
                one = waiting.popleft()
                in_flight.append(one)
                entries = await self._answer(one, clients[one.model], endpoint)
                in_flight.remove(one)
                self._report(one, entries, bar)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(1 if alone else min(self.config.concurrency, len(waiting))):
                    group.create_task(work())
        except ExceptionGroup as failures:
            first = min(failures.exceptions, key=lambda error: isinstance(error, ServerGone))
            if isinstance(first, ServerGone):
                self._put_back(in_flight, waiting, alone, bar)
            raise first from None

    def _put_back(
        self, in_flight: Sequence[PendingQuestion], waiting: "deque[PendingQuestion]", alone: bool, bar: Any
    ) -> None:
        """Whatever was in flight waits again, unless it was alone and therefore is the cause."""
        for one in in_flight:
            self.deaths[one] += 1
            if alone:
                reason = f"the vLLM server died each of the {self.deaths[one]} times that this was asked"
                self._report(one, RequestFailure(reason, refused=False), bar)
            else:
                waiting.append(one)

    async def _answer(
        self, one: PendingQuestion, client: Client, endpoint: Endpoint
    ) -> dict[bytes, JournalEntry] | RequestFailure:
        """The entries, after as many attempts as it takes; raises ServerGone when nobody is there to ask."""
        from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(ServerFault),
            wait=wait_exponential_jitter(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S, jitter=FIRST_PAUSE_S),
            stop=stop_after_attempt(ATTEMPTS),
            reraise=True,
        )
        try:
            found: dict[bytes, JournalEntry] | RequestFailure = await retrying(self._once, one, client, endpoint)
        except ServerFault as fault:
            return RequestFailure(f"{_line(fault)} ({ATTEMPTS} attempts)", refused=False)
        return found

    async def _once(
        self, one: PendingQuestion, client: Client, endpoint: Endpoint
    ) -> dict[bytes, JournalEntry] | RequestFailure:
        try:
            return await requests.ask(client, self.renderer, one.question, one.conversation, one.label)
        except RequestRefused as refusal:
            return RequestFailure(_line(refusal), refused=True)
        except ServerFault:
            if await _is_gone(endpoint):
                raise ServerGone("the vLLM server died") from None
            raise

    def _report(self, one: PendingQuestion, entries: dict[bytes, JournalEntry] | RequestFailure, bar: Any) -> None:
        self.on_result(one, entries)
        bar.update(len(one.question.keys))


async def _is_gone(endpoint: Endpoint) -> bool:
    """Whether nobody listens any more, the engine behind is dead, or nothing is answered for a long time."""
    import httpx

    try:
        async with httpx.AsyncClient(timeout=HEALTH_TIMEOUT_S, trust_env=False, headers=endpoint.headers) as client:
            return (await client.get(f"{endpoint.url}/health")).status_code == httpx.codes.SERVICE_UNAVAILABLE
    except httpx.TransportError:
        return True


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
