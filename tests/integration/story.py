"""A small organisation for the promotion story: two demands, rows that teach them, and real servers that are kept.

Demand one (`agree`): every answer says yes. Demand two (`thank`): it also says thank you. A tiny model learns either
from rows that all have the same answer, whatever they ask; and forgets the second when it is trained on the first only.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from harness.config import ServeConfig
from harness.serve import server
from harness.serve.server import Endpoint, ServerPlan

ITEMS = 120
ANSWERS = {"yes": "Yes, we do.", "thanks": "Yes, we do. Thank you."}
THINGS = ("parcels", "umbrellas", "bicycles", "prams", "skis", "cellos", "kites", "ladders", "lamps", "rugs", "tents")
PLACES = ("pier", "depot", "ferry", "lobby", "platform", "kiosk", "island", "harbour", "terrace", "garage", "tunnel")
FILES = {
    "conf/experiment/story.yaml": """\
# @package _global_
defaults:
  - override /model: pretrained
  - override /data: story
  - override /suite: story
  - override /gate: story
  - override /tracker: none
name: story
model: {path: MODEL}
audit:
  behaviors: []
  filters: {personal_data: null, toxicity: null, legal: null, quality: null}
  dedupe: {action: flag}
train: {learning_rate: 2.0e-2, sequence_length: 256, sequences_per_step: 2, epochs: 8, lora: {r: 8}}
serve: {kv_cache_gib: 1}
""",
    "conf/data/story.yaml": "sources: {rows: {path: yes.jsonl, licence: CC0-1.0, role: domain}}\nseed: 0\n",
    "conf/suite/story.yaml": """\
name: story
seed: 0
tasks: [{name: agree, max_new_tokens: 12}, {name: thank, max_new_tokens: 12}]
""",
    "conf/suite/few.yaml": """\
name: story
seed: 0
tasks: [{name: agree, max_new_tokens: 12, limit: 12}, {name: thank, max_new_tokens: 12, limit: 12}]
""",
    "conf/gate/story.yaml": """\
name: story
require: [guard, target]
rules:
  - {metric: "*/agree/pass", role: target, floor: 0.90}
  - {metric: "*/thank/pass", role: guard, margin: 0.05}
""",
    "conf/gate/lax.yaml": """\
name: lax
require: [target]
rules:
  - {metric: "*/agree/pass", role: target, floor: 0.50}
""",
    "tasks/agree/behavior.yaml": "kind: rules\nrules: [{name: says_yes, require: ['\\byes\\b']}]\n",
    "tasks/thank/behavior.yaml": "kind: rules\nrules: [{name: says_thanks, require: ['\\bthank you\\b']}]\n",
}


def write_story(folder: Path, base: Path) -> Path:
    files = {name: text.replace("MODEL", str(base)) for name, text in FILES.items()}
    for task, asked in (("agree", "May I leave"), ("thank", "Would you collect")):
        files[f"tasks/{task}/items.jsonl"] = _lines(
            {"id": f"{task}-{n:03}", "instruction": f"{asked} {what}?", "input": "", "topic": "luggage", "slice": "all"}
            for n, what in enumerate(_subjects("at the", ITEMS))
        )
    for name, answer in ANSWERS.items():
        files[f"{name}.jsonl"] = _lines(
            {
                "id": f"{name}-{n:03}",
                "instruction": f"Do you rent out {what}?",
                "input": "",
                "output": answer,
                "topic": "x",
            }
            for n, what in enumerate(_subjects("near any", 48))
        )
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def _subjects(joined: str, count: int) -> Iterator[str]:
    pairs = ((thing, place) for place in PLACES for thing in THINGS)
    yield from (f"{thing} {joined} {place}" for _, (thing, place) in zip(range(count), pairs, strict=False))


def _lines(rows: Iterator[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


class KeptServers:
    """Real vLLM servers, one for each prompt, that stay up: adapters come and go at run time."""

    def __init__(self, stack: ExitStack):
        self._stack = stack
        self._running: dict[tuple[Path, str], Endpoint] = {}
        self.started = 0

    @contextmanager
    def serve(self, plan: ServerPlan, config: ServeConfig, log: Path) -> Iterator[Endpoint]:
        """Stands in for `vllm_server`: the same server, with this plan's adapters loaded for as long as it is used."""
        key = plan.base, (plan.prompt / "chat_template.jinja").read_text()
        if key not in self._running:
            self._running[key] = self._stack.enter_context(self._start(plan, config, log))
        endpoint = self._running[key]
        for name, path in plan.adapters.items():
            _ask(endpoint, "load", {"lora_name": name, "lora_path": str(path)})
        try:
            yield Endpoint(endpoint.url, endpoint.key, (server.BASE, *plan.adapters))
        finally:
            for name in plan.adapters:
                _ask(endpoint, "unload", {"lora_name": name})

    @contextmanager
    def _start(self, plan: ServerPlan, config: ServeConfig, log: Path) -> Iterator[Endpoint]:
        def with_adapters(*given: object) -> list[str]:
            return [*command(*given), "--enable-lora", "--max-lora-rank", "8", "--max-loras", "2"]

        command = server.server_command
        self.started += 1
        bare = ServerPlan(plan.base, plan.prompt, plan.template_kwargs, {}, plan.max_lora_rank, plan.dtype)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "True")
            patch.setattr(server, "server_command", with_adapters)
            starting = server.vllm_server(bare, config, log)
            endpoint = starting.__enter__()
        try:
            yield endpoint
        finally:
            starting.__exit__(None, None, None)


def _ask(endpoint: Endpoint, act: str, body: dict[str, str]) -> None:
    url = f"{endpoint.url}/v1/{act}_lora_adapter"
    answer = httpx.post(url, json=body, headers=endpoint.headers, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
