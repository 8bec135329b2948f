"""Requests to the server, many in flight at once. Every answer carries the prompt ids the model was fed."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness.core.errors import RequestRefused, ServerFault
from harness.serve.cpu_plugin import SCORE_FROM
from harness.serve.server import Endpoint


@dataclass(frozen=True)
class Generation:
    """A generated answer with its ids, and the prompt ids that the server fed the model for it."""

    text: str
    prompt_ids: list[int]
    finish_reason: str
    ids: list[int]


@dataclass(frozen=True)
class NextToken:
    """What the model makes of one position: its greedy choice, and log-probabilities (nats) of the ids asked for."""

    greedy_id: int
    logprobs: dict[int, float]
    prompt_ids: list[int]


@dataclass(frozen=True)
class Scored:
    """Log-probabilities (nats) of a prompt's tokens from some index on; `greedy` if each is the most probable one."""

    logprobs: list[float]
    greedy: bool
    prompt_ids: list[int]


class Client:
    """Asks one model of the server. Use inside `async with`."""

    def __init__(self, endpoint: Endpoint, model: str, timeout_s: float, concurrency: int):
        import httpx

        self.model = model
        self._limits = asyncio.Semaphore(concurrency)
        self._http = httpx.AsyncClient(
            base_url=endpoint.url,
            headers=endpoint.headers,
            timeout=timeout_s,
            # the server closes idle connections after 5 s; a request on one of those would fail
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

    async def next_token(self, ids: list[int], asked: list[int]) -> NextToken:
        """Log-probabilities of the `asked` ids as the token after `ids`."""
        body = {
            "prompt": ids,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": len(asked),
            "logprob_token_ids": asked,
            "return_tokens_as_token_ids": True,
            "return_token_ids": True,
        }
        answer = await self._post("/v1/completions", body)
        with _token_ids_expected():
            choice = answer["choices"][0]
            table = choice["logprobs"]["top_logprobs"][0]
            logprobs = {token: float(table[f"token_id:{token}"]) for token in asked}
            return NextToken(choice["token_ids"][0], logprobs, list(choice["prompt_token_ids"]))

    async def score(self, prompts: list[list[int]], start: int) -> list[Scored]:
        """Each prompt's tokens from index `start` (≥ 1) on, scored. The prompts share their first `start` tokens.

        vLLM's CPU build computes only what is scored (`vllm_cpu/scoring.py`); others compute and return all tokens.
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
        """Ids of the server's own rendering of `messages`; `asks` adds the prompt for an answer."""
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
        if response.status_code >= 500 or response.status_code == 429:
            raise ServerFault(f"the vLLM server failed at a request to {path}: {response.text[:500]}")
        if response.status_code != 200:
            raise RequestRefused(f"the vLLM server refused a request to {path}: {response.text[:500]}")
        with _token_ids_expected():
            answer: dict[str, Any] = response.json()
            return answer


def _scored(ids: list[int], start: int, choice: dict[str, Any]) -> Scored:
    """The last rows of an answer: there is one for each token of the prompt, or for each scored one.

    An answer to other ids than those sent has no scores of theirs; its `prompt_ids` tell.
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
    """Raises ServerFault when an answer is not what a vLLM server that returns token ids gives."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ServerFault(
            f"the server's answer holds no token ids ({error!r}); it has to be a vLLM that returns them"
        ) from None
