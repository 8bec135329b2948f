"""The real vLLM server: who may ask, what it is fed, and how it fails."""

import asyncio
import json
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
import tiny
from asking import Direct
from tiny import Served, user

from harness.behavior.exchange import Exchange
from harness.core.errors import EnvironmentFault, PromptMismatch, ServerFault
from harness.evaluate.llm_judge import LlmJudge
from harness.prompt.render import Renderer
from harness.serve.client import Generation, NextToken
from harness.serve.server import ServerPlan, vllm_server
from harness.serve.session import replace_adapter

pytestmark = pytest.mark.integration

CONVERSATIONS = [
    user("What should I know about shares?"),
    user("Fünf Euro — “wirklich”?\n\n  zwei Leerzeichen, ein Tab\t, 日本語 🙂 "),
    user("Is <|im_end|> a token when I write it? And <|im_start|>system?"),
    [{"role": "system", "content": "Be brief."}, *user("Why?")],
    [*user("Hello."), {"role": "assistant", "content": "Hello, and welcome."}, *user("And now?")],
]


def generate(served: Served, model: str, conversations: Sequence[list[dict[str, str]]]) -> list[Generation]:
    async def ask() -> list[Generation]:
        async with served.client(model) as client:
            settings = {"max_tokens": 48, "temperature": 0.0, "stop_token_ids": served.contract.stop_ids}
            return await asyncio.gather(*(client.generate(messages, **settings) for messages in conversations))

    return asyncio.run(ask())


class TestPrompts:
    def test_the_server_tokenizes_as_the_renderer_does(self, served: Served) -> None:
        async def ask() -> list[list[int]]:
            async with served.client("candidate") as client:
                return [await client.tokenize(messages) for messages in CONVERSATIONS]

        assert asyncio.run(ask()) == [served.renderer.prompt(messages) for messages in CONVERSATIONS]

    @pytest.mark.parametrize("model", ["base", "candidate"])
    def test_generations_come_with_the_renderers_ids(self, served: Served, model: str) -> None:
        answers = generate(served, model, CONVERSATIONS)
        assert [a.prompt_ids for a in answers] == [served.renderer.prompt(messages) for messages in CONVERSATIONS]

    def test_the_adapter_answers_otherwise_than_the_base(self, served: Served) -> None:
        questions = [user(row["instruction"]) for row in tiny.rows(4)]
        assert generate(served, "base", questions) != generate(served, "candidate", questions)

    def test_a_judge_on_our_own_server_says_nothing_but_a_verdict(self, served: Served) -> None:
        own = served.endpoint
        held, free = (LlmJudge(own.url, "base", "Be kind.", key=own.key, constrained=only) for only in (True, False))
        exchanges = [Exchange(row["instruction"], row["output"]) for row in tiny.rows(3)]
        assert {opinion.reply for opinion in held.opinions(exchanges)} <= {"PASS", "FAIL"}
        assert None not in held.verdicts(exchanges)
        assert free.verdicts(exchanges) == [None] * 3  # random weights babble

    def test_adapters_are_exchanged_while_the_server_runs(self, served: Served, tmp_path: Path) -> None:
        """The same questions each time, so that anything kept of the adapter before would show."""
        from safetensors.torch import load_file, save_file

        for name in ("same", "turned"):
            shutil.copytree(served.adapter, tmp_path / name)
        path = tmp_path / "turned" / "adapter_model.safetensors"
        save_file({name: -w if "lora_B" in name else w for name, w in load_file(path).items()}, path)
        questions = [user(row["instruction"]) for row in tiny.rows(4)]
        wanted = generate(served, "candidate", questions)
        answers = {}
        for name in ("same", "turned"):
            replace_adapter(served.endpoint, "exchanged", tmp_path / name)
            answers[name] = generate(served, "exchanged", questions)
        assert answers["same"] == wanted
        assert answers["turned"] not in (wanted, generate(served, "base", questions))
        assert generate(served, "candidate", questions) == wanted
        with pytest.raises(ServerFault, match="cannot load the adapter"):
            replace_adapter(served.endpoint, "exchanged", tmp_path / "absent")

    def test_another_template_is_found_at_the_first_prompt(self, served: Served) -> None:
        contract = served.contract.model_copy(
            update={"template": served.contract.template.replace("assistant\\n", "assistant:\\n")}
        )
        changed = Renderer(contract, served.renderer.tokenizer)
        position = next(
            n
            for n, (ours, theirs) in enumerate(
                zip(changed.prompt(user("Why?")), served.renderer.prompt(user("Why?")), strict=False)
            )
            if ours != theirs
        )
        model = Direct(lambda: served.client("candidate"), changed, "candidate")
        prompt = model.apply_chat_template(user("Why?"))
        with pytest.raises(PromptMismatch, match=f"First difference at token {position} ") as caught:
            model.generate(prompt, {"until": [], "max_gen_toks": 4})
        assert caught.value.exit_code == 12


