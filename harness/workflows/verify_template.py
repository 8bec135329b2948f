"""`template verify`: static, checkpoint, live and numerical checks of any model folder, adapter, hub id or server."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.checkpoint.merge import merged, reasons_to_merge
from harness.checkpoint.resolve import locate
from harness.config.experiment import Config, TemplateConfig
from harness.core.console import say
from harness.core.errors import PromptMismatch, ServerFault, UsageError
from harness.core.layout import CANDIDATE, CONTRACT
from harness.model.load import is_adapter, load_tokenizer, local_model, tokenizer_folder
from harness.prompt.contract import Contract
from harness.prompt.make import FROM_MODEL, make_contract
from harness.prompt.numerics import References, compute
from harness.prompt.render import Renderer
from harness.prompt.saved import check_saved
from harness.prompt.static import Problem, check_contract
from harness.serve.live_check import check_models
from harness.serve.server import BASE, Endpoint, ServerPlan, vllm_server, write_prompt
from harness.serve.session import lora_rank

KEY_VARIABLE = "VLLM_API_KEY"


@dataclass(frozen=True)
class VerificationStep:
    """One group of checks: what it found, and how long it took (seconds)."""

    name: str
    seconds: float
    problems: list[Problem]
    detail: str = ""


@dataclass(frozen=True)
class Model:
    """What is verified: its folder, its base model's (the same for a full model), and its contract."""

    folder: Path
    base: Path
    contract: Contract


def model_of(name: str, config: Config) -> Model:
    """The model that `name` means, under the contract it carries, or else under its own stock template as it is."""
    folder, base = locate(name, config.model, Path(config.runs_dir))
    if (folder / CONTRACT).is_file():
        return Model(folder, base, Contract.load(folder))
    template = TemplateConfig(name=FROM_MODEL, file=None, max_length=config.template.max_length)
    return Model(folder, base, make_contract(template, load_tokenizer(tokenizer_folder(folder, base)), guard=False))


def contract_for(name: str | None, config: Config) -> tuple[Contract, list[Problem]]:
    """The contract of a model, or (without one) that of the configured template on the configured model; with the
    notes and faults of its static checks."""
    if name is None:
        tokenizer = load_tokenizer(local_model(config.model))
        contract = make_contract(config.template, tokenizer)
    else:
        model = model_of(name, config)
        contract, tokenizer = model.contract, tokenizer_of(model)
    return contract, check_contract(contract, tokenizer)


def verify(
    name: str, config: Config, server: str | None, served_as: str | None, static_only: bool
) -> list[VerificationStep]:
    """Runs all checks; with `server` against that one, else against a server started for it."""
    model = model_of(name, config)
    tokenizer = tokenizer_of(model)
    steps = [
        _timed_step("static", lambda: check_contract(model.contract, tokenizer)),
        _timed_step("checkpoint", lambda: [*check_saved(model.folder, model.base, model.contract), *_servable(model)]),
    ]
    if static_only:
        return steps
    numbers: list[References] = []
    steps.append(_timed_step("reference numbers", lambda: _references(model, config, numbers)))
    renderer = Renderer(model.contract, tokenizer)
    if server is not None:
        endpoint = endpoint_of(server, served_as)
        return [*steps, _live(endpoint, config, renderer, {endpoint.models[-1]: numbers[0]})]
    return [*steps, _with_own_server(model, config, renderer, numbers[0])]


def endpoint_of(url: str, served_as: str | None) -> Endpoint:
    """A running server; its key is taken from the environment. Raises UsageError when the model must be named."""
    endpoint = Endpoint(url.rstrip("/"), os.environ.get(KEY_VARIABLE, ""), ())
    models = _served_names(endpoint)
    if served_as is None and len(models) != 1:
        raise UsageError(f"the server offers several models; name one with --model: {', '.join(models)}")
    if served_as is not None and served_as not in models:
        raise UsageError(f"the server has no model {served_as!r}; it offers: {', '.join(models)}")
    return replace(endpoint, models=(served_as or models[0],))


