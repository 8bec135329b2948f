"""Likelihoods of continuations: where a continuation begins, how it is asked for and summed."""

import asyncio
from collections.abc import Callable, Sequence

from harness.serve.client import Client

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
