"""One evaluation, by the harness or by stock lm-eval, each from cold start to results in processes of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from harness.checkpoint.merge import merged
from harness.checkpoint.resolve import locate
from harness.config.experiment import Config, TaskConfig
from harness.evaluate.tasks.load import load_tasks, seeded_samples
from harness.model.load import is_adapter
from harness.prompt.contract import Contract
from harness.serve.server import server_environment, usable_port
from harness.workflows.compose import config_for

STOCK = Path(__file__).with_name("stock_lm_eval.py")
TUNED = "-tuned"
PEERS = ("vllm", "vllm-tuned", "local-completions", "hf")
CONCURRENT = 32
NOT_OURS = "lora_filesystem_resolver"


@dataclass(frozen=True)
class Setup:
    """What is evaluated: base and adapter as the harness takes them, and as whole models for stock lm-eval (whose
    paths through vLLM fail on likelihoods while an adapter is loaded on the CPU). `scratch` holds everything written.
    """

    config: Config
    overrides: tuple[str, ...]
    adapter: Path
    whole: Mapping[str, Path]
    hub: Path
    scratch: Path
    new_tokens: int
    samples: Mapping[str, list[int]]

    @property
    def tasks(self) -> Sequence[TaskConfig]:
        return self.config.tasks


def prepare(
    base: Path, adapter: Path, tasks: Sequence[str], items: int, new_tokens: int, hub: Path, scratch: Path
) -> Setup:
    """Both models in both forms, and the seeded sample of items; nothing of this is timed."""
    listed = ", ".join(f"{{name: {name}, limit: {items}, max_new_tokens: {new_tokens}}}" for name in tasks)
    overrides = (f"model.path={base.resolve()}", f"suite.tasks=[{listed}]", f"hub_dir={hub.resolve()}")
    config = config_for(["model=pretrained", "tracker=none", "domain_tasks=[]", *overrides])
    folder, own_base = locate(str(adapter), config.model, Path(config.runs_dir))
    if not is_adapter(folder) or own_base != base.resolve():
        raise SystemExit(f"{adapter} is not an adapter on {base}: it names {own_base}")
    contract = Contract.load(folder)
    whole = {
        "base": _with_template(base.resolve(), contract, scratch / "base"),
        "adapter": _with_template(merged(folder, own_base, config.model.dtype, ["stock"]), contract, scratch / "whole"),
    }
    loaded = load_tasks(config.tasks, hub)
    samples = {leaf: list(range(len(task.eval_docs))) for leaf, task in loaded["tasks"].items()}
    samples |= seeded_samples(loaded, config.tasks, config.suite.seed)
    return Setup(config, overrides, folder, whole, hub.resolve(), scratch, new_tokens, samples)


def _with_template(model: Path, contract: Contract, out: Path) -> Path:
    """The model with the contract's template as its own, so that every path renders the same prompts."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for file in model.iterdir():
        if file.name not in ("chat_template.jinja", "tokenizer_config.json"):
            (out / file.name).symlink_to(file)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (out / "tokenizer_config.json").write_text(json.dumps(settings))
    (out / "chat_template.jinja").write_text(contract.template)
    return out


def ours(setup: Setup, models: Sequence[str] = ("base", "adapter"), *extra: str) -> tuple[float, dict[str, Path]]:
    """(seconds from start to exit of `harness evaluate`, evaluation folder by model)."""
    checkpoints = {"base": "base", "adapter": str(setup.adapter)}
    command = [sys.executable, "-m", "harness.cli", "evaluate", *(checkpoints[name] for name in models)]
    command += ["model=pretrained", "tracker=none", "domain_tasks=[]", *setup.overrides]
    command += [f"runs_dir={setup.scratch / 'runs'}", *extra]
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - started
    return seconds, dict(zip(models, map(Path, done.stdout.split()[-len(models) :]), strict=True))


def stock(setup: Setup, peer: str, model: str, **settings: Any) -> tuple[float, dict[str, Any]]:
    """(seconds from start to exit, lm-eval's results and samples) of one model; a server's start and end count."""
    tuned = peer.endswith(TUNED)
    name = f"{peer}-{model}-{len(list(setup.scratch.glob(f'{peer}-{model}-*.json')))}"
    request, out = setup.scratch / f"{name}.json", setup.scratch / f"{name}.results"
    started = time.perf_counter()
    with _arguments(setup, peer, model, settings) as (arguments, batch_size):
        wanted = {
            "backend": peer.removesuffix(TUNED),
            "model_args": arguments,
            "tasks": [task.name for task in setup.tasks],
            "samples": dict(setup.samples),
            "gen_kwargs": {"max_gen_toks": setup.new_tokens},
            "batch_size": batch_size,
            "hub": str(setup.hub),
            "out": str(out),
        }
        request.write_text(json.dumps(wanted))
        with (setup.scratch / f"{name}.log").open("w") as log:
            command = [sys.executable, str(STOCK), str(request)]
            environment = stock_environment(setup, tuned=tuned)
            subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)
    return time.perf_counter() - started, json.loads(out.read_text())


def stock_environment(setup: Setup, *, tuned: bool = True) -> dict[str, str]:
    """Stock vLLM, without the harness's plugin, as it is delivered but for a small cache (it would take 92% of the
    memory); or `tuned` to its fastest here: both cores, Intel's OpenMP, no process beside its caller's."""
    data = {"VLLM_PLUGINS": NOT_OURS, "NLTK_DATA": str(setup.hub.parent / "nltk_data"), "HF_HUB_OFFLINE": "1"}
    if not tuned:
        return {**os.environ, **data, "VLLM_CPU_KVCACHE_SPACE": str(setup.config.serve.kv_cache_gib)}
    settings = server_environment(setup.config.serve, "")
    for name in ("VLLM_API_KEY", "HARNESS_ONE_IMPORT"):
        settings.pop(name, None)
    return {**settings, **data, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


@contextmanager
def _arguments(
    setup: Setup, peer: str, model: str, settings: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], str | int]]:
    """lm-eval's model arguments and batch size; for `local-completions` with a stock server around."""
    folder, length = str(setup.whole[model]), setup.config.serve.max_model_len
    if peer.removesuffix(TUNED) == "vllm":
        usual = {"dtype": "bfloat16", "max_model_len": length, "enforce_eager": True}
        yield {"pretrained": folder, **usual, **settings}, "auto"
    elif peer == "hf":
        yield {"pretrained": folder, "dtype": "bfloat16", "max_length": length, "device": "cpu", **settings}, 16
    else:
        with _stock_server(setup, folder) as url:
            yield (
                {
                    "model": folder,
                    "base_url": f"{url}/v1/completions",
                    "num_concurrent": CONCURRENT,
                    "max_length": length,
                    "tokenized_requests": True,
                    **settings,
                },
                1,
            )


@contextmanager
def _stock_server(setup: Setup, folder: str) -> Iterator[str]:
    port = usable_port(setup.config.serve)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--dtype", "bfloat16", "--enforce-eager"]
    command += ["--max-model-len", str(setup.config.serve.max_model_len)]
    environment = stock_environment(setup, tuned=False)
    with (setup.scratch / "stock_server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=60)


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            if httpx.get(url, trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.25)
    raise SystemExit("the stock server did not come up; see stock_server.log")
