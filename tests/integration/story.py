"""A small organisation for the promotion story: two demands, rows that teach them, and real servers that are kept.

Demand one (`agree`): every answer grants what is asked. Demand two (`cite`): it also cites the licence. A tiny model
learns either from rows that all have one answer, whatever they ask, and lacks the second when it saw the first only.
"""

import io
import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness import cli
from harness.config.experiment import ServeConfig
from harness.evaluate.answers import Answers
from harness.serve import server
from harness.serve.server import Endpoint, ServerPlan
from harness.track.tracker import Artifact, NoTracker, Tracker

ITEMS = 120
ANSWERS = {"grant": "granted", "licence": "granted under the License"}  # words that the tiny tokenizer knows whole
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
train: {learning_rate: 1.0e-2, sequence_length: 256, sequences_per_step: 2, epochs: 12, lora: {r: 8}}
serve: {kv_cache_gib: 1}
""",
    "conf/data/story.yaml": "sources: {rows: {path: grant.jsonl, licence: CC0-1.0, role: domain}}\nseed: 0\n",
    "conf/suite/story.yaml": """\
name: story
seed: 0
tasks: [{name: agree, max_new_tokens: 12}, {name: cite, max_new_tokens: 12}]
""",
    "conf/suite/few.yaml": """\
name: story
seed: 0
tasks: [{name: agree, max_new_tokens: 12, limit: 12}, {name: cite, max_new_tokens: 12, limit: 12}]
""",
    "conf/suite/half.yaml": """\
name: story
seed: 0
tasks: [{name: agree, max_new_tokens: 12, limit: 60}, {name: cite, max_new_tokens: 12, limit: 60}]
""",
    "conf/gate/story.yaml": """\
name: story
require: [guard, target]
rules:
  - {metric: "*/agree/pass", role: target, floor: 0.90}
  - {metric: "*/cite/pass", role: guard, margin: 5 points}
""",
    "conf/gate/lax.yaml": """\
name: lax
require: [target]
rules:
  - {metric: "*/agree/pass", role: target, floor: 0.50}
""",
    "conf/gate/looks.yaml": """\
name: looks
require: [guard, target]
baselines: [production]
sequential: {looks: 4}
rules:
  - {metric: "*/agree/pass", role: target, floor: 0.60}
  - {metric: "*/cite/pass", role: guard, margin: 30 points}
""",
    "tasks/agree/behavior.yaml": "kind: rules\nrules: [{name: grants, require: ['\\bgranted\\b']}]\n",
    "tasks/cite/behavior.yaml": "kind: rules\nrules: [{name: names_licence, require: ['\\bthe license\\b']}]\n",
}


def write_story(folder: Path, base: Path) -> Path:
    files = {name: text.replace("MODEL", str(base)) for name, text in FILES.items()}
    for task, asked in (("agree", "May I leave"), ("cite", "Would you collect")):
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


@dataclass(frozen=True)
class Kept:
    """A server that is ready already."""

    endpoint: Endpoint

    def ready(self) -> Endpoint:
        return self.endpoint


class KeptServers:
    """Real vLLM servers, one for each prompt, that stay up: adapters come and go at run time."""

    def __init__(self, stack: ExitStack):
        self._stack = stack
        self._running: dict[tuple[Path, str], Endpoint] = {}
        self.started = 0

    @contextmanager
    def serve(self, plan: ServerPlan, config: ServeConfig, log: Path) -> Iterator["Kept"]:
        """Stands in for `launched`: the same server, with this plan's adapters loaded for as long as it is used."""
        key = plan.base, (plan.prompt / "chat_template.jinja").read_text()
        if key not in self._running:
            self._running[key] = self._stack.enter_context(self._start(plan, config, log))
        endpoint = self._running[key]
        for name, path in plan.adapters.items():
            _ask(endpoint, "load", {"lora_name": name, "lora_path": str(path)})
        try:
            yield Kept(Endpoint(endpoint.url, endpoint.key, (server.BASE, *plan.adapters)))
        finally:
            for name in plan.adapters:
                _ask(endpoint, "unload", {"lora_name": name})

    @contextmanager
    def _start(self, plan: ServerPlan, config: ServeConfig, log: Path) -> Iterator[Endpoint]:
        def with_adapters(*given: Any) -> list[str]:
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
    answer = httpx.post(url, json=body, headers=endpoint.headers, timeout=600, trust_env=False)
    assert answer.status_code == 200, answer.text


@dataclass(frozen=True)
class Outcome:
    """What one call of `harness` returned and said."""

    code: int
    said: str


def call(*arguments: str) -> Outcome:
    """One call in this process."""
    said = io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with redirect_stderr(said), redirect_stdout(said):
            code = cli.main(arguments)
    finally:
        signal.signal(signal.SIGTERM, handler)
    return Outcome(code, said.getvalue())


class Tracked(NoTracker):
    """One W&B run as its server would see it."""

    def __init__(self, name: str, stage: str):
        self.name, self.stage = name, stage
        self.losses: list[float] = []
        self.made: list[str] = []

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.losses.append(values["train/loss"])

    def artifact(self, made: Artifact, alias: str = "") -> None:
        self.made.append(made.kind)


