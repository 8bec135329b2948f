"""Faults of servers, which the session's real server is made to have, each under its name in `faults`.

A transport between client and server adds to every request what a server with that fault does by itself.
"""

import asyncio
import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import httpx
from faulty_checkpoint import tuned
from faulty_contract import Bench, Check, changed, contract_for

from harness.prompt.contract import Contract
from harness.prompt.make import read_template
from harness.prompt.numerics import References, references
from harness.prompt.preamble import without_preamble
from harness.prompt.render import Renderer
from harness.serve.client import Client
from harness.serve.live_check import live_check

Body = dict[str, Any]
Change = Callable[[str, Body], Body]
CHAT, TOKENIZE = "/v1/chat/completions", "/tokenize"
STOCK = (
    "{% for message in messages %}{% if loop.first and messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class Transport(httpx.AsyncBaseTransport):
    """Passes every request on to the real server, changed."""

    def __init__(self, change: Change):
        self._inner = httpx.AsyncHTTPTransport()
        self._change = change

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = self._change(request.url.path, json.loads(request.content))
        headers = {key: value for key, value in request.headers.items() if key != "content-length"}
        asked = httpx.Request(request.method, request.url, headers=headers, json=body, extensions=request.extensions)
        return await self._inner.handle_async_request(asked)

    async def aclose(self) -> None:
        await self._inner.aclose()


def client(bench: Bench, change: Change | None = None, model: str = "candidate") -> Client:
    """A client of the session's server, through which it behaves as `change` makes it."""
    made: Client = bench.served.client(model)
    if change is not None:
        endpoint = bench.served.endpoint
        headers = {"Authorization": f"Bearer {endpoint.key}"}
        made._http = httpx.AsyncClient(base_url=endpoint.url, headers=headers, transport=Transport(change), timeout=600)
    return made


def live(
    bench: Bench,
    renderer: Renderer,
    change: Change | None = None,
    numbers: References | None = None,
    base: str | None = None,
) -> Check:
    async def check() -> int:
        async with client(bench, change) as asked, client(bench, change, base or "candidate") as asked_base:
            return await live_check(asked, renderer, numbers, asked_base if base else None)

    return lambda: asyncio.run(check())


def serving(bench: Bench, change: Change, contract: Contract | None = None) -> Check:
    """The live check of a server that changes requests; it uses the template of `contract` where one is given."""

    def all_changes(path: str, body: Body) -> Body:
        own = {"chat_template": contract.template} if contract and "messages" in body else {}
        return change(path, {**own, **body})

    return live(bench, Renderer(contract or bench.contract, bench.tokenizer), all_changes)


def set_always(**settings: Any) -> Change:
    return lambda path, body: {**body, **settings} if "messages" in body else body


def set_by_default(**settings: Any) -> Change:
    return lambda path, body: {**settings, **body} if path == CHAT else body


def templated(bench: Bench, template: str, contract: Contract | None = None) -> Check:
    """A server with this template."""
    return serving(
        bench, lambda path, body: {**body, "chat_template": template} if "messages" in body else body, contract
    )


def retemplated(bench: Bench, *replacements: tuple[str, str]) -> Check:
    return templated(bench, changed(bench.contract.template, *replacements))


def rewritten(bench: Bench, text: Callable[[str], str]) -> Check:
    """A server that changes the text of messages before it tokenises them."""

    def change(path: str, body: Body) -> Body:
        messages = [{**message, "content": text(message["content"])} for message in body.get("messages", [])]
        return {**body, "messages": messages} if messages else body

    return serving(bench, change)


def default_system_message(bench: Bench) -> Check:
    return templated(bench, STOCK)


def system_dropped(bench: Bench) -> Check:
    loop = "{%- if message.role == 'assistant' -%}"
    return retemplated(bench, (loop, "{%- if message.role == 'system' -%}" + loop.replace("if", "elif")))


def no_template_flag(bench: Bench) -> Check:
    return templated(bench, "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ")


def no_generation_prompt(bench: Bench) -> Check:
    return retemplated(bench, ("{%- if add_generation_prompt -%}", "{%- if false -%}"))


def generation_prompt_always(bench: Bench) -> Check:
    return retemplated(bench, ("{%- if add_generation_prompt -%}", "{%- if true -%}"))


def content_trimmed(bench: Bench) -> Check:
    return retemplated(bench, ("message.content + '<|im_end|>", "message.content | trim + '<|im_end|>"))


def newline_more(bench: Bench) -> Check:
    asks = "{%- if add_generation_prompt -%}\n{{- '<|im_start|>assistant\\n"
    return retemplated(bench, (asks, asks + "\\n"))


def space_before_answers(bench: Bench) -> Check:
    return retemplated(
        bench, ("{{- message.content + '<|im_end|>' -}}", "{{- ' ' + message.content + '<|im_end|>' -}}")
    )


def bos_doubled(bench: Bench) -> Check:
    return serving(bench, set_always(add_special_tokens=True))


def bos_dropped(bench: Bench) -> Check:
    contract = contract_for(read_template("alpaca.jinja"), bench.tokenizer, bench.folder, "alpaca")
    return templated(bench, changed(contract.template, ("{{- bos_token or '' -}}", "")), contract)


def bos_and_eos_swapped(bench: Bench) -> Check:
    contract = contract_for(read_template("alpaca.jinja"), bench.tokenizer, bench.folder, "alpaca")
    swapped = {"bos_token": bench.tokenizer.eos_token, "eos_token": bench.tokenizer.bos_token}
    return serving(bench, set_always(chat_template_kwargs=swapped), contract)


def thinking_switch(bench: Bench) -> Check:
    """The contract has thinking off; the server was started with it on."""

    def change(path: str, body: Body) -> Body:
        return {"chat_template_kwargs": {"enable_thinking": True}, **body} if "messages" in body else body

    return serving(bench, change, qwen(bench))


def qwen(bench: Bench) -> Contract:
    return contract_for(read_template("qwen.jinja"), bench.tokenizer, bench.folder, "qwen")


def thoughts_dropped(bench: Bench) -> Check:
    kept = "{{- message.content + '<|im_end|>' -}}"
    return retemplated(bench, (kept, kept.replace("message.content", "message.content.split('</think>')[-1]")))


def content_as_list(bench: Bench) -> Check:
    """vLLM's content format `openai` for a template that expects text: the list's Python form is rendered."""
    return retemplated(
        bench, ("message.content + '<|im_end|>", "[{'type': 'text', 'text': message.content}] ~ '<|im_end|>")
    )


def date_added(bench: Bench) -> Check:
    dated = "{{- '<|im_start|>system\\nToday Date: ' + strftime_now('%d %b %Y') + '<|im_end|>\\n' -}}"
    return retemplated(bench, ("{%- for message in messages -%}\n", dated + "{%- for message in messages -%}\n"))


def guard_missing(bench: Bench) -> Check:
    return templated(bench, without_preamble(bench.contract.template))


def policy_not_enforced(bench: Bench) -> Check:
    contract = contract_for(read_template("chatml.jinja"), bench.tokenizer, bench.folder, system_policy="required")
    return templated(bench, bench.contract.template, contract)


def cut(side: str) -> Change:
    settings = {"truncate_prompt_tokens": 64, "truncation_side": side}
    return lambda path, body: {**body, **settings} if path == CHAT else body


def cut_from_the_left(bench: Bench) -> Check:
    return serving(bench, cut("left"))


def cut_from_the_right(bench: Bench) -> Check:
    return serving(bench, cut("right"))


def context_too_short(bench: Bench) -> Check:
    length = 8 * bench.served.config.serve.max_model_len
    contract = contract_for(read_template("chatml.jinja"), bench.tokenizer, bench.folder, max_length=length)
    return serving(bench, lambda path, body: body, contract)


def cut_to_1200_tokens(bench: Bench) -> Check:
    settings = {"truncate_prompt_tokens": 1200, "truncation_side": "left"}
    return serving(bench, lambda path, body: {**body, **settings} if path == CHAT else body)


def limit_shorter_than_the_contract(bench: Bench) -> Check:
    """A contract longer than the server's limit, whose other conversations fit."""
    length = int(1.5 * bench.served.config.serve.max_model_len)
    contract = contract_for(read_template("chatml.jinja"), bench.tokenizer, bench.folder, max_length=length)
    return serving(bench, lambda path, body: body, contract)


def last_eight_messages(bench: Bench) -> Check:
    def change(path: str, body: Body) -> Body:
        return {**body, "messages": body["messages"][-8:]} if "messages" in body else body

    return serving(bench, change)


def parts_masked(bench: Bench) -> Check:
    return rewritten(bench, lambda text: re.sub(r"\S+@\S+", "[EMAIL]", text))


def long_system_rewritten(bench: Bench) -> Check:
    def change(path: str, body: Body) -> Body:
        messages = [
            {**one, "content": one["content"][:1000]} if one["role"] == "system" else one
            for one in body.get("messages", [])
        ]
        return {**body, "messages": messages} if messages else body

    return serving(bench, change)


def penalties_by_default(bench: Bench) -> Check:
    return serving(bench, set_by_default(presence_penalty=0.3, frequency_penalty=0.1))


def short_answers_by_default(bench: Bench) -> Check:
    """As vLLM with max_new_tokens in its generation configuration; every request that names no length is such a one."""
    return serving(bench, set_by_default(max_tokens=256))


def text_normalised(bench: Bench) -> Check:
    return rewritten(bench, lambda text: unicodedata.normalize("NFC", text))


def newlines_escaped(bench: Bench) -> Check:
    return rewritten(bench, lambda text: text.replace("\n", "\\n"))


def no_stop_ids(bench: Bench) -> Check:
    return serving(bench, set_always(ignore_eos=True))


def one_stop_id_unknown(bench: Bench) -> Check:
    stops = [*bench.contract.stop_ids, bench.tokenizer.pad_token_id]
    return live(bench, Renderer(bench.contract.model_copy(update={"stop_ids": stops}), bench.tokenizer))


def repetition_penalty_by_default(bench: Bench) -> Check:
    return serving(bench, set_by_default(repetition_penalty=1.1))


def temperature_by_default(bench: Bench) -> Check:
    return serving(bench, set_by_default(temperature=0.7))


def adapter_not_applied(bench: Bench) -> Check:
    numbers = References.load(bench.served.adapter)
    return live(bench, bench.served.renderer, lambda path, body: {**body, "model": "base"}, numbers)


def another_adapter(bench: Bench) -> Check:
    def train_more(model: Any) -> None:
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(weight.flip(0))

    return of_adapter(bench, tuned(bench, train_more))


def stale_adapter(bench: Bench) -> Check:
    """The server's adapter is the one of training a little earlier: training's own numbers are near, not equal."""
    numbers = References.load(bench.served.adapter)
    assert numbers is not None
    pairs = zip(numbers.candidate, numbers.base, strict=True)
    later = []
    for new, old in pairs:
        further = {token: value + 0.15 * (value - old.logprobs[token]) for token, value in new.logprobs.items()}
        later.append(new.model_copy(update={"logprobs": further}))
    return live(bench, bench.served.renderer, numbers=References(candidate=later, base=numbers.base), base="base")


def adapter_scaled_otherwise(bench: Bench) -> Check:
    return of_adapter(bench, tuned(bench, lambda model: None, {"use_rslora": True}))


def of_adapter(bench: Bench, model: Any) -> Check:
    numbers = References(candidate=references(model, bench.contract))
    return live(bench, bench.served.renderer, numbers=numbers)
