"""`harness template verify`: checks the prompt contract of a model statically, in its checkpoint, and on a server."""

import os
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.checkpoint.merge import merged, reasons_to_merge
from harness.checkpoint.resolve import locate
from harness.config.experiment import Config, TemplateConfig
from harness.core.console import plural, say
from harness.core.errors import ExitCode, PromptMismatch, ServerFault, UsageError
from harness.core.layout import CANDIDATE, CONTRACT, RunFolder
from harness.data.tables import TRAIN, read_rows
from harness.lineage.coverage import data_beside
from harness.model.load import is_adapter, load_tokenizer, local_model, tokenizer_folder
from harness.prompt.contract import Contract, Golden
from harness.prompt.golden import render_golden
from harness.prompt.make import FROM_MODEL, make_contract
from harness.prompt.messages import row_messages
from harness.prompt.numerics import References, compute
from harness.prompt.render import Renderer
from harness.prompt.saved import check_saved
from harness.prompt.static import Problem, check_contract
from harness.serve.live_check import check_models
from harness.serve.server import BASE, Endpoint, ServerPlan, vllm_server, write_prompt
from harness.serve.session import lora_rank

KEY_VARIABLE = "VLLM_API_KEY"
SAMPLED_ROWS, ROWS_SEED = 16, 0


@dataclass(frozen=True)
class VerificationStep:
    """One group of checks: the problems it found, and how long it took (seconds)."""

    name: str
    seconds: float
    problems: list[Problem]
    detail: str = ""


@dataclass(frozen=True)
class Model:
    """The model to verify: its folder, its base model's folder (the same for a full model), and its contract."""

    folder: Path
    base: Path
    contract: Contract


def model_of(name: str, config: Config) -> Model:
    """The model that `name` means, with the contract saved in it, or else with its own stock template."""
    folder, base = locate(name, config.model, Path(config.runs_dir))
    if (folder / CONTRACT).is_file():
        return Model(folder, base, Contract.load(folder))
    template = TemplateConfig(
        name=FROM_MODEL, file=None, max_length=config.template.max_length, bos=config.template.bos
    )
    return Model(folder, base, make_contract(template, load_tokenizer(tokenizer_folder(folder, base)), guard=False))


def contract_for(name: str | None, config: Config) -> tuple[Contract, list[Problem]]:
    """The contract of a model, or that of the configured template and model without a `name`; and the problems that its
    static checks found."""
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
    """Runs all checks: against the running `server`, where given, else against a server started for them."""
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
    rows = sampled_rows(model, renderer)
    if server is not None:
        endpoint, base = endpoint_of(server, served_as)
        return [*steps, _live(endpoint, config, renderer, {endpoint.models[0]: numbers[0]}, base, rows)]
    return [*steps, _with_own_server(model, config, renderer, numbers[0], rows)]


def sampled_rows(model: Model, renderer: Renderer) -> list[Golden]:
    """A sample of the training rows of the run that the model comes from, as training renders them; none for a model
    from elsewhere. Rows that the contract does not cover (too long, refused) are left out."""
    data = data_beside(model.folder)
    if not (data / TRAIN).is_file():
        return []
    rows = read_rows(data)
    chosen = random.Random(ROWS_SEED).sample(rows, min(SAMPLED_ROWS, len(rows)))
    found = [render_golden(renderer, f"row {row.get('id', '')}", row_messages(row)) for row in chosen]
    return [one for one in found if one.refused is None and len(one.ids) <= model.contract.max_length - 8]


def endpoint_of(url: str, served_as: str | None) -> tuple[Endpoint, str | None]:
    """A running server, with the key from the environment, and the name of the base model of an adapter on it.

    Raises UsageError for a missing or wrong model name.
    """
    endpoint = Endpoint(url.rstrip("/"), os.environ.get(KEY_VARIABLE, ""), ())
    parents = _served_models(endpoint)
    models = list(parents)
    if served_as is None and len(models) != 1:
        raise UsageError(f"the server offers several models; name one with --model: {', '.join(models)}")
    if served_as is not None and served_as not in models:
        raise UsageError(f"the server has no model {served_as!r}; it offers: {', '.join(models)}")
    name = served_as or models[0]
    return replace(endpoint, models=(name,)), parents[name]


