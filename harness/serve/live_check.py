"""The live check: whether a running server prompts, stops and samples as the prompt contract says."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from harness.config.experiment import ServeConfig
from harness.core.errors import PromptMismatch, RequestRefused, ServerFault
from harness.prompt.check import mismatch
from harness.prompt.contract import NEUTRAL, Golden
from harness.prompt.golden import further_conversations, near_limit
from harness.prompt.numerics import References, explain
from harness.prompt.render import Renderer
from harness.serve.client import Client, Generation, watch
from harness.serve.server import BASE, Endpoint

FORCED = 100.0
REPEATS = 24
PATIENCE_S = 1.0


def check_models(
    endpoint: Endpoint,
    config: ServeConfig,
    renderer: Renderer,
    numbers: Mapping[str, References],
    base: str | None = BASE,
    rows: Sequence[Golden] = (),
) -> int:
    """Runs the live check on every model of a server; returns the number of prompts compared.

    `numbers` holds reference log-probabilities by model name, if there are any; `base` is the base model's name on the
    server, None where it is unknown; `rows` are conversations of the training data. Raises PromptMismatch, and
    ServerStalled for a server that makes no progress.
    """

    async def check_all() -> int:
        async with AsyncExitStack() as stack:
            names = list(dict.fromkeys([*endpoint.models, *([base] if base else [])]))
            settings = (config.request_timeout_s, config.concurrency)
            clients = {name: await stack.enter_async_context(Client(endpoint, name, *settings)) for name in names}
            of_base = clients[base] if base else None
            checks = [  # one long prompt is enough for all models of a server
                live_check(clients[name], renderer, numbers.get(name), of_base, rows, at_limit=name == names[0])
                for name in endpoint.models
            ]
            try:
                async with asyncio.TaskGroup() as group:
                    watching = group.create_task(watch(endpoint, list(clients.values()), config.stall_timeout_s))
                    found = await asyncio.gather(*checks, return_exceptions=True)
                    watching.cancel()
            except ExceptionGroup as stalled:
                raise stalled.exceptions[0] from None
        for error in found:
            if isinstance(error, BaseException):
                raise error
        return sum(count for count in found if isinstance(count, int))

    return asyncio.run(check_all())


async def live_check(
    client: Client,
    renderer: Renderer,
    numbers: References | None,
    base: Client | None = None,
    rows: Sequence[Golden] = (),
    at_limit: bool = True,
) -> int:
    """Checks conversations, the stop ids, the defaults of sampling and length and, with `numbers`, log-probabilities.

    The conversations are the contract's golden ones, further ones that gateways are known to change, `rows` (a sample
    of the training data) and, with `at_limit`, one as long as the contract allows. `base` asks the base model of the
    same server: what an adapter changes is then compared, too.

    Returns the number of prompts compared. Raises PromptMismatch with the first difference of each conversation.
    """
    system = "You answer briefly." if renderer.contract.system_policy == "required" else None
    longest = near_limit(renderer, system) if at_limit else None
    compared = [
        *(golden for golden in renderer.contract.golden if golden.refused is None),
        *further_conversations(renderer, system),
        *rows,
        *([longest] if longest else []),
    ]
    found = await asyncio.gather(*(_golden_mismatches(client, renderer, golden) for golden in compared))
    mismatches = [line for of_one in found for line in of_one[:1]]
    if not mismatches:
        checks = (
            _acceptance_mismatches(client, renderer),
            _stop_mismatches(client, renderer),
            _sampling_mismatches(client, renderer),
            _length_mismatches(client, renderer),
            _number_mismatches(client, numbers, base),
        )
        mismatches += [line for of_one in await asyncio.gather(*checks) for line in of_one]
    if mismatches:
        more = f"\n… and {len(mismatches) - 2} more" if len(mismatches) > 2 else ""
        raise PromptMismatch("\n".join(mismatches[:2]) + more)
    return sum(3 if golden.untrainable is None else 2 for golden in compared)


async def _golden_mismatches(client: Client, renderer: Renderer, golden: Golden) -> list[str]:
    """Differences in /tokenize of the prompt and of the finished conversation, and in the prompt of a generation."""
    asked = _asked(golden)
    generating = {**asked, **({"tool_choice": "none"} if golden.tools else {})}
    expected = {"/tokenize": golden.prompt, "generation": golden.prompt}

    async def fed() -> list[int]:
        return (await client.generate(golden.question, max_tokens=1, temperature=0.0, **generating)).prompt_ids

    asks = [client.tokenize(golden.question, **asked), fed()]
    if golden.untrainable is None:
        finished = renderer.encode(renderer.text(golden.messages, add_generation_prompt=False, **golden.arguments))
        expected["/tokenize, finished conversation"] = finished
        asks.append(client.tokenize(golden.messages, asks=False, **asked))
    try:
        seen = await asyncio.gather(*asks)
    except RequestRefused as refusal:
        return [f"the server refuses the conversation '{golden.name}', which the template accepts: {refusal}"]
    problems = (
        mismatch(ids, fed, renderer.decode, f"{where}: {golden.name}")
        for (where, ids), fed in zip(expected.items(), seen, strict=True)
    )
    return [problem for problem in problems if problem]


def _asked(golden: Golden) -> dict[str, Any]:
    """The settings of a request besides the messages."""
    kwargs = {"chat_template_kwargs": golden.kwargs} if golden.kwargs else {}
    return {**kwargs, **({"tools": golden.tools} if golden.tools else {})}


async def _acceptance_mismatches(client: Client, renderer: Renderer) -> list[str]:
    """Conversations that the template refuses (such as one without a required system message) but not the server."""
    refused = [golden for golden in renderer.contract.golden if golden.refused is not None]
    accepted = await asyncio.gather(*(_accepts(client, golden) for golden in refused))
    return [
        f"the server accepts the conversation '{golden.name}', which the contract's template refuses "
        f"({golden.refused}).\nLikely cause: it uses a template without the contract's preamble"
        for golden, takes in zip(refused, accepted, strict=True)
        if takes
    ]


async def _accepts(client: Client, golden: Golden) -> bool:
    try:
        await client.tokenize(golden.question, **_asked(golden))
    except RequestRefused:
        return False
    return True


async def _stop_mismatches(client: Client, renderer: Renderer) -> list[str]:
    """Stop ids that do not end an answer. The model is forced to say nothing else; the request names no stop ids."""
    golden, stops = _first(renderer), renderer.contract.stop_ids
    settings = {"temperature": 0.0, "max_tokens": 4}
    forced = ({**settings, "logit_bias": {str(stop): FORCED}} for stop in stops)
    answers = await asyncio.gather(*(client.generate(golden.question, **asked) for asked in forced))
    mismatches = []
    for stop, answer in zip(stops, answers, strict=True):
        if answer.finish_reason != "stop" or len(answer.ids) > 1:
            token = renderer.decode([stop])
            mismatches.append(
                f"the server does not stop at {token!r} ({stop}), a stop id of the contract; answers run on.\n"
                "Likely cause: it reads its stop ids from the checkpoint's generation_config.json"
            )
    return mismatches


async def _sampling_mismatches(client: Client, renderer: Renderer) -> list[str]:
    """Whether an answer changes when sampling parameters are left to the server's defaults.

    All probability is put on a few tokens, some of them from the prompt. Twice a request leaves out what another one
    states: greedily with the contract's own parameters, so that a repetition penalty or a temperature shows; and at
    temperature 1 with a seed, where every other parameter changes which tokens are drawn.
    """
    golden, contract = _first(renderer), renderer.contract
    inside = list(dict.fromkeys(golden.prompt))[-4:]
    outside = [token for token in range(300, 10_000) if token not in golden.prompt][:28]
    bias = {str(token): FORCED for token in (*inside, *outside) if token not in contract.stop_ids}
    settings: dict[str, Any] = {"max_tokens": REPEATS, "logit_bias": bias, "ignore_eos": True}
    neutral = {**NEUTRAL, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    greedy = settings if "temperature" in contract.sampling else {**settings, "temperature": 0.0}
    drawn = {**settings, "temperature": 1.0, "seed": 7}
    for left_out, given in ((greedy, {**neutral, **contract.sampling, **greedy}), (drawn, {**neutral, **drawn})):
        asks = [client.generate(golden.question, **chosen) for chosen in (left_out, given)]
        if _same_ids(await asyncio.gather(*asks)):
            continue
        # in a batch with others, numbers may round differently: try again, one after the other
        first, second, again = [await client.generate(golden.question, **one) for one in (given, left_out, given)]
        if not _same_ids((first, second)) and _same_ids((first, again)):
            return [
                "the server's sampling defaults differ from the contract: a request without them gets another answer "
                "than a request that states them.\n"
                "Likely cause: it reads a temperature or a penalty from the checkpoint's generation_config.json"
            ]
    return []


async def _length_mismatches(client: Client, renderer: Renderer) -> list[str]:
    """Whether a request that names no longest answer gets as long a one as the contract allows.

    It demands so many tokens that a server with a shorter default refuses it. One that accepts it would write them all:
    it is left after PATIENCE_S, which ends the answer.
    """
    golden = _first(renderer)
    demanded = renderer.contract.max_length - len(golden.prompt) - 1
    if demanded < 1:
        return []
    try:
        settings = {"min_tokens": demanded, "temperature": 0.0}
        await asyncio.wait_for(client.generate(golden.question, **settings), PATIENCE_S)
    except TimeoutError:
        return []
    except RequestRefused as refusal:
        if "min_tokens" in str(refusal):
            return [
                f"the server ends answers early unless told otherwise: {refusal}\n"
                "Likely cause: it reads max_new_tokens from the checkpoint's generation_config.json, or its "
                "--max-model-len is shorter than the contract's max_length"
            ]
        raise
    return []


def _same_ids(answers: Sequence[Generation]) -> bool:
    return all(answer.ids == answers[0].ids for answer in answers)


async def _number_mismatches(client: Client, numbers: References | None, base: Client | None) -> list[str]:
    if numbers is None or not numbers.candidate:
        return []
    served = await _logprobs(client, numbers)
    served_base = await _logprobs(base, numbers) if base and numbers.base else None
    difference = explain(client.model, numbers, served, served_base)
    return [difference] if difference else []


async def _logprobs(client: Client, numbers: References) -> list[dict[int, float]]:
    """The server's log-probabilities of every token of the references, by prompt."""
    tokens: dict[str, set[int]] = {}
    for reference in (*numbers.candidate, *numbers.base):
        tokens.setdefault(reference.prompt, set()).update(reference.logprobs)
    asks = (client.next_token(one.ids, sorted(tokens[one.prompt])) for one in numbers.candidate)
    return [answer.logprobs for answer in await asyncio.gather(*asks)]


def _first(renderer: Renderer) -> Golden:
    accepted = [golden for golden in renderer.contract.golden if golden.refused is None]
    if not accepted:
        raise ServerFault("the contract's template accepts no golden conversation, so nothing can be compared")
    return accepted[0]
