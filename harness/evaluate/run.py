"""Scores one served model on tasks and writes lm-eval's own files beside our record."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.behavior.registry import behavior_folders
from harness.config import Config, TaskConfig
from harness.prompt.contract import Contract
from harness.prompt.render import Renderer
from harness.records import Evaluation, TaskIdentity, TaskScore
from harness.serve.client import Client
from harness.serve.server import Endpoint
from harness.store import sha256_file, write_json

RECORD = "evaluation.json"
RESULTS = "results.json"


@dataclass(frozen=True)
class Target:
    """The model to score: the server's name for it, the label of its results, its weights' digest."""

    model: str
    label: str
    weights_sha256: str


def evaluate(
    target: Target, config: Config, renderer: Renderer, loaded: dict[str, Any], endpoint: Endpoint, out: Path
) -> Evaluation:
    """Runs all loaded tasks on the target and writes results.json, samples_<task>.jsonl and evaluation.json.

    Raises PromptMismatch when the server was fed other ids than the contract renders.
    """
    from lm_eval.evaluator import evaluate as lm_evaluate

    from harness.evaluate.lm import ServedModel
    from harness.evaluate.tasks import seeded_samples

    model = ServedModel(_client(target, config, endpoint), renderer, target.label)
    started = time.monotonic()
    samples = seeded_samples(loaded, config.tasks, config.suite.seed)
    for task in loaded["tasks"].values():
        task._instances = None
    found = lm_evaluate(
        lm=model,
        task_dict=loaded,
        samples=samples or None,
        bootstrap_iters=0,
        apply_chat_template=True,
        fewshot_as_multiturn=True,
    )
    seconds = time.monotonic() - started
    identities = {name: _write_samples(name, rows, found, loaded, out) for name, rows in found["samples"].items()}
    results = {key: value for key, value in found.items() if key != "samples"}
    write_json(
        out / RESULTS, {**results, "config": {"model": target.label}, "chat_template": renderer.contract.template}
    )
    renderer.contract.save(out)
    record = Evaluation(
        label=target.label,
        suite=config.suite.name,
        weights_sha256=target.weights_sha256,
        contract_sha256=renderer.contract.digest,
        tasks=identities,
        groups=_groups(loaded, config.tasks),
        scores=_scores(found),
        prompts_checked=model.prompts_checked,
        seconds=round(seconds, 2),
    )
    record.save(out / RECORD)
    return record


def _client(target: Target, config: Config, endpoint: Endpoint) -> Callable[[], Client]:
    return lambda: Client(endpoint, target.model, config.serve.request_timeout_s, config.serve.concurrency)


def _write_samples(name: str, rows: Sequence[Any], found: Any, loaded: dict[str, Any], out: Path) -> TaskIdentity:
    """samples_<task>.jsonl in lm-eval's schema, and what identifies the task's results."""
    path = out / f"samples_{name}.jsonl"
    graded = name in behavior_folders()
    with path.open("w") as file:
        for row in rows:
            written = _written(row) | (_findings(name, row) if graded else {})
            file.write(json.dumps(written, default=str, ensure_ascii=False) + "\n")
    task = loaded["tasks"][name]
    asked = len({row["doc_id"] for row in rows})
    return TaskIdentity(
        version=str(found["versions"].get(name)),
        num_fewshot=int(task.get_config("num_fewshot") or 0),
        generation=json.dumps(task.get_config("generation_kwargs"), sort_keys=True, default=str),
        samples_sha256=sha256_file(path),
        asked=asked,
        scored=asked,
        failed=0,
        lower_is_better=sorted(m for m, higher in found["higher_is_better"].get(name, {}).items() if higher is False),
    )


def _written(row: dict[str, Any]) -> dict[str, Any]:
    """A sample as lm-eval's own writer puts it down: arguments by name, responses and target as text."""
    from lm_eval.utils import sanitize_list

    requests = enumerate(row["arguments"])
    return {
        **row,
        "arguments": {f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(asked)} for i, asked in requests},
        "resps": sanitize_list(row["resps"]),
        "filtered_resps": sanitize_list(row["filtered_resps"]),
        "target": str(row["target"]),
    }


def _findings(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """Rule by rule, what a behaviour demands and what it found: metrics say how many, findings say why."""
    from harness.evaluate.domain import graded

    return {"findings": graded(name, row["doc"], str(row["filtered_resps"][0])).rules()}


def _groups(loaded: dict[str, Any], tasks: Sequence[TaskConfig]) -> dict[str, list[str]]:
    from harness.evaluate.tasks import leaves

    return {task.name: leaves(loaded, task.name) for task in tasks if task.name in loaded["group_map"]}


def _scores(found: Any) -> list[TaskScore]:
    """lm-eval's aggregated numbers, keyed as in its results (`metric`, or `metric,filter`)."""
    scores = []
    for task, values in found["results"].items():
        rows = found["samples"].get(task)
        for key, value in values.items():
            metric = metric_name(key)
            if isinstance(value, int | float) and not isinstance(value, bool) and "_stderr" not in key and "," in key:
                n = _items(rows, key) if rows is not None else values.get("sample_count", 0)
                scores.append(TaskScore(task=task, metric=metric, value=float(value), stderr=None, n=_count(n)))
    return scores + [score for task, rows in found["samples"].items() for score in slice_scores(task, rows)]


def slice_scores(task: str, rows: Sequence[Any]) -> list[TaskScore]:
    """The mean of each metric on each slice of a task's items; none where the items have no slices."""
    values: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if slice_ := row["doc"].get("slice"):
            for metric in row["metrics"]:
                if isinstance(row.get(metric), int | float):
                    values.setdefault((slice_, metric), []).append(float(row[metric]))
    return [
        TaskScore(task=task, slice=slice_, metric=metric, value=sum(found) / len(found), stderr=None, n=len(found))
        for (slice_, metric), found in sorted(values.items())
    ]


def _items(rows: Sequence[Any], key: str) -> int:
    """How many items have a value of lm-eval's `metric,filter`."""
    metric, _, filter_ = key.partition(",")
    return sum(metric in row and row.get("filter", "none") == filter_ for row in rows)


def metric_name(key: str) -> str:
    """lm-eval's `metric,filter` without the filter where it is the default one."""
    return key.removesuffix(",none")


def _count(value: Any) -> int:
    return sum(value.values()) if isinstance(value, dict) else int(value)


def renderer_for(contract: Contract, tokenizer_folder: Path) -> Renderer:
    """A renderer with the tokenizer of a model folder.

    Raises EvidenceFault when the contract has faults on it: another tokenizer, or libraries that render or
    tokenise the golden conversations otherwise than when the contract was made.
    """
    from harness.base_model import load_tokenizer
    from harness.prompt.static import check_contract, require_sound

    tokenizer = load_tokenizer(tokenizer_folder)
    require_sound(check_contract(contract, tokenizer), f"the prompt contract on the tokenizer in {tokenizer_folder}")
    return Renderer(contract, tokenizer)
