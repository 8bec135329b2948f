"""What runs, evaluations and comparisons hold, as pandas data frames. `import harness` hands these functions out.

Each is a view of files that the harness wrote or of records that `compare` makes; nothing is computed that they do not
hold. A missing value is None, NaN or NaT, never 0. Names are those of `harness.workflows.interface`.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import DataError, EvidenceFault, HarnessError, MissingDependency, UsageError, nearest
from harness.core.layout import CHECKPOINT, CURVE, EVALUATION, RUN, VERDICT, RunFolder
from harness.workflows.interface import Name, compare

if TYPE_CHECKING:
    from pandas import DataFrame

    from harness.records.gate import MetricComparison
    from harness.results.columns import Column

RUN_COLUMNS = ("run_id", "name", "verdict", "created", "seconds", "missing", "path")
SAMPLE_COLUMNS = (
    "task", "item", "doc_hash", "slice", "prompt", "response", "target", "failed", "broken"
)  # fmt: skip
COMPARISON_COLUMNS = (
    "suite", "task", "slice", "metric", "against", "n", "baseline", "candidate", "delta", "ci_low", "ci_high",
    "only_baseline_right", "only_candidate_right", "direction", "relative_drop", "relative_low", "relative_high",
    "forgetting", "forgetting_low", "forgetting_high", "transfer", "transfer_low", "transfer_high", "interval_doubt",
)  # fmt: skip


def runs(folder: Name = "runs") -> "DataFrame":
    """The runs below a folder, one row each, by run id; unfinished ones too.

    Columns: `run_id`; `name` of the experiment; `verdict` (PASS, FAIL, INCONCLUSIVE, INVALID); `created`, when
    it ended (UTC); `seconds` that its last start took; `missing`, the parts that are not there or damaged, "" for a
    complete run; `path`. Then the metrics of each verdict on all items, named as in W&B: `suite/task/metric` is the
    candidate's mean, `delta/suite/task/metric` its difference from the baseline, larger is better. What a run lacks is
    empty (None, NaT or NaN). Raises UsageError where the folder does not exist.
    """
    pandas = _pandas("harness.runs")
    rows = run_rows(Path(folder))
    frame = pandas.DataFrame(rows, columns=_columns(RUN_COLUMNS, rows))
    frame["created"] = pandas.to_datetime(frame["created"], utc=True)
    frame["seconds"] = frame["seconds"].astype("float64")
    return frame


def run_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of `runs` as dictionaries, by run id. Raises UsageError where the folder does not exist."""
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is not a folder. Name the folder of the runs: harness runs DIR, or harness.runs('DIR')"
        )
    return [_run_row(RunFolder(path)) for path in sorted(folder.iterdir()) if _is_run(RunFolder(path))]


def _is_run(place: RunFolder) -> bool:
    """Whether a run was begun here. A folder that `harness evaluate` made holds evaluations only."""
    begun = (place.record, place.config, place.audit, place.unfinished, place.checkpoint)
    return not place.name.startswith(".") and any(path.exists() for path in begun)


def _run_row(place: RunFolder) -> dict[str, Any]:
    from harness.config.experiment import read_yaml
    from harness.records.base import load
    from harness.records.gate import Verdict

    parts = {
        "data": place.audit,
        CHECKPOINT: place.checkpoint,
        "eval/base": place.base / EVALUATION,
        "eval/candidate": place.candidate / EVALUATION,
        VERDICT: place.verdict,
        RUN: place.record,
    }
    missing = [name for name, path in parts.items() if not path.exists()]
    record: dict[str, Any] = {}
    verdict = None
    settings: Any = {}
    if place.record.is_file():
        try:
            record = dict(json.loads(place.record.read_bytes()))
        except (ValueError, TypeError):
            missing.append(f"{RUN} (damaged)")
    if place.verdict.is_file():
        try:
            verdict = load(Verdict, place.verdict)
        except (DataError, UnicodeDecodeError):
            missing.append(f"{VERDICT} (damaged)")
    if place.config.is_file():
        try:
            settings = read_yaml(place.config)
        except HarnessError:
            missing.append(f"{place.config.name} (damaged)")
    row = {
        "run_id": place.name,
        "name": settings.get("name") if isinstance(settings, dict) else None,
        "verdict": verdict and verdict.verdict,
        "created": record.get("created"),
        "seconds": record.get("seconds"),
        "missing": ", ".join(missing),
        "path": str(place.path),
    }
    for metric in verdict.metrics if verdict else []:
        if metric.slice == "all" and metric.against is None:
            row |= {metric.key: metric.candidate, f"delta/{metric.key}": metric.delta}
    return row


