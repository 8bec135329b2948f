"""Reading evaluations: our own folders, and lm-eval output folders made elsewhere."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError, EvidenceFault
from harness.records import Evaluation, TaskIdentity, load
from harness.store import read_manifest, require_unchanged, sha256_file

SHOWN = 2000


@dataclass(frozen=True)
class Sample:
    """One item's value of one metric, with what was asked and answered."""

    value: float
    prompt_hash: str
    target_hash: str
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
    models = sorted({str(path.parent.relative_to(folder)) for path in results})
    if len(models) > 1:
        raise DataError(f"{folder} holds results of several models; name one of: {', '.join(models)}")
    return _made_elsewhere(folder, results[-1])


def _ours(folder: Path) -> Evidence:
    if read_manifest(folder) is not None:
        require_unchanged(folder)
    try:
        record = load(Evaluation, folder / "evaluation.json")
    except (DataError, UnicodeDecodeError) as error:
        raise EvidenceFault(f"{folder / 'evaluation.json'} is damaged: {error}") from None
    for task, identity in record.tasks.items():
        path = folder / f"samples_{task}.jsonl"
        if not path.is_file() or sha256_file(path) != identity.samples_sha256:
            raise EvidenceFault(f"{path} is missing or was edited: it does not match evaluation.json")
    found = {t: _samples(folder / f"samples_{t}.jsonl", i.lower_is_better) for t, i in record.tasks.items()}
    return Evidence(
        label=record.label,
        suite=record.suite,
        weights_sha256=record.weights_sha256,
        contract_sha256=record.contract_sha256,
        identities={task: _counted(identity, found[task]) for task, identity in record.tasks.items()},
        groups=record.groups,
        samples=found,
    )


def _counted(identity: TaskIdentity, samples: dict[str, dict[str, Sample]]) -> TaskIdentity:
    """`scored` is what the samples hold, whatever the record says."""
    items: set[str] = set().union(*samples.values())
    return identity.model_copy(update={"scored": min(identity.scored, len(items))})


def _made_elsewhere(folder: Path, results: Path) -> Evidence:
    """lm-eval's own output: the newest results file, and for each task its newest samples file."""
    try:
        found = json.loads(results.read_text())
    except ValueError as error:
        raise EvidenceFault(f"{results} is not JSON ({error}); was it cut off?") from None
    if not isinstance(found, dict):
        raise EvidenceFault(f"{results} is not lm-eval's results file")
    files = {task: _sample_files(results, task) for task in found.get("configs", {})}
    missing = [task for task, paths in files.items() if not paths]
    if missing or not files:
        raise DataError(f"{results.parent} lacks samples_<task>.jsonl for: {', '.join(missing) or 'any task'}")
    template = found.get("chat_template_sha") or ""
    identities = {task: _identity(found, task, paths[-1]) for task, paths in files.items()}
    return Evidence(
        label=str(found.get("model_name") or folder.name),
        suite="lm_eval",
        weights_sha256="",
        contract_sha256=str(template),
        identities=identities,
        groups={g: tasks for g, tasks in found.get("group_subtasks", {}).items() if tasks and set(tasks) <= set(files)},
        samples={task: _samples(paths[-1], identities[task].lower_is_better) for task, paths in files.items()},
    )


def _sample_files(results: Path, task: str) -> list[Path]:
    """The samples written with these results, or without a time in their name."""
    moment = results.stem.removeprefix("results")
    names = (f"samples_{task}{moment}.jsonl", f"samples_{task}.jsonl")
    return [path for name in names if (path := results.parent / name).is_file()][:1]


def _identity(found: dict[str, Any], task: str, samples: Path) -> TaskIdentity:
    scored = len({row["doc_hash"] for row in _rows(samples)})
    asked = (found.get("n-samples", {}).get(task) or {}).get("effective", scored)
    return TaskIdentity(
        version=str(found.get("versions", {}).get(task)),
        num_fewshot=int(found.get("n-shot", {}).get(task) or 0),
        generation=json.dumps(found["configs"][task].get("generation_kwargs"), sort_keys=True),
        samples_sha256=sha256_file(samples),
        asked=asked,
        scored=scored,
        failed=0,
        lower_is_better=_lower_is_better(found, task),
    )


def _lower_is_better(found: dict[str, Any], task: str) -> list[str]:
    directions = found.get("higher_is_better", {}).get(task) or {}
    return sorted(metric for metric, higher in directions.items() if higher is False)


def _samples(path: Path, lower_is_better: Sequence[str]) -> dict[str, dict[str, Sample]]:
    """samples[metric][doc_hash] of one samples file, oriented so that larger is better.

    Raises EvidenceFault for a damaged or repeated item.
    """
    samples: dict[str, dict[str, Sample]] = {}
    seen: set[tuple[str, str]] = set()
    for number, row in enumerate(_rows(path), 1):
        for name in row["metrics"]:
            metric = name if row.get("filter", "none") == "none" else f"{name},{row['filter']}"
            items = samples.setdefault(metric, {})
            if (metric, row["doc_hash"]) in seen:
                raise EvidenceFault(f"{path} line {number}: item {row['doc_hash'][:12]} occurs twice for {metric}")
            seen.add((metric, row["doc_hash"]))
            if (value := _value(row.get(name))) is not None:
                hashes = str(row["prompt_hash"]), str(row.get("target_hash"))
                oriented = -value if name in lower_is_better else value
                items[row["doc_hash"]] = Sample(oriented, *hashes, _prompt(row), _response(row))
    return {metric: items for metric, items in samples.items() if items}


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a samples file. Only a newline ends one: answers may hold other line ends."""
    try:
        lines = path.read_bytes().decode().split("\n")
    except UnicodeDecodeError as error:
        raise EvidenceFault(f"{path} is not UTF-8 text ({error}); the file is damaged") from None
    return [_row(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        raise EvidenceFault(f"{path} line {number} is not JSON; the file is damaged or was cut off") from None
    if not isinstance(row, dict):
        raise EvidenceFault(f"{path} line {number} is not an lm-eval sample")
    absent = [key for key in ("doc_hash", "prompt_hash", "metrics") if key not in row]
    if absent:
        raise EvidenceFault(f"{path} line {number} has no {', '.join(absent)}: not an lm-eval sample")
    if not isinstance(row["doc_hash"], str) or not isinstance(row["metrics"], list):
        raise EvidenceFault(f"{path} line {number}: doc_hash or metrics is damaged: not an lm-eval sample")
    return row


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