class Story:
    """The organisation at work: candidates by name, and what became of each."""

    def __init__(self, project: Path):
        self.project = project
        self.told: dict[str, Outcome] = {}
        self.tracked: list[Tracked] = []

    def train(self, name: str, rows: str, *overrides: str, verb: str = "run") -> Outcome:
        """A candidate trained on rows that all have one answer; `run` also judges it against its base model."""
        source = f"data.sources.rows.path={rows}.jsonl"
        return call(verb, "experiment=story", f"name={name}", source, *overrides)

    def gate(self, name: str) -> Outcome:
        """`harness ci`: the candidate against production."""
        return call("ci", str(self.run(name)), "--policy", "story")

    def promote(self, name: str, *options: str) -> Outcome:
        return call("promote", str(self.run(name)), "--who", "ada", "--why", f"promote {name}", *options)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """W&B online, with a stand-in for its server: `tracked` holds every W&B run that is opened."""

        def opened(_: Any, *, run_name: str, stage: str, **__: Any) -> Tracker:
            self.tracked.append(Tracked(run_name, stage))
            return self.tracked[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("harness.workflows.run.check_tracker", lambda _: None)
            patch.setattr("harness.track.run.open_tracker", opened)
            yield

    def run(self, name: str) -> Path:
        (folder,) = (path.parent for path in self.project.glob(f"runs/{name}-*/config.yaml"))
        return folder


def play(story: Story) -> Story:
    """The whole story, step by step; `told` holds the outcome of each."""
    told = story.told
    for alias in ("production", "canary", "looked"):
        call("registry", "init", "--alias", alias, "--who", "ada")
    told |= {"first": story.train("first", "grant"), "first promoted": story.promote("first")}
    told |= {"better": story.train("better", "licence"), "better too early": story.promote("better")}
    told |= {"better gated": story.gate("better"), "better promoted": story.promote("better")}
    told |= {"better in production": call("verify", "production")}
    told |= {"better gated again": story.gate("better"), "better promoted again": story.promote("better")}
    for name, rows, *overrides in (
        ("forgetful", "grant", "train.seed=1"),
        ("hasty", "licence", "suite=few", "alpha=0.8"),
    ):
        told |= {name: story.train(name, rows, *overrides), f"{name} gated": story.gate(name)}
        told |= {f"{name} promoted": story.promote(name)}
    told |= {"otherwise": story.train("otherwise", "licence", "template=alpaca", verb="train")}
    told |= {"otherwise gated": story.gate("otherwise"), "otherwise promoted": story.promote("otherwise")}
    told |= _between(story)
    told |= _in_looks(story)
    told |= _tampered(story)
    told |= {"rollback": call("registry", "rollback", "--who", "grace", "--why", "complaints")}
    told |= {"first in production": call("verify", "production")}
    told |= {"list": call("registry", "list"), "verify": call("registry", "verify")}
    return story


def _between(story: Story) -> dict[str, Outcome]:
    """Half of what the better one learnt: as a run of its own, and named by hand beside the base model."""
    half, out = story.train("half", "licence", "alpha=0.5"), str(story.project / "by-hand")
    told = {"half": half, "half verified": call("verify", str(story.run("half")))}
    told |= {"half promoted": story.promote("half", "--alias", "canary"), "canary": call("verify", "canary")}
    named = call("ci", f"{story.run('better')}@0.5", "--against", "base", "--policy", "story", "--out", out)
    return told | {"by hand": named, "by hand verified": call("verify", out)}


def _in_looks(story: Story) -> dict[str, Outcome]:
    """A candidate that nobody asked yet, in looks at half of the items, on which no baseline was evaluated: stopped in
    the middle, and again. Then a run whose evaluation is there, whole.
    """
    out = str(story.project / "in-looks")
    against = ("--against", "base", "--policy", "looks", "--out")
    asked = ("ci", f"{story.run('better')}@0.9", *against, out, "experiment=story", "suite=half")
    with _interrupted_after(35):
        told = {"looks interrupted": call(*asked)}
    told |= {"looks": call(*asked), "looks verified": call("verify", out)}
    again = str(story.project / "in-looks-again")
    told |= {"half in looks": call("ci", str(story.run("half")), *against, again)}
    promoted = story.promote("half", "--alias", "looked", "--verdict", again)
    return told | {"half in looks promoted": promoted, "looked": call("verify", "looked")}


@contextmanager
def _interrupted_after(answers: int) -> Iterator[None]:
    """Ctrl-C while this answer is put down."""
    landed, land = count(1), Answers.add_result

    def landing(*landing: Any) -> None:
        if next(landed) > answers:
            raise KeyboardInterrupt
        land(*landing)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Answers, "add_result", landing)
        yield


def _tampered(story: Story) -> dict[str, Outcome]:
    """A candidate as good as the better one, watched while it learns; its weights are changed after its verdict."""
    with story.watched():
        told = {"twin": story.train("twin", "licence", "train.seed=2", "tracker=wandb", "tracker.mode=online")}
    told |= {"twin gated": story.gate("twin")}
    path = story.run("twin") / "checkpoint" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()  # the file may be shared with other runs
    path.write_bytes(content)
    return told | {"twin promoted": story.promote("twin")}
