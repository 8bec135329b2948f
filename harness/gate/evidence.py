"""Reading evaluations: our own folders, and lm-eval output folders made elsewhere."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError, EvidenceFault
from harness.records import Evaluation, TaskIdentity, load
from harness.store import sha256_file

SHOWN = 2000


@dataclass(frozen=True)
class Sample:
    """One item's value of one metric, with what was asked and answered."""

    value: float
    prompt_hash: str
    prompt: str
    response: str


@dataclass(frozen=True)
class Evidence:
    """An evaluation ready to be compared: samples[task][metric][doc_hash]. Digests are '' where unknown."""

    label: str
    suite: str
    weights_sha256: str
    contract_sha256: str
    identities: dict[str, TaskIdentity]
    groups: dict[str, list[str]]
    samples: dict[str, dict[str, dict[str, Sample]]]


def read_evidence(folder: Path) -> Evidence:
    """The evaluation in a folder.

    Raises DataError when it holds none, EvidenceFault when its files do not match their digests.
    """
    if (folder / "evaluation.json").is_file():
        return _ours(folder)
    results = sorted(folder.rglob("results*.json"))
    if not results:
        raise DataError(f"{folder} holds no evaluation: neither evaluation.json nor lm-eval's results_*.json")
    return _made_elsewhere(folder, results[-1])


def _ours(folder: Path) -> Evidence:
    record = load(Evaluation, folder / "evaluation.json")
    for task, identity in record.tasks.items():
        path = folder / f"samples_{task}.jsonl"
        if not path.is_file() or sha256_file(path) != identity.samples_sha256:
            raise EvidenceFault(f"{path} is missing or was edited: it does not match evaluation.json")
    return Evidence(
        label=record.label,
        suite=record.suite,
        weights_sha256=record.weights_sha256,
        contract_sha256=record.contract_sha256,
        identities=record.tasks,
        groups=record.groups,
        samples={task: _samples(folder / f"samples_{task}.jsonl") for task in record.tasks},
    )


def _made_elsewhere(folder: Path, results: Path) -> Evidence:
    """lm-eval's own output: the newest results file, and for each task its newest samples file."""
    try:
        found = json.loads(results.read_text())
    except ValueError as error:
        raise EvidenceFault(f"{results} is not JSON ({error}); was it cut off?") from None
    files = {task: sorted(results.parent.glob(f"samples_{task}*.jsonl")) for task in found.get("configs", {})}
    missing = [task for task, paths in files.items() if not paths]
    if missing or not files:
        raise DataError(f"{results.parent} lacks samples_<task>.jsonl for: {', '.join(missing) or 'any task'}")
    template = found.get("chat_template_sha") or ""
    return Evidence(
        label=str(found.get("model_name") or folder.name),
        suite="lm_eval",
        weights_sha256="",
        contract_sha256=str(template),
        identities={task: _identity(found, task, paths[-1]) for task, paths in files.items()},
        groups={g: tasks for g, tasks in found.get("group_subtasks", {}).items() if tasks and set(tasks) <= set(files)},
        samples={task: _samples(paths[-1]) for task, paths in files.items()},
    )


def _identity(found: dict[str, Any], task: str, samples: Path) -> TaskIdentity:
    asked = sum(1 for line in samples.read_text().splitlines() if line.strip())
    return TaskIdentity(
        version=str(found.get("versions", {}).get(task)),
        num_fewshot=int(found.get("n-shot", {}).get(task) or 0),
        generation=json.dumps(found["configs"][task].get("generation_kwargs"), sort_keys=True),
        samples_sha256=sha256_file(samples),
        asked=asked,
        scored=asked,
        failed=0,
    )


def _samples(path: Path) -> dict[str, dict[str, Sample]]:
    """samples[metric][doc_hash] of one samples file; raises EvidenceFault for a damaged or repeated item."""
    samples: dict[str, dict[str, Sample]] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        row = _row(path, number, line)
        for name in row["metrics"]:
            metric = name if row.get("filter", "none") == "none" else f"{name},{row['filter']}"
            items = samples.setdefault(metric, {})
            if row["doc_hash"] in items:
                raise EvidenceFault(f"{path} line {number}: item {row['doc_hash'][:12]} occurs twice for {metric}")
            if (value := _value(row.get(name))) is not None:
                items[row["doc_hash"]] = Sample(value, row["prompt_hash"], _prompt(row), _response(row))
    return {metric: items for metric, items in samples.items() if items}


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        raise EvidenceFault(f"{path} line {number} is not JSON; the file is damaged or was cut off") from None
    absent = [key for key in ("doc_hash", "prompt_hash", "metrics") if key not in row]
    if absent:
        raise EvidenceFault(f"{path} line {number} has no {', '.join(absent)}: not an lm-eval sample")
    return dict(row)


def _value(raw: Any) -> float | None:
    """A per-item number; metrics that lm-eval computes over pairs or lists have none."""
    return float(raw) if isinstance(raw, int | float) else None


def _prompt(row: dict[str, Any]) -> str:
    arguments = row.get("arguments")
    first = next(iter(arguments.values()), {}) if isinstance(arguments, dict) else (arguments or [[""]])[0]
    text = next(iter(first.values()), "") if isinstance(first, dict) else first[0]
    return str(text)[-SHOWN:]


def _response(row: dict[str, Any]) -> str:
    """The answer as text: what was generated, or which choice was the most likely."""
    responses: Sequence[Any] = row.get("filtered_resps") or [""]
    if isinstance(responses[0], str):
        return responses[0][:SHOWN]
    scores = [float(r[0]) for r in responses if isinstance(r, list | tuple) and r]
    best = max(range(len(scores)), key=scores.__getitem__) if scores else 0
    choices = (row.get("doc") or {}).get("choices")
    return str(choices[best]) if isinstance(choices, list) and best < len(choices) else f"choice {best}"