def samples(run_or_evaluation: Name, task: str | None = None, *, runs_dir: Name = "runs") -> "DataFrame":
    """The items of an evaluation with prompts, responses and scores, one row each, in the order of the items.

    A run stands for the evaluation of its candidate; that of its base model is `RunFolder.base`. `task` picks one task.

    Columns: `task`; `item`, the document's own id, or its number; `doc_hash`, as in the flips of a comparison;
    `slice`; `prompt`, the text of the first request; `response`, what was generated, or the most likely choice;
    `target`; `failed`, why there is no response; `broken`, the rules of a domain task that the answer breaks, "" for
    none. Then one column a metric (`metric,filter` for any filter but none), averaged over repeated samples of an item;
    NaN for a task without it. Of several filters or repeated samples, the first response is shown.

    Raises UsageError for a name that leads to no evaluation or a task that it does not have, EvidenceFault where a file
    was edited after the evaluation.
    """
    from harness.checkpoint.resolve import resolve_evaluation
    from harness.results.evidence import read_evidence

    pandas = _pandas("harness.samples")
    folder = resolve_evaluation(os.fspath(run_or_evaluation), Path(runs_dir))
    found = read_evidence(folder).samples
    if task is not None and task not in found:
        raise UsageError(f"{folder} has no task '{task}'. {nearest(task, found)}")
    rows = [row for name in found if task in (None, name) for row in _sample_rows(folder, name, found[name])]
    return pandas.DataFrame(rows, columns=_columns(SAMPLE_COLUMNS, rows))


def _sample_rows(folder: Path, task: str, columns: "Mapping[str, Column]") -> Iterator[dict[str, Any]]:
    """One row an item, scored or not; `columns` are the task's scores by metric."""
    from harness.results.samples import prompt_of, response_of

    scores: dict[str, dict[str, float]] = {}
    first: dict[str, int] = {}  # where the item's first row begins
    for metric, column in columns.items():
        name = f"{metric},none" if metric in SAMPLE_COLUMNS else metric
        for item, place, value in zip(*(a.tolist() for a in (column.items, column.places, column.values)), strict=True):
            key = item.decode(errors="surrogatepass")
            scores.setdefault(key, {})[name] = value
            first[key] = min(place, first.get(key, place))
    keys = {place: key for key, place in first.items()}
    place = 0
    with _samples_file(folder, task, columns).open("rb") as file:
        for line in file:
            row = json.loads(line) if line.strip() else {}
            key = keys.get(place) or str(row.get("doc_hash", ""))
            if place in keys or (key not in scores and "doc_hash" in row):
                scores.setdefault(key, {})  # an item without a score has a row for each filter: the first one is taken
                doc = row.get("doc") or {}
                findings = row.get("findings")
                yield {
                    "task": task,
                    "item": str(doc.get("id", row.get("doc_id", key))),
                    "doc_hash": key,
                    "slice": doc.get("slice"),
                    "prompt": prompt_of(row),
                    "response": response_of(row) if row.get("filtered_resps") else None,
                    "target": row.get("target"),
                    "failed": row.get("failed"),
                    "broken": None if findings is None else ", ".join(f["rule"] for f in findings if not f["pass"]),
                    **scores[key],
                }
            place += len(line)


def _samples_file(folder: Path, task: str, columns: "Mapping[str, Column]") -> Path:
    """Where the columns come from; of a task without any, the newest file of its name, which may end with a time."""
    if columns:
        return next(column.path for column in columns.values())
    name = re.compile(rf"samples_{re.escape(task)}(_\d{{4}}-\d\d-\d\dT.*)?\.jsonl")
    return max(path for path in folder.rglob("samples_*.jsonl") if name.fullmatch(path.name))


