"""Faults of what an evaluation asks the session's real server, each under its name in `faults`."""

from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

from asking import Direct
from faulty_contract import SOUND_ENCODE, Bench, Check, static
from faulty_server import Body, Change, client, qwen, set_always

from harness.prompt.golden import turns
from harness.prompt.render import Renderer


def scored(bench: Bench, change: Change | None = None, renderer: Renderer | None = None) -> Direct:
    """The evaluation's model, whose requests are changed on their way."""
    return Direct(lambda: client(bench, change), renderer or bench.served.renderer, "candidate")


def generated(
    bench: Bench, change: Change, messages: Sequence[Body], asks: bool = True, renderer: Renderer | None = None
) -> Check:
    model = scored(bench, change, renderer)
    history: list[Mapping[str, Any]] = list(messages)
    context = model.apply_chat_template(history, add_generation_prompt=asks)
    return lambda: model.generate(context, {"until": [], "max_gen_toks": 4})


def encoder_adds_bos(bench: Bench) -> Check:
    def check() -> None:
        with patch.object(
            Renderer, "encode", lambda self, text: [self.tokenizer.bos_token_id, *SOUND_ENCODE(self, text)]
        ):
            static(bench.contract, bench.tokenizer)()

    return check


def request_adds_bos(bench: Bench) -> Check:
    return generated(bench, set_always(add_special_tokens=True), turns("Why?"))


def hand_rendered(bench: Bench) -> Check:
    context = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant"
    return lambda: scored(bench).generate(context, {"until": [], "max_gen_toks": 4})


def examples_in_one_turn(bench: Bench) -> Check:
    def change(path: str, body: Body) -> Body:
        joined = "\n\n".join(message["content"] for message in body["messages"])
        return {**body, "messages": turns(joined)}

    return generated(bench, change, turns("2+2?", "4", "3+3?"))


def system_not_sent(bench: Bench) -> Check:
    def change(path: str, body: Body) -> Body:
        return {**body, "messages": [message for message in body["messages"] if message["role"] != "system"]}

    return generated(bench, change, turns("Why?", system="You are brief."))


def generation_prompt_not_asked(bench: Bench) -> Check:
    return generated(bench, set_always(add_generation_prompt=False), turns("Why?"))


def prefill_closed(bench: Bench) -> Check:
    closing = set_always(add_generation_prompt=True, continue_final_message=False)
    return generated(bench, closing, turns("Why?", "Because"), asks=False)


def switch_in_request(bench: Bench) -> Check:
    contract = qwen(bench)
    switched = {"chat_template": contract.template, "chat_template_kwargs": {"enable_thinking": True}}
    return generated(bench, set_always(**switched), turns("Why?"), renderer=Renderer(contract, bench.tokenizer))


def question_trimmed(bench: Bench) -> Check:
    def change(path: str, body: Body) -> Body:
        return {**body, "messages": [{**m, "content": m["content"].strip()} for m in body["messages"]]}

    return generated(bench, change, turns("Question: why?\n"))


def context_cut(bench: Bench) -> Check:
    return generated(bench, set_always(truncate_prompt_tokens=8, truncation_side="left"), turns("Why? " * 20))


def likelihood_context_cut(bench: Bench) -> Check:
    model = scored(bench, lambda path, body: {**body, "prompt": [ids[1:] for ids in body["prompt"]]})
    context = model.apply_chat_template([*turns("Why? " * 20)])
    return lambda: model.likelihood(context, "Because.")


def likelihood_hand_rendered(bench: Bench) -> Check:
    return lambda: scored(bench).likelihood("Question: why?\nAnswer:", " Because.")
