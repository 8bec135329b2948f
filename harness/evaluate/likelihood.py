"""Likelihoods of continuations: where a continuation begins, which positions are asked, how they are summed."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.serve.client import Client, NextToken

Encode = Callable[[str], list[int]]
Pair = tuple[list[int], list[int]]
Prefix = tuple[int, ...]
Check = Callable[[list[int], list[int]], None]


def split(encode: Encode, context: str, continuation: str) -> tuple[Pair, bool]:
    """(ids given, ids scored), which joined are the prompt's ids and the continuation's; and whether they would merge.

    The score runs from where lm-eval's own split lies (`TemplateLM._encode_pair`): white space at the prompt's end
    (ChatML's last newline) counts as part of the continuation. What the model is fed is always the prompt exactly
    as for a generation: where the continuation's first token would merge with the prompt's last, it is encoded by
    itself (stock lm-eval feeds the merged ids, which no server ever does).
    """
    prompt = encode(context)
    fed = encode(context + continuation)
    merged = fed[: len(prompt)] != prompt
    if merged:
        fed = prompt + encode(continuation)
    start = min(len(encode(context.rstrip())), len(prompt))
    return (fed[:start], fed[start:]), merged


async def ask(client: Client, pairs: Sequence[Pair], check: Check) -> list[tuple[float, bool]]:
    """(summed log-probability in nats, greedy or not) of each pair's continuation, in order.

    Pairs with the same given ids are one request. `check` gets (the ids that were sent, those the model was fed).
    """
    groups: dict[Prefix, list[int]] = {}
    for number, (given, _) in enumerate(pairs):
        groups.setdefault(tuple(given), []).append(number)
    answers = await asyncio.gather(*(_score(client, [pairs[n] for n in group], check) for group in groups.values()))
    found = {
        n: score
        for group, scores in zip(groups.values(), answers, strict=True)
        for n, score in zip(group, scores, strict=True)
    }
    return [found[number] for number in range(len(pairs))]


async def _score(client: Client, pairs: Sequence[Pair], check: Check) -> list[tuple[float, bool]]:
    """The scores of pairs that share their given ids."""
    prompts = [given + scored for given, scored in pairs]
    answers = await client.score(prompts, len(pairs[0][0]))
    for ids, answer in zip(prompts, answers, strict=True):
        check(ids, answer.prompt_ids)
    return [(sum(answer.logprobs), answer.greedy) for answer in answers]


def positions_to_ask(pairs: Sequence[Pair]) -> dict[Prefix, set[int]]:
    """Every distinct prefix at which a token of a continuation is scored, with the ids wanted there.

    Choices of one question share their context, so most questions need few requests; the server's prefix
    cache does the rest. (`prompt_logprobs` would score a choice in one request, but vLLM's CPU build fails on
    it while adapters are loaded.)
    """
    positions: dict[Prefix, set[int]] = {}
    for context, continuation in pairs:
        for index, token in enumerate(continuation):
            positions.setdefault((*context, *continuation[:index]), set()).add(token)
    return positions


def requests(pairs: Sequence[Pair]) -> list[tuple[list[int], list[int]]]:
    """What the server is asked: (ids fed, ids whose log-probability is wanted as the next token), each once."""
    return [(list(prefix), sorted(asked)) for prefix, asked in positions_to_ask(pairs).items()]


def scores(pairs: Sequence[Pair], answers: Iterable[NextToken]) -> list[tuple[float, bool]]:
    """(summed log-probability in nats, greedy or not) of each pair's continuation. `answers` are those to `requests`,
    in order."""
    found = dict(zip(positions_to_ask(pairs), answers, strict=True))
    return [summed(found, context, continuation) for context, continuation in pairs]


def summed(answers: Mapping[Prefix, NextToken], context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """Summed log-probability (nats) of a continuation, and whether it is the greedy one."""
    steps = [answers[(*context, *continuation[:index])] for index in range(len(continuation))]
    logprob = sum(step.logprobs[token] for step, token in zip(steps, continuation, strict=True))
    return logprob, all(step.greedy_id == token for step, token in zip(steps, continuation, strict=True))