class TestLikelihood:
    def test_next_token_agrees_with_transformers(self, served: Served) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        prompts = [served.renderer.prompt(messages) for messages in CONVERSATIONS]
        asked = list(range(0, 1000, 50))
        model = AutoModelForCausalLM.from_pretrained(served.base, dtype=torch.float32)
        for ids, answer in zip(prompts, next_tokens(served, "base", prompts, asked), strict=True):
            with torch.no_grad():
                expected = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].float(), -1)
            assert answer.prompt_ids == ids
            assert [answer.logprobs[i] for i in asked] == pytest.approx(expected[asked].tolist(), abs=1e-3)
            assert float(expected[answer.greedy_id]) == pytest.approx(float(expected.max()), abs=1e-3)

    def test_the_base_is_not_touched_by_adapter_requests_in_flight(self, served: Served) -> None:
        """Both models' tokens share vLLM's batches; its own CPU kernels gave the base the adapter's weights."""
        prompts = [served.renderer.prompt(user(row["instruction"])) for row in tiny.rows(16)]
        asked = list(range(0, 1000, 50))
        alone = next_tokens(served, "base", prompts, asked)
        tuned = next_tokens(served, "candidate", prompts, asked)
        assert all(b.logprobs != pytest.approx(a.logprobs, abs=0.5) for a, b in zip(alone, tuned, strict=True))

        async def ask() -> list[NextToken]:
            async with served.client("base") as base, served.client("candidate") as candidate:
                asks = [c.next_token(ids, asked) for ids in prompts for c in (base, candidate)]
                return (await asyncio.gather(*asks))[::2]

        for before, mixed in zip(alone, asyncio.run(ask()), strict=True):
            assert mixed.logprobs == pytest.approx(before.logprobs, abs=1e-3)


def next_tokens(served: Served, model: str, prompts: Sequence[list[int]], asked: list[int]) -> list[NextToken]:
    async def ask() -> list[NextToken]:
        async with served.client(model) as client:
            return await asyncio.gather(*(client.next_token(ids, asked) for ids in prompts))

    return asyncio.run(ask())


class TestSafety:
    def test_without_the_key_nothing_is_generated(self, served: Served) -> None:
        body = {"model": "base", "messages": user("Why?"), "max_tokens": 1}
        for headers in ({}, {"Authorization": "Bearer guessed"}):
            for path in ("/v1/chat/completions", "/v1/completions"):
                answer = httpx.post(served.endpoint.url + path, json=body, headers=headers, trust_env=False)
                assert answer.status_code == 401

    def test_it_listens_on_loopback_only(self, served: Served) -> None:
        sockets = tiny.listening(served.pids)
        assert ("0100007F", tiny.port_of(served.endpoint)) in sockets
        assert {address for address, _ in sockets} == {"0100007F"}

    def test_the_key_is_in_no_command_line_and_no_log(self, served: Served) -> None:
        assert not any(served.endpoint.key in command for _, command in tiny.processes().values())
        assert served.endpoint.key not in served.log.read_text()


class TestFailures:
    def test_a_port_in_use_is_told_before_anything_starts(self, served: Served, tmp_path: Path) -> None:
        plan = ServerPlan(served.base, served.adapter, {}, {}, 8, "bfloat16")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            config = served.config.serve.model_copy(update={"port": port})
            with (
                pytest.raises(EnvironmentFault, match=f"port {port} .*serve.port=0") as caught,
                vllm_server(plan, config, tmp_path / "vllm.log"),
            ):
                pass
        assert caught.value.exit_code == 3
        assert not (tmp_path / "vllm.log").exists()

    def test_a_server_that_dies_at_start_shows_the_end_of_its_log(self, served: Served, tmp_path: Path) -> None:
        broken = tmp_path / "broken"
        shutil.copytree(served.base, broken)
        (broken / "config.json").write_text(json.dumps({"model_type": "no_such_architecture"}))
        plan = ServerPlan(broken, served.adapter, {}, {}, 8, "bfloat16")
        log = tmp_path / "logs" / "vllm.log"
        with pytest.raises(ServerFault, match="during startup") as caught, vllm_server(plan, served.config.serve, log):
            pass
        assert caught.value.exit_code == 3
        assert f"Last lines of {log}:" in str(caught.value)
        assert "no_such_architecture" in str(caught.value)
        assert tiny.group_of(str(broken)) == ()

    def test_a_request_the_server_refuses_is_told_in_its_words(self, served: Served) -> None:
        with pytest.raises(ServerFault, match=r"refused a request to /v1/chat/completions.*no-such-model"):
            generate(served, "no-such-model", [user("Why?")])
