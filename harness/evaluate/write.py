"""Writes one model's evaluation: lm-eval's own files, and evaluation.json beside them."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.behavior.registry import behavior_folders
from harness.config.experiment import EvaluationConfig
from harness.core.layout import EVALUATION
from harness.core.store import sha256_file, write_json
from harness.prompt.contract import Contract
from harness.prompt.render import Renderer
from harness.records.stages import Evaluation, TaskIdentity, TaskScore, slice_name

if TYPE_CHECKING:
    from harness.evaluate.answers import Answers
    from harness.evaluate.plan import ItemIndices, PlannedItem, RequestPlan

RESULTS = "results.json"
NO_RESULTS: dict[str, Any] = {"results": {}, "samples": {}}


@dataclass(frozen=True)
class AskedItems:
    """Which items of a plan were evaluated: `items` by task, in the order of `seed`; None means all."""

    items: "ItemIndices | None" = None
    seed: int | None = None


def write_evaluation(
    plan: "RequestPlan",
    answers: "Answers",
    weights_sha256: str,
    config: EvaluationConfig,
    out: Path,
    seconds: float,
    asked_items: AskedItems = AskedItems(),
    aa_flip_share: Mapping[str, float] | None = None,
) -> Evaluation:
    """Scores the answers and writes results.json, samples_<task>.jsonl and evaluation.json.

    An item without an answer is in the samples with the reason, and without metrics.
    """
    from harness.evaluate.tasks.load import leaves

    grouped = plan.loaded["group_map"]
    chosen = plan.chosen(asked_items.items)
    scored = plan.score(answers.values, asked_items.items) or NO_RESULTS
    identities = {
        name: _write_samples(name, own, plan, answers, scored, out, asked_items) for name, own in chosen.items()
    }
    contract = plan.renderer.contract
    results = {key: value for key, value in scored.items() if key != "samples"}
    write_json(out / RESULTS, {**results, "config": {"model": answers.label}, "chat_template": contract.template})
    contract.save(out)
    keys = {key for own in chosen.values() for item in own for of_one in item.keys for key in of_one}
    record = Evaluation(
        label=answers.label,
        suite=config.suite.name,
        weights_sha256=weights_sha256,
        contract_sha256=contract.digest,
        tasks=identities,
        groups={task.name: leaves(plan.loaded, task.name) for task in config.tasks if task.name in grouped},
        scores=_scores(scored),
        prompts_checked=len(keys & answers.values.keys()),
        seconds=round(seconds, 2),
        requests=len(keys),
        reused_requests=len(keys & answers.reused),
        failed_requests=sum(not answers.failures[key].refused for key in keys & answers.failures.keys()),
        refused_requests=sum(answers.failures[key].refused for key in keys & answers.failures.keys()),
        merged_requests=len(keys & answers.merged),
        aa_flip_share=None if aa_flip_share is None else dict(aa_flip_share),
    )
    record.save(out / EVALUATION)
    return record


def _write_samples(
    name: str,
    items: "Sequence[PlannedItem]",
    plan: "RequestPlan",
    answers: "Answers",
    scored: Any,
    out: Path,
    asked_items: AskedItems,
) -> TaskIdentity:
    """Writes samples_<task>.jsonl in lm-eval's schema; returns what identifies the task's results."""
    path = out / f"samples_{name}.jsonl"
    graded = name in behavior_folders()
    task = plan.loaded["tasks"][name]
    reasons = {item.index: reason for item in items if (reason := answers.failure(item))}
    rows = [_as_lm_eval(row) | (_findings(name, row) if graded else {}) for row in scored["samples"].get(name, [])]
    rows += [row for item in items if item.index in reasons for row in _unanswered(task, item, reasons[item.index])]
    with path.open("w") as file:
        for row in sorted(rows, key=lambda row: int(row["doc_id"])):
            file.write(json.dumps(row, default=str, ensure_ascii=False) + "\n")
    directions = task.higher_is_better()
    return TaskIdentity(
        version=str(task.VERSION),
        num_fewshot=int(task.get_config("num_fewshot") or 0),
        generation=json.dumps(task.get_config("generation_kwargs"), sort_keys=True, default=str),
        samples_sha256=sha256_file(path),
        asked=len(items),
        scored=len(items) - len(reasons),
        failed=len(reasons),
        lower_is_better=sorted(metric for metric, higher in directions.items() if higher is False),
        undirected=sorted(metric for metric, higher in directions.items() if higher is None),
        failures=dict(Counter(reasons.values())),
        planned=None if asked_items.items is None else len(plan.tasks[name]),
        stopped_at=None if asked_items.items is None else len(items),
        order_seed=asked_items.seed,
    )


def _unanswered(task: Any, item: "PlannedItem", reason: str) -> list[dict[str, Any]]:
    """The rows of an item without a score, one for each filter as in lm-eval: with the reason, and without metrics."""
    from lm_eval.utils import handle_non_serializable, hash_string

    first = item.instances[0]
    target = str(task.doc_to_target(first.doc))
    document = json.dumps(first.doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
    row = {
        "doc_id": item.index,
        "doc": first.doc,
        "target": target,
        "arguments": [instance.args for instance in item.instances],
        "resps": [],
        "filtered_resps": [],
        "metrics": [],
        "doc_hash": hash_string(document),
        "prompt_hash": hash_string(first.arguments[0]),
        "target_hash": hash_string(target),
        "failed": reason,
    }
    return [_as_lm_eval({**row, "filter": filter_.name}) for filter_ in task._filters]


def _as_lm_eval(row: dict[str, Any]) -> dict[str, Any]:
    """A sample in the form of lm-eval's own writer: arguments by name, responses and target as text."""
    from lm_eval.utils import sanitize_list

    requests = enumerate(row["arguments"])
    return {
        **row,
        "arguments": {f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(parts)} for i, parts in requests},
        "resps": sanitize_list(row["resps"]),
        "filtered_resps": sanitize_list(row["filtered_resps"]),
        "target": str(row["target"]),
    }


