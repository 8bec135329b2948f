"""What the harness adds to generation: throughput through the server, time and memory of its own a request."""

import asyncio
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from evaluation_peers import Setup, stock_environment

from harness.evaluate.answers import Answers
from harness.evaluate.dispatch import PendingQuestion, RequestDispatcher
from harness.evaluate.journal import Journal
from harness.evaluate.requests import Question, generation, likelihoods
from harness.evaluate.write import renderer_for
from harness.model.load import adapter_config
from harness.prompt.contract import Contract
from harness.prompt.render import Renderer
from harness.serve.client import Client
from harness.serve.server import BASE, Endpoint, ServerPlan, vllm_server, write_prompt
from harness.serve.session import LiveServer
from harness.workflows.compose import config_for

PROMPTS = 256
CHOICES = 4
ENGINE = """
import json, sys, time
from vllm import LLM, SamplingParams
request = json.load(open(sys.argv[1]))
llm = LLM(model=request["model"], dtype="bfloat16", max_model_len=request["length"], enforce_eager=True)
settings = SamplingParams(temperature=0, max_tokens=request["new_tokens"], ignore_eos=True)
prompts = [{"prompt_token_ids": ids} for ids in request["prompts"]]
llm.generate(prompts[:8], settings, use_tqdm=False)
llm.reset_prefix_cache()
started = time.perf_counter()
answers = llm.generate(prompts, settings, use_tqdm=False)
seconds = time.perf_counter() - started
json.dump({"seconds": seconds, "tokens": sum(len(a.outputs[0].token_ids) for a in answers)}, open(sys.argv[2], "w"))
"""


def throughput(setup: Setup) -> str:
    """Greedy answers of a fixed length to the same prompts, both engines warm and with an empty prefix cache."""
    contract = Contract.load(setup.adapter)
    renderer = renderer_for(contract, setup.whole["base"])
    conversations = [[{"role": "user", "content": text}] for text in _questions(setup)]
    own = _through_server(setup, contract, conversations)
    request, out = setup.scratch / "engine.json", setup.scratch / "engine.out"
    prompts = [renderer.prompt(messages) for messages in conversations]
    wanted = {"model": str(setup.whole["base"]), "length": setup.config.serve.max_model_len}
    request.write_text(json.dumps({**wanted, "new_tokens": setup.new_tokens, "prompts": prompts}))
    with (setup.scratch / "engine.log").open("w") as log:
        command = [sys.executable, "-c", ENGINE, str(request), str(out)]
        subprocess.run(command, env=stock_environment(setup), stdout=log, stderr=log, check=True)
    found = json.loads(out.read_text())
    theirs = found["tokens"] / found["seconds"]
    return (
        f"| {len(prompts)} prompts, {setup.new_tokens} new tokens each | tokens/s |\n| --- | --- |\n"
        f"| harness, through its server | {own:.0f} |\n| vLLM's engine in process | {theirs:.0f} |\n"
        f"| ratio (target: at least 0.95) | {own / theirs:.2f} |"
    )


def _questions(setup: Setup) -> list[str]:
    from datasets import load_dataset

    rows = load_dataset(str(setup.hub / "openai/gsm8k"), "main", split="test")
    return [f"Question: {row['question']}\nAnswer:" for row in rows.select(range(PROMPTS))]


def _through_server(setup: Setup, contract: Contract, conversations: list[Any]) -> float:
    """Tokens a second, all requests in flight as in an evaluation."""
    prompt = write_prompt(contract, setup.scratch / "prompt")
    plan = ServerPlan(setup.whole["base"], prompt, contract.template_kwargs, {}, 8, "bfloat16")
    settings = {"temperature": 0.0, "max_tokens": setup.new_tokens, "ignore_eos": True}

    async def ask(endpoint: Endpoint) -> float:
        serve = setup.config.serve
        async with Client(endpoint, BASE, serve.request_timeout_s, serve.concurrency) as client:
            await asyncio.gather(
                *(client.generate([{"role": "user", "content": f"{n}"}], **settings) for n in range(8))
            )
            started = time.perf_counter()
            answers = await asyncio.gather(*(client.generate(messages, **settings) for messages in conversations))
            return sum(len(answer.ids) for answer in answers) / (time.perf_counter() - started)

    with vllm_server(plan, setup.config.serve, setup.scratch / "vllm.log") as endpoint:
        return asyncio.run(ask(endpoint))