def comparison(
    baseline: Name,
    candidate: Name,
    policy: Name | None = None,
    anchors: Iterable[Name] = (),
    *,
    runs_dir: Name = "runs",
) -> "DataFrame":
    """What `compare` measures, one row a metric, by task, slice and group; `anchors` add rows of their own.

    Columns: `suite`, `task`, `slice` ("all": every item), `metric`; `against`, the baseline's label; `n` items; the
    means `baseline` and `candidate`; `delta` with its 95% interval `ci_low`, `ci_high`, larger is better;
    `only_baseline_right`, `only_candidate_right`, numbers of items (right/wrong metrics only); `direction` of the
    metric as it is reported, "higher" or "lower"; `relative_drop`, the share of the baseline's mean that was lost;
    `forgetting` and `transfer`, shares of all items beyond chance (multiple choice only), each with its 95% interval
    (`…_low`, `…_high`); `interval_doubt`, why the interval may cover less than 95%.

    Raises EvidenceFault with every fault where the evidence cannot be compared, and whatever `compare` raises.
    """
    pandas = _pandas("harness.comparison")
    found = compare(baseline, candidate, policy, anchors, runs_dir=runs_dir)
    compared = [found, *found.others]
    if faults := [fault for one in compared for fault in one.faults]:
        told = "\n".join(f"  - {fault}" for fault in faults)
        raise EvidenceFault(f"the evaluations cannot be compared; harness.compare(...) has what was measured:\n{told}")
    rows = [_metric_row(metric, one.baseline.label) for one in compared for metric in one.metrics]
    frame = pandas.DataFrame(rows, columns=list(COMPARISON_COLUMNS))
    counts = ["only_baseline_right", "only_candidate_right"]
    return frame.astype(dict.fromkeys(counts, "Int64"))


def _metric_row(metric: "MetricComparison", against: str) -> dict[str, Any]:
    drop, beyond = metric.relative_drop, metric.beyond_chance
    return {
        **{name: getattr(metric, name) for name in COMPARISON_COLUMNS if hasattr(metric, name)},
        "against": against,
        "relative_drop": drop and drop.drop,
        "relative_low": drop and drop.low,
        "relative_high": drop and drop.high,
        **(beyond.model_dump() if beyond else {}),
    }


def curves(run: Name, *, runs_dir: Name = "runs") -> "DataFrame":
    """The training curve of a run, one row an optimiser step; of a training that has not ended, what there is of it.

    Columns: `step`; `loss` (nats a supervised token, with penalties), `loss/SOURCE` of each source of the data,
    `grad_norm`, `learning_rate`, `kl_to_base` and `l2_to_start` where in use; `seconds` of the step, `tokens_per_s`,
    `supervised_tokens_per_s`, `memory_gib` (peak). Raises UsageError where there is no such run, DataError where
    nothing was trained in it.
    """
    from harness.checkpoint.alias import registry_folder, resolved

    pandas = _pandas("harness.curves")
    runs_folder = Path(runs_dir)
    name = resolved(os.fspath(run), registry_folder(runs_folder))
    place = next((RunFolder(path) for path in (Path(name), runs_folder / name) if path.is_dir()), None)
    if place is None:
        known = [folder.name for folder in RunFolder.all_in(runs_folder) if folder.is_run]
        raise UsageError(f"{name}: no such run. {nearest(name, known)}")
    places = (place.checkpoint, place.trained, place.unfinished)
    curve = next((path for folder in places if (path := folder / CURVE).is_file()), None)
    if curve is None:
        raise DataError(f"{place.path} holds no {CURVE}: nothing was trained here. Name a run that trained a model")
    lines = curve.read_text().splitlines()
    try:
        rows = [json.loads(line) for line in lines if line.endswith("}")]  # the last line may be half written
    except ValueError as error:
        raise DataError(f"{curve} is damaged: {error}") from None
    frame = pandas.DataFrame(rows)
    return frame.astype({"step": "int64"}) if rows else frame


def _columns(fixed: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[str]:
    """The fixed columns, and those that only some rows have, in the order in which they first occur."""
    return list(dict.fromkeys([*fixed, *(key for row in rows for key in row)]))


def _pandas(needed_for: str) -> Any:
    try:
        import pandas
    except ImportError:
        raise MissingDependency("pandas", needed_for, "notebook") from None
    return pandas