def _findings(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """What each rule of a behaviour expects and finds in an answer: metrics say how many pass, findings say why."""
    from harness.evaluate.domain import graded

    return {"findings": graded(name, row["doc"], str(row["filtered_resps"][0])).rules()}


def _scores(scored: Any) -> list[TaskScore]:
    """lm-eval's aggregated values, named as in its results (`metric`, or `metric,filter`), and those of slices."""
    scores = []
    for task, values in scored["results"].items():
        rows = scored["samples"].get(task)
        for key, value in values.items():
            if not isinstance(value, int | float) or isinstance(value, bool) or "_stderr" in key or "," not in key:
                continue
            if rows is not None:  # the number of items that have a value
                metric, _, filter_ = key.partition(",")
                n = sum(metric in row and row.get("filter", "none") == filter_ for row in rows)
            else:
                count = values.get("sample_count", 0)
                n = sum(count.values()) if isinstance(count, dict) else int(count)
            scores.append(TaskScore(task=task, metric=metric_key(key), value=float(value), stderr=None, n=n))
    return scores + [score for task, rows in scored["samples"].items() for score in slice_scores(task, rows)]


def slice_scores(task: str, rows: Sequence[Any]) -> list[TaskScore]:
    """The mean of each metric over each slice of a task's items; empty where the items have no slices."""
    values: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if slice_ := row["doc"].get("slice"):
            for metric in row["metrics"]:
                if isinstance(row.get(metric), int | float):
                    values.setdefault((slice_, metric), []).append(float(row[metric]))
    if {slice_ for slice_, _ in values} == {"all"}:
        return []
    return [
        TaskScore(task=task, slice=slice_name(slice_), metric=metric, value=sum(of) / len(of), stderr=None, n=len(of))
        for (slice_, metric), of in sorted(values.items())
    ]


def metric_key(key: str) -> str:
    """lm-eval's `metric,filter`, without the filter if it is the default one."""
    return key.removesuffix(",none")


def renderer_for(contract: Contract, tokenizer_folder: Path) -> Renderer:
    """A renderer with the tokenizer of a model folder.

    Raises EvidenceFault when the contract fails its static checks on it: another tokenizer, or libraries that render
    or tokenise the golden conversations differently than when the contract was made.
    """
    from harness.model.load import load_tokenizer
    from harness.prompt.static import check_contract, require_sound

    tokenizer = load_tokenizer(tokenizer_folder)
    require_sound(check_contract(contract, tokenizer), f"the prompt contract on the tokenizer in {tokenizer_folder}")
    return Renderer(contract, tokenizer)