def _served_names(endpoint: Endpoint) -> list[str]:
    """The names of a server's models; raises ServerFault or UsageError when it cannot be asked."""
    import httpx

    url = endpoint.url
    try:
        answer = httpx.get(f"{url}/v1/models", headers=endpoint.headers, timeout=30, trust_env=False)
        if answer.status_code == 401:
            raise UsageError(f"the server at {url} wants a key: put it into the environment as {KEY_VARIABLE}")
        models = [str(entry["id"]) for entry in answer.json()["data"]] if answer.status_code == 200 else []
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise UsageError(f"--server {url} is not an address such as http://127.0.0.1:8000 ({error})") from None
    except httpx.TransportError as error:
        raise ServerFault(f"no server answers at {url} ({type(error).__name__})") from None
    except (ValueError, KeyError, TypeError):
        models = []
    if not models:
        raise ServerFault(f"the server at {url} does not list its models; it has to be a vLLM server")
    return models


def print_steps(steps: Sequence[VerificationStep]) -> int:
    """Prints what was found; returns the exit code: 12 when there is a fault, else 0."""
    for step in steps:
        faults = [p for p in step.problems if p.severity == "error"]
        outcome = f"{len(faults)} fault{'s' if len(faults) != 1 else ''}" if faults else "ok"
        print(f"{step.name}: {outcome} ({step.seconds:.1f} s{', ' + step.detail if step.detail else ''})")
        for problem in step.problems:
            print(f"  {problem.severity}: {problem.check}: {problem.message}")
    return 12 if any(p.severity == "error" for step in steps for p in step.problems) else 0


def tokenizer_of(model: Model) -> Any:
    """The model's own tokenizer, or its base model's where it brings none."""
    return load_tokenizer(tokenizer_folder(model.folder, model.base))


def _timed_step(name: str, work: Callable[[], list[Problem]]) -> VerificationStep:
    started = time.monotonic()
    problems = work()
    return VerificationStep(name, time.monotonic() - started, problems)


def _servable(model: Model) -> list[Problem]:
    if not is_adapter(model.folder):
        return []
    reasons = reasons_to_merge(model.folder, model.base)
    text = "an adapter server cannot take it; the harness merges it into the base model: "
    return [Problem("checkpoint", "note", text + "; ".join(reasons))] if reasons else []


def _references(model: Model, config: Config, numbers: list[References]) -> list[Problem]:
    numbers.append(
        References.load(model.folder) or compute(model.folder, model.base, model.contract, config.model.dtype)
    )
    return []


def _live(endpoint: Endpoint, config: Config, renderer: Renderer, numbers: dict[str, References]) -> VerificationStep:
    started = time.monotonic()
    problems, detail = [], ""
    try:
        compared = check_models(endpoint, config.serve, renderer, numbers)
        detail = f"{compared} prompts compared"
    except PromptMismatch as mismatch:
        problems = [Problem("live", "error", str(mismatch))]
    return VerificationStep("live", time.monotonic() - started, problems, detail)


def _with_own_server(model: Model, config: Config, renderer: Renderer, numbers: References) -> VerificationStep:
    """The live check against a server started as `serve` would."""
    log = Path(config.runs_dir).resolve() / f"verify-{model.contract.digest[:10]}" / "logs" / "vllm.log"
    with ExitStack() as stack:
        plan = plan_for(model, config, log.with_name("prompt"))
        say("· start vLLM")
        endpoint = stack.enter_context(vllm_server(plan, config.serve, log))
        named = {BASE: numbers.of_base, CANDIDATE: numbers} if plan.adapters else {BASE: numbers}
        return _live(endpoint, config, renderer, named)


def plan_for(model: Model, config: Config, prompt: Path) -> ServerPlan:
    """How this one model is served: as an adapter on its base where that is possible, else merged, or as it is."""
    folder = write_prompt(model.contract, prompt)
    kwargs = model.contract.template_kwargs
    if not is_adapter(model.folder):
        return ServerPlan(model.folder, folder, kwargs, {}, 8, config.model.dtype)
    if reasons := reasons_to_merge(model.folder, model.base):
        whole = merged(model.folder, model.base, config.model.dtype, reasons)
        return ServerPlan(whole, folder, kwargs, {}, 8, config.model.dtype)
    adapters = {CANDIDATE: model.folder}
    return ServerPlan(model.base, folder, kwargs, adapters, lora_rank(adapters), config.model.dtype)