def overhead(adapter: Path, requests: int) -> str:
    """Half generations, half likelihoods (four a question), through queue, client, checks and journal."""
    contract = Contract.load(adapter)
    base = Path(str(adapter_config(adapter)["base_model_name_or_path"]))
    renderer = renderer_for(contract, adapter if (adapter / "tokenizer.json").is_file() else base)
    config = config_for(["tracker=none"])
    asked = list(_asked(renderer, requests))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    port: Any = multiprocessing.get_context("spawn").Queue()
    server = multiprocessing.get_context("spawn").Process(target=_stub, args=(port, _prompts(renderer)), daemon=True)
    server.start()
    endpoint = Endpoint(f"http://127.0.0.1:{port.get()}", "", (BASE,))
    with tempfile.TemporaryDirectory() as folder:
        answers = Answers(BASE, BASE, Journal(Path(folder) / "answers.sqlite", {}))
        dispatcher = RequestDispatcher(
            renderer, config.serve, lambda one, entries: answers.add_result(one.question, entries)
        )
        wall, busy = time.perf_counter(), time.process_time()
        dispatcher.run(asked, LiveServer(lambda: nullcontext(lambda: endpoint)), "stub")
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
    server.terminate()
    if len(answers.values) != requests:
        raise SystemExit(
            f"{len(answers.values)} of {requests} requests were answered: {list(answers.failures.values())[:1]}"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (
        f"| {requests} requests against a server that answers at once | |\n| --- | --- |\n"
        f"| time a request, the server's share included | {1000 * wall / requests:.2f} ms |\n"
        f"| processor time of the harness a request (target: under 2 ms) | {1000 * busy / requests:.2f} ms |\n"
        f"| memory of the harness, peak (target: under 1024 MiB) | {peak / 1024:.0f} MiB |\n"
        f"| of that before the first request | {before / 1024:.0f} MiB |"
    )


def _asked(renderer: Renderer, requests: int) -> Iterable[PendingQuestion]:
    """Generations of few prompts with many seeds, and likelihoods of as many continuations."""
    texts = _texts()
    for number in range(requests // 2):
        text = texts[number % len(texts)]
        messages = [{"role": "user", "content": text}]
        context = renderer.text(messages)
        wanted = {"until": [], "max_gen_toks": 64, "do_sample": True, "temperature": 1.0}
        yield PendingQuestion(BASE, BASE, generation(renderer, context, wanted, number), (messages, True))
    for number in range((requests - requests // 2) // CHOICES):
        messages = [{"role": "user", "content": f"{number}: {texts[number % len(texts)]}"}]
        question: Question = likelihoods(renderer.text(messages), [f"choice {n} of them" for n in range(CHOICES)])
        yield PendingQuestion(BASE, BASE, question, (messages, True))


def _texts() -> list[str]:
    return [f"Question {number}: what should a customer know about shares, bonds and funds?" for number in range(100)]


def _prompts(renderer: Renderer) -> dict[str, list[int]]:
    return {text: renderer.prompt([{"role": "user", "content": text}]) for text in _texts()}


def _stub(port: Any, prompts: dict[str, list[int]]) -> None:
    """Answers as vLLM would, at once."""
    import uvicorn

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = json.loads(body)
        answer = _chat(request, prompts) if "messages" in request else _completion(request)
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    settings = uvicorn.Config(app, port=0, log_level="error", lifespan="off", access_log=False)
    server = uvicorn.Server(settings)

    async def serve() -> None:
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.05)
        port.put(server.servers[0].sockets[0].getsockname()[1])
        await task

    asyncio.run(serve())


def _chat(request: dict[str, Any], prompts: dict[str, list[int]]) -> dict[str, Any]:
    text = request["messages"][-1]["content"]
    choice = {"message": {"content": "An answer of some words. " * 12}, "finish_reason": "stop", "token_ids": [5] * 64}
    return {"choices": [choice], "prompt_token_ids": prompts[text]}


def _completion(request: dict[str, Any]) -> dict[str, Any]:
    start = request["vllm_xargs"]["score_from"]
    rows = [[{str(token): {"logprob": -1.0}} for token in ids[start:]] for ids in request["prompt"]]
    choices = enumerate(zip(request["prompt"], rows, strict=True))
    return {"choices": [{"index": n, "prompt_logprobs": row, "prompt_token_ids": ids} for n, (ids, row) in choices]}
