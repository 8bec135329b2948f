"""The client of a vLLM server: many concurrent requests. Every answer has the prompt ids that the model was fed."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from harness.core.errors import RequestRefused, ServerFault, ServerStalled
from harness.serve.cpu_plugin import SCORE_FROM
from harness.serve.server import Endpoint

TOKEN_COUNTERS = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")


@dataclass(frozen=True)
class Generation:
    """A generated answer with its token ids, and the prompt ids that the server fed the model."""

    text: str
    prompt_ids: list[int]
    finish_reason: str
    ids: list[int]


@dataclass(frozen=True)
class NextToken:
    """The prediction for one position: the greedy choice, and log-probabilities (nats) of the requested ids."""

    greedy_id: int
    logprobs: dict[int, float]
    prompt_ids: list[int]


@dataclass(frozen=True)
class Scored:
    """Log-probabilities (nats) of a prompt's tokens from an index on; `greedy`: whether each is the most likely one."""

    logprobs: list[float]
    greedy: bool
    prompt_ids: list[int]


class Client:
    """Sends requests to one model of the server. Use inside `async with`.

    Methods raise ServerFault when the server fails, and RequestRefused when it refuses a request.
    """

    def __init__(self, endpoint: Endpoint, model: str, timeout_s: float, concurrency: int):
        import httpx

        self.model = model
        self.answers = 0  # counted for `watch`
        self._limits = asyncio.Semaphore(concurrency)
        self._http = httpx.AsyncClient(
            base_url=endpoint.url,
            headers=endpoint.headers,
            timeout=timeout_s,
            # the server closes idle connections after 5 s; a request on a closed one would fail
            limits=httpx.Limits(
                max_connections=concurrency, max_keepalive_connections=concurrency, keepalive_expiry=2.0
            ),
            trust_env=False,
        )

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def generate(self, messages: Sequence[Mapping[str, Any]], **settings: Any) -> Generation:
        """One chat completion."""
        body = {"messages": messages, "return_token_ids": True, **settings}
        answer = await self._post("/v1/chat/completions", body)
        with _token_ids_expected():
            choice = answer["choices"][0]
            text = choice["message"]["content"] or ""
            return Generation(
                text, list(answer["prompt_token_ids"]), choice["finish_reason"], choice["token_ids"] or []
            )

    async def next_token(self, ids: list[int], candidates: list[int]) -> NextToken:
        """Log-probabilities of `candidates`, token ids, as the token after `ids`."""
        body = {
            "prompt": ids,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": len(candidates),
            "logprob_token_ids": candidates,
            "return_tokens_as_token_ids": True,
            "return_token_ids": True,
        }
        answer = await self._post("/v1/completions", body)
        with _token_ids_expected():
            choice = answer["choices"][0]
            table = choice["logprobs"]["top_logprobs"][0]
            logprobs = {token: float(table[f"token_id:{token}"]) for token in candidates}
            return NextToken(choice["token_ids"][0], logprobs, list(choice["prompt_token_ids"]))

    async def score(self, prompts: list[list[int]], start: int) -> list[Scored]:
        """Scores each prompt's tokens from index `start` (≥ 1) on. The prompts share their first `start` tokens.

        vLLM's CPU build computes only the scored tokens (`vllm_cpu/scoring.py`); other builds compute and return all.
        """
        body = {
            "prompt": prompts,
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 1,
            "vllm_xargs": {SCORE_FROM: start},
            "return_token_ids": True,
        }
        answer = await self._post("/v1/completions", body)
        with _token_ids_expected():
            choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
            return [_scored(ids, start, choice) for ids, choice in zip(prompts, choices, strict=True)]

    async def tokenize(self, messages: Sequence[Mapping[str, Any]], asks: bool = True, **settings: Any) -> list[int]:
        """Token ids of the server's own rendering of `messages`; `asks` adds the generation prompt."""
        body = {"messages": messages, "add_generation_prompt": asks, **settings}
        answer = await self._post("/tokenize", body)
        with _token_ids_expected():
            return list(answer["tokens"])

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        import httpx

        async with self._limits:
            try:
                response = await self._http.post(path, json={"model": self.model, **body})
            except httpx.TransportError as error:
                raise ServerFault(f"the vLLM server stopped answering ({type(error).__name__}: {error})") from None
        self.answers += 1
        if response.status_code >= 500 or response.status_code == 429:
            raise ServerFault(f"the vLLM server failed on a request to {path}: {response.text[:500]}")
        if response.status_code != 200:
            raise RequestRefused(f"the vLLM server refused a request to {path}: {response.text[:500]}")
        with _token_ids_expected():
            answer: dict[str, Any] = response.json()
            return answer


async def watch(endpoint: Endpoint, clients: Sequence[Client], stall_s: float) -> NoReturn:
    """Runs until it is cancelled, or raises ServerStalled when the server has made no progress for `stall_s` seconds.

    Progress is an answer to one of `clients`, or a token in vLLM's own counters: many long answers take minutes, too.
    """
    import httpx

    before: tuple[int, float] | None = None
    since = time.monotonic()
    async with httpx.AsyncClient(timeout=min(10.0, stall_s), trust_env=False, headers=endpoint.headers) as http:
        while True:
            tokens = 0.0
            with suppress(httpx.TransportError):
                lines = (await http.get(f"{endpoint.url}/metrics")).text.splitlines()
                tokens = sum(float(line.split()[-1]) for line in lines if line.startswith(TOKEN_COUNTERS))
            now = (sum(client.answers for client in clients), tokens)
            if now != before:
                before, since = now, time.monotonic()
            elif time.monotonic() - since > stall_s:
                raise ServerStalled(f"the vLLM server has answered nothing and computed nothing for {stall_s:g} s")
            await asyncio.sleep(min(5.0, stall_s / 4))


def _scored(ids: list[int], start: int, choice: dict[str, Any]) -> Scored:
    """The scores in a choice, whose rows cover every prompt token or only the scored ones.

    If the server was fed other ids than `ids`, there are no scores; compare `prompt_ids`.
    """
    fed = list(choice["prompt_token_ids"])
    if fed != ids:
        return Scored([], False, fed)
    rows = choice["prompt_logprobs"][start - len(ids) :]
    found = [float(row[str(token)]["logprob"]) for token, row in zip(ids[start:], rows, strict=True)]
    best = [max(float(entry["logprob"]) for entry in row.values()) for row in rows]
    greedy = all(own >= highest for own, highest in zip(found, best, strict=True))
    return Scored(found, greedy, fed)


@contextmanager
def _token_ids_expected() -> Iterator[None]:
    """Raises ServerFault when an answer lacks the token ids that vLLM returns."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ServerFault(
            f"the server's answer has no token ids ({error!r}). Use a vLLM server that supports return_token_ids."
        ) from None