def _served_models(endpoint: Endpoint) -> dict[str, str | None]:
    """The names of a server's models, adapters with the name of their base model.

    Raises ServerFault or UsageError when the server does not list them.
    """
    import httpx

    url = endpoint.url
    try:
        answer = httpx.get(f"{url}/v1/models", headers=endpoint.headers, timeout=30, trust_env=False)
        if answer.status_code == 401:
            raise UsageError(f"the server at {url} needs a key: set the environment variable {KEY_VARIABLE}")
        entries = answer.json()["data"] if answer.status_code == 200 else []
        models = {str(entry["id"]): entry.get("parent") for entry in entries}
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise UsageError(
            f"--server {url} is not a valid address ({error}); write one such as http://127.0.0.1:8000"
        ) from None
    except httpx.TransportError as error:
        raise ServerFault(f"there is no server at {url} ({type(error).__name__})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        models = {}
    if not models:
        raise ServerFault(f"the server at {url} does not list its models at /v1/models; it must be a vLLM server")
    return models


def print_steps(steps: Sequence[VerificationStep]) -> int:
    """Prints the results; returns the exit code: 12 when a problem is more than a note, else 0."""
    for step in steps:
        count = sum(problem.severity != "note" for problem in step.problems)
        outcome = f"{count} error{'s' if count != 1 else ''}" if count else "ok"
        print(f"{step.name}: {outcome} ({step.seconds:.1f} s{', ' + step.detail if step.detail else ''})")
        for problem in step.problems:
            print(f"  {problem.severity}: {problem.check}: {problem.message}")
    return ExitCode.INVALID if any(p.severity != "note" for step in steps for p in step.problems) else ExitCode.DONE


def tokenizer_of(model: Model) -> Any:
    """The model's own tokenizer, or its base model's where it has none."""
    return load_tokenizer(tokenizer_folder(model.folder, model.base))


def _timed_step(name: str, work: Callable[[], list[Problem]]) -> VerificationStep:
    started = time.monotonic()
    problems = work()
    return VerificationStep(name, time.monotonic() - started, problems)


def _servable(model: Model) -> list[Problem]:
    if not is_adapter(model.folder):
        return []
    reasons = reasons_to_merge(model.folder, model.base)
    text = "vLLM cannot serve this adapter as such, so the harness merges it into the base model: "
    return [Problem("checkpoint", "note", text + "; ".join(reasons))] if reasons else []


def _references(model: Model, config: Config, numbers: list[References]) -> list[Problem]:
    numbers.append(
        References.load(model.folder) or compute(model.folder, model.base, model.contract, config.model.dtype)
    )
    return []


def _live(
    endpoint: Endpoint,
    config: Config,
    renderer: Renderer,
    numbers: dict[str, References],
    base: str | None,
    rows: Sequence[Golden],
) -> VerificationStep:
    started = time.monotonic()
    problems, detail = [], ""
    try:
        compared = check_models(endpoint, config.serve, renderer, numbers, base, rows)
        of_rows = f", {plural(len(rows), 'training row')} among them" if rows else ""
        detail = f"{compared} prompts compared{of_rows}"
    except PromptMismatch as mismatch:
        problems = [Problem("live", "error", str(mismatch))]
    return VerificationStep("live", time.monotonic() - started, problems, detail)


def _with_own_server(
    model: Model, config: Config, renderer: Renderer, numbers: References, rows: Sequence[Golden]
) -> VerificationStep:
    """The live check against a server started as `serve` would."""
    log = RunFolder(Path(config.runs_dir).resolve() / f"verify-{model.contract.digest[:10]}").log
    with ExitStack() as stack:
        plan = plan_for(model, config, log.with_name("prompt"))
        say("· start vLLM")
        endpoint = stack.enter_context(vllm_server(plan, config.serve, log))
        named = {BASE: numbers.of_base, CANDIDATE: numbers} if plan.adapters else {BASE: numbers}
        return _live(endpoint, config, renderer, named, BASE, rows)


def plan_for(model: Model, config: Config, prompt: Path) -> ServerPlan:
    """The server for one model: an adapter on its base, a merged adapter where that is impossible, or a full model."""
    folder = write_prompt(model.contract, prompt)
    kwargs = model.contract.template_kwargs
    if not is_adapter(model.folder):
        return ServerPlan(model.folder, folder, kwargs, {}, 8, config.model.dtype)
    if reasons := reasons_to_merge(model.folder, model.base):
        whole = merged(model.folder, model.base, config.model.dtype, reasons)
        return ServerPlan(whole, folder, kwargs, {}, 8, config.model.dtype)
    adapters = {CANDIDATE: model.folder}
    return ServerPlan(model.base, folder, kwargs, adapters, lora_rank(adapters), config.model.dtype)
