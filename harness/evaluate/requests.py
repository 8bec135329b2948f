"""Turns lm-eval's requests into questions, and sends a question to the server.

Each request has a key that covers everything that decides its answer, except the model and the contract: these select
the journal.
"""

import asyncio
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from harness.core.errors import ConfigError, EvidenceFault
from harness.evaluate.journal import JournalEntry, request_key
from harness.prompt.check import require_equal
from harness.prompt.messages import Message
from harness.prompt.render import Renderer
from harness.serve.client import Client

Encode = Callable[[str], list[int]]
Pair = tuple[list[int], list[int]]
Prefix = tuple[int, ...]
PromptCheck = Callable[[list[int], list[int]], None]


def split_prompt(encode: Encode, context: str, continuation: str) -> tuple[Pair, bool]:
    """(ids given, ids scored), and whether the prompt and the continuation would merge at the seam.

    Joined, the two lists are the prompt's ids followed by the continuation's. Scoring starts where lm-eval splits
    (`TemplateLM._encode_pair`): white space at the end of the prompt (ChatML's last newline) counts as part of the
    continuation. The model always gets the prompt exactly as for a generation. Where the continuation's first token
    would merge with the prompt's last one, the continuation is encoded by itself (stock lm-eval feeds the merged ids,
    which no server ever does).
    """
    prompt = encode(context)
    fed = encode(context + continuation)
    merged = fed[: len(prompt)] != prompt
    if merged:
        fed = prompt + encode(continuation)
    start = min(len(encode(context.rstrip())), len(prompt))
    return (fed[:start], fed[start:]), merged


async def score_pairs(client: Client, pairs: Sequence[Pair], check: PromptCheck) -> list[tuple[float, bool]]:
    """(summed log-probability in nats, whether greedy decoding would produce it) of each continuation, in order.

    Pairs with the same given ids are sent as one request. `check` is called with the ids that were sent and the ids
    that the model was fed.
    """
    groups: dict[Prefix, list[int]] = {}
    for number, (given, _) in enumerate(pairs):
        groups.setdefault(tuple(given), []).append(number)
    answers = await asyncio.gather(
        *(_score_group(client, [pairs[n] for n in group], check) for group in groups.values())
    )
    found = {
        n: score
        for group, scores in zip(groups.values(), answers, strict=True)
        for n, score in zip(group, scores, strict=True)
    }
    return [found[number] for number in range(len(pairs))]


async def _score_group(client: Client, pairs: Sequence[Pair], check: PromptCheck) -> list[tuple[float, bool]]:
    """The scores of pairs that share their given ids."""
    prompts = [given + scored for given, scored in pairs]
    answers = await client.score(prompts, len(pairs[0][0]))
    for ids, answer in zip(prompts, answers, strict=True):
        check(ids, answer.prompt_ids)
    return [(sum(answer.logprobs), answer.greedy) for answer in answers]


SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed", "repetition_penalty")
Conversation = tuple[Sequence[Message], bool]


@dataclass(frozen=True, slots=True)
class Question:
    """A rendered prompt, with the `settings` of an answer or the continuations whose likelihood is wanted.

    `keys` identify its requests: one for an answer, else one for each continuation.
    """

    context: str
    keys: tuple[bytes, ...]
    settings: Mapping[str, Any] | None = None
    continuations: tuple[str, ...] = ()

    @property
    def weight(self) -> int:
        """A measure of how long it may take: the most new tokens, or the number of continuations."""
        return int(self.settings["max_tokens"]) if self.settings else len(self.continuations)


def generation(renderer: Renderer, context: str, wanted: Mapping[str, Any], repeat: int = 0) -> Question:
    """The question for one answer. `wanted` are lm-eval's generation settings; `repeat` numbers repeated samples."""
    settings = sampling(renderer.contract.sampling, wanted, context, repeat)
    settings["stop_token_ids"] = list(renderer.contract.stop_ids)
    return Question(context, (request_key("generate", context, settings),), settings)


def sampling(
    defaults: Mapping[str, int | float], wanted: Mapping[str, Any], context: str, repeat: int
) -> dict[str, Any]:
    """Request parameters: the task's own where it sets them, else the contract's.

    A sampled answer gets a seed made from the prompt, the task's seed and the repeat: reproducible, and different for
    each repeat. A greedy answer has no seed, so repeats of a greedy request are one request.
    """
    from lm_eval.models.utils import normalize_gen_kwargs

    normal = normalize_gen_kwargs(dict(wanted))
    settings = {**defaults, **{key: normal[key] for key in SAMPLING if key in normal}}
    settings |= {"max_tokens": normal["max_gen_toks"], "stop": [text for text in normal["until"] if text]}
    if settings.get("temperature", 1.0) == 0.0:
        settings.pop("seed", None)
    else:
        digest = request_key("seed", context, settings.get("seed", 0), repeat)
        settings["seed"] = int.from_bytes(digest[:4], "big") >> 1
    return settings


