"""lm-eval's view of a served model: prompts are rendered by the contract, answers come from the vLLM server."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs

from harness.console import progress
from harness.errors import EvidenceFault
from harness.evaluate import likelihood
from harness.prompt.check import require_equal
from harness.prompt.render import Message, Renderer
from harness.serve.client import Answer, Client, NextToken, in_flight

Ask = Callable[[Client], Awaitable[Answer]]
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed", "repetition_penalty")


class ServedModel(TemplateLM):
    """One model of a running server under one contract.

    Generations are asked for as messages, and the ids the server says it fed the model must equal the
    renderer's; likelihoods are asked for as ids. `prompts_checked` counts the compared prompts.
    """

    def __init__(self, client: Callable[[], Client], renderer: Renderer, label: str):
        super().__init__()
        self._client = client
        self._renderer = renderer
        self._label = label
        self._messages: dict[str, tuple[Sequence[Message], bool]] = {}
        self.prompts_checked = 0
        self.merged = 0

    @property
    def eot_token_id(self) -> int:
        return self._renderer.contract.end_of_turn_id

    @property
    def tokenizer_name(self) -> str:
        return self._renderer.contract.digest

    def chat_template(self, chat_template: bool | str = False) -> str:
        return self._renderer.contract.template

    def apply_chat_template(self, chat_history: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The rendered prompt; its messages are remembered, because that is what the server is asked with."""
        text = self._renderer.text(chat_history, continued=not add_generation_prompt)
        self._messages[text] = (chat_history, add_generation_prompt)
        return text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self._renderer.encode(string)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids given and ids scored, split as lm-eval's own does; `merged` counts pairs that would merge at the seam."""
        if context not in self._messages:
            raise EvidenceFault(f"lm-eval scores a prompt that was not rendered by the contract: {context[:200]!r}")
        pair, merged = likelihood.split(self._renderer.encode, context, continuation)
        self.merged += merged
        return pair

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        asks = [partial(self._generate, *request.args) for request in requests]
        return self._all("generate", asks)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        scores: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return scores

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        pairs = [(context, continuation) for _, context, continuation in requests]
        asks = [partial(self._next_token, ids, asked) for ids, asked in likelihood.requests(pairs)]
        return likelihood.scores(pairs, self._all("likelihood", asks))

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        raise EvidenceFault(
            "this task scores whole documents (loglikelihood_rolling), which has no meaning under a chat template"
        )

    async def _generate(self, context: str, settings: dict[str, Any], client: Client) -> str:
        if context not in self._messages:
            raise EvidenceFault(f"lm-eval asks with a prompt that was not rendered by the contract: {context[:200]!r}")
        messages, complete = self._messages[context]
        generation = await client.generate(messages, **self._sampling(settings, complete))
        self._check(self._renderer.encode(context), generation.prompt_ids, "generation")
        return generation.text

    async def _next_token(self, ids: list[int], asked: list[int], client: Client) -> NextToken:
        answer = await client.next_token(ids, asked)
        self._check(ids, answer.prompt_ids, "likelihood")
        return answer

    def _check(self, expected: list[int], fed: list[int], kind: str) -> None:
        require_equal(expected, fed, self._renderer.decode, f"{kind}, {self._label}")
        self.prompts_checked += 1

    def _sampling(self, settings: dict[str, Any], complete: bool) -> dict[str, Any]:
        """Request parameters: the task's own, else the contract's. The server has the template's arguments itself."""
        wanted = normalize_gen_kwargs(settings)
        chosen = {key: wanted[key] for key in SAMPLING if key in wanted}
        return {
            **self._renderer.contract.sampling,
            **chosen,
            "max_tokens": wanted["max_gen_toks"],
            "stop": [text for text in wanted["until"] if text],
            "stop_token_ids": self._renderer.contract.stop_ids,
            "add_generation_prompt": complete,
            "continue_final_message": not complete,
        }

    def _all(self, title: str, asks: Sequence[Ask[Answer]]) -> list[Answer]:
        """Answers in order; all requests are in flight at once, as many as the client allows."""

        async def run() -> list[Answer]:
            with progress(f"{title} ({self._label})", len(asks), "item") as bar:
                async with self._client() as client:
                    return await in_flight([partial(ask, client) for ask in asks], lambda: bar.update(1))

        return asyncio.run(run())