def likelihoods(context: str, continuations: Iterable[str]) -> Question:
    """The question for the likelihoods of the distinct continuations."""
    distinct = tuple(dict.fromkeys(continuations))
    return Question(context, tuple(likelihood_key(context, text) for text in distinct), None, distinct)


def likelihood_key(context: str, continuation: str) -> bytes:
    return request_key("likelihood", context, continuation)


def instance_keys(renderer: Renderer, instance: Any) -> list[bytes]:
    """The key of each repeat of one of lm-eval's instances."""
    if instance.request_type == "generate_until":
        return [question.keys[0] for question in _generations(renderer, instance)]
    return [likelihood_key(*instance.args)] * (instance.repeats or 1)


def _generations(renderer: Renderer, instance: Any) -> list[Question]:
    context, wanted = instance.args
    return [generation(renderer, context, wanted, repeat) for repeat in range(instance.repeats or 1)]


def questions(renderer: Renderer, instances: Iterable[Any]) -> Iterator[Question]:
    """The distinct questions of lm-eval's instances; all continuations of a prompt are one question."""
    seen: set[bytes] = set()
    continuations: dict[str, list[str]] = {}
    for instance in instances:
        if instance.request_type == "generate_until":
            for question in _generations(renderer, instance):
                if question.keys[0] not in seen:
                    seen.add(question.keys[0])
                    yield question
        else:
            context, continuation = instance.args
            continuations.setdefault(context, []).append(continuation)
    for context, texts in continuations.items():
        yield likelihoods(context, texts)


def require_supported(instances: Mapping[str, Sequence[Any]]) -> None:
    """Raises ConfigError, listing all tasks whose requests a served chat model cannot answer."""
    known = {"generate_until", "loglikelihood"}
    kinds = {task: {instance.request_type for instance in own} - known for task, own in instances.items()}
    reasons = {"loglikelihood_rolling": "it scores whole documents, which has no meaning under a chat template"}
    errors = [
        f"task {task}: {reasons.get(kind, 'its requests are not supported')} ({kind}); leave it out with suite.skip"
        for task, unknown in kinds.items()
        for kind in sorted(unknown)
    ]
    if errors:
        raise ConfigError(errors)


def without(question: Question, known: Container[bytes]) -> Question | None:
    """The question without the requests in `known`; None when none are left."""
    if question.settings is not None:
        return None if question.keys[0] in known else question
    left = [text for key, text in zip(question.keys, question.continuations, strict=True) if key not in known]
    if len(left) == len(question.keys):
        return question
    return likelihoods(question.context, left) if left else None


async def ask(
    client: Client, renderer: Renderer, question: Question, conversation: Conversation | None, label: str
) -> dict[bytes, JournalEntry]:
    """Sends a question; returns the journal's entries for its requests, by key.

    `conversation` holds the messages that the prompt was rendered from. Raises PromptMismatch when the server fed the
    model other ids than the renderer's, EvidenceFault for a prompt that the contract did not render.
    """
    if conversation is None and question.context:
        shown = question.context[:200]
        raise EvidenceFault(f"lm-eval built a prompt that was not rendered by the contract: {shown!r}")
    if question.settings is not None and conversation is not None:
        messages, complete = conversation
        turns = {"add_generation_prompt": complete, "continue_final_message": not complete}
        answer = await client.generate(messages, **question.settings, **turns)
        require_equal(renderer.encode(question.context), answer.prompt_ids, renderer.decode, f"generation, {label}")
        entry = {"text": answer.text, "finish_reason": answer.finish_reason, "ids": answer.ids, "prompt_checked": True}
        return {question.keys[0]: entry}
    encode = lru_cache(maxsize=None)(renderer.encode)
    splits = [_split(encode, renderer, question.context, text) for text in question.continuations]
    pairs = [pair for pair, _ in splits]

    def check(sent: list[int], fed: list[int]) -> None:
        require_equal(sent, fed, renderer.decode, f"likelihood, {label}")

    scores = await score_pairs(client, pairs, check)
    return {
        key: {"nats": nats, "greedy": greedy, "merged": merged, "prompt_checked": True}
        for key, (nats, greedy), (_, merged) in zip(question.keys, scores, splits, strict=True)
    }


def _split(encode: Any, renderer: Renderer, context: str, continuation: str) -> tuple[Pair, bool]:
    """As in lm-eval, the end-of-turn token takes the place of an empty prompt."""
    if context:
        return split_prompt(encode, context, continuation)
    prefix, ids = renderer.contract.end_of_turn_id, encode(continuation)
    return ((ids[:1], ids[1:]) if ids[0] == prefix else ([prefix], ids)), False
