"""Reads evaluations: folders of the harness, and lm-eval output folders made elsewhere."""

import json
import mmap
import multiprocessing
import pickle
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from harness.core.errors import DataError, EnvironmentFault, EvidenceFault
from harness.core.layout import EVALUATION
from harness.core.machine import cores
from harness.core.paths import inside
from harness.core.store import read_manifest, require_unchanged, sha256_file, sha256_json
from harness.records.base import load
from harness.records.stages import Evaluation, TaskIdentity
from harness.results.columns import Column
from harness.results.results_file import ResultsFile, read_results, results_files, sample_file
from harness.results.samples import Samples, read_samples

ALIGNED = 64  # bytes
SAME = 1e-9
ROUNDING = 1e-4
FIELDS = ("slice",)
MIN_BYTES_FOR_PROCESS = 100_000_000  # smaller samples are read before another process has started
MEANS = ("acc", "acc_norm", "exact_match")  # metrics that lm-eval reports as the mean over items

Weighting = Mapping[tuple[str, str], bool]

# A value on its way to another process: its pickle without the arrays, and the size of each array in bytes. The arrays
# are in a file that both processes map, so they are copied once (pickle protocol 5, PEP 574).
SharedEvidence = tuple[bytes, list[int]]


def write_shared(value: Any, path: Path) -> SharedEvidence:
    """Writes the arrays of a value to a file, each at a multiple of 64 bytes, for `read_shared`."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    with path.open("wb") as file:
        for raw in map(pickle.PickleBuffer.raw, buffers):
            file.write(raw)
            file.write(bytes(-raw.nbytes % ALIGNED))
    return pickled, [buffer.raw().nbytes for buffer in buffers]


def read_shared(shared: SharedEvidence, path: Path) -> Any:
    """The value that was written; its arrays are pages of the file, which may be removed then."""
    pickled, sizes = shared
    pages = memoryview(b"")
    if path.stat().st_size:
        with path.open("rb") as file:
            pages = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size + -size % ALIGNED)
    return pickle.loads(pickled, buffers=[pages[s : s + n] for s, n in zip(starts, sizes, strict=False)])  # noqa: S301 - from our own process


def equally_weighted(
    groups: Mapping[str, Sequence[str]],
    samples: Mapping[str, Mapping[str, Column]],
    reported: Mapping[str, Mapping[str, float]],
) -> dict[tuple[str, str], bool]:
    """By (group, metric): whether its reported mean weighs the tasks equally, not by size; absent where both agree.

    lm-eval does not record the setting (`weight_by_size: false`), but the reported mean follows from only one of both.
    """
    return {
        (group, metric): equally
        for group, tasks in groups.items()
        for metric, value in reported.get(group, {}).items()
        for equally in _weighs_equally(value, [samples.get(task, {}).get(metric) for task in tasks])
    }


def _weighs_equally(value: float, columns: Sequence[Column | None]) -> Iterator[bool]:
    scored = [column for column in columns if column is not None and len(column)]
    if len(scored) < max(2, len(columns)):
        return
    means = np.array([column.values.mean() for column in scored])
    equally, by_size = float(means.mean()), float(np.average(means, weights=[len(column) for column in scored]))
    near_equally, near_by_size = abs(value - equally), abs(value - by_size)
    if min(near_equally, near_by_size) <= ROUNDING and abs(near_equally - near_by_size) > SAME:
        yield near_equally < near_by_size


def weighting_errors(left: Weighting, right: Weighting) -> list[str]:
    """An error for each group metric that the two sides weigh differently."""
    return [
        f"group {group}: {metric} weighs tasks by size on one side, and equally on the other"
        for group, metric in sorted(left.keys() & right.keys())
        if left[group, metric] != right[group, metric]
    ]


@dataclass(frozen=True)
class Evidence:
    """An evaluation ready to be compared: samples[task][metric] is a column of scores. Digests are '' where unknown.

    `equal_weights` says of a (group, metric) whether its tasks weigh the same, where the reported mean shows it.
    `sha256` covers every file that was read; `notes` say which were read and left out, where there was a choice.
    `flip_share` is the share of items that an identical model flips, by task.
    """

    label: str
    suite: str
    weights_sha256: str
    contract_sha256: str
    identities: Mapping[str, TaskIdentity]
    groups: Mapping[str, Sequence[str]]
    samples: Mapping[str, Mapping[str, Column]]
    sha256: str = ""
    flip_share: Mapping[str, float] = field(default_factory=dict)
    equal_weights: Weighting = field(default_factory=dict)
    notes: Sequence[str] = ()


def read_sides(folders: tuple[Path, Path], fields: Sequence[str] = FIELDS) -> tuple[Evidence, Evidence]:
    """`read_evidence` of both folders. Big ones are read at once, the second by a process of its own, if there is a
    second core. Raises EnvironmentFault when that process dies."""
    first, second = folders
    size = sum(path.stat().st_size for folder in folders for path in folder.rglob("samples_*.jsonl"))
    if size < MIN_BYTES_FOR_PROCESS or cores() == 1:
        return read_evidence(first, fields), read_evidence(second, fields)
    with (
        TemporaryDirectory(prefix="harness-evidence-") as scratch,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
    ):
        beside = pool.submit(_read_into, Path(scratch) / "columns", second, fields)
        here = read_evidence(first, fields)
        try:
            return here, read_shared(beside.result(), Path(scratch) / "columns")
        except BrokenProcessPool:
            raise EnvironmentFault(f"the process that read {second} died; the machine may be out of memory") from None


def _read_into(path: Path, folder: Path, fields: Sequence[str]) -> SharedEvidence:
    return write_shared(read_evidence(folder, fields), path)


def read_evidence(folder: Path, fields: Sequence[str] = FIELDS) -> Evidence:
    """The evaluation in a folder, with the named fields of its documents (for slices and clusters).

    Raises DataError when there is none, EvidenceFault when its files are damaged or do not match their digests.
    """
    if (folder / EVALUATION).is_file():
        return _own_evaluation(folder, fields)
    return _lm_eval_output(folder, fields)


def _own_evaluation(folder: Path, fields: Sequence[str]) -> Evidence:
    if read_manifest(folder) is not None:
        require_unchanged(folder)
    try:
        record = load(Evaluation, folder / EVALUATION)
    except (DataError, UnicodeDecodeError) as error:
        raise EvidenceFault(f"{folder / EVALUATION} is damaged: {error}") from None
    found = {
        task: _scored(
            _unedited(inside(folder, f"samples_{task}.jsonl", folder / EVALUATION), fields, identity.samples_sha256)
        )
        for task, identity in record.tasks.items()
    }
    # The samples say how many items were scored, whatever the record says.
    identities = {
        task: identity.model_copy(update={"scored": min(identity.scored, _items(found[task]))})
        for task, identity in record.tasks.items()
    }
    reported = {
        group: {score.metric: score.value for score in record.scores if score.task == group} for group in record.groups
    }
    return Evidence(
        label=record.label,
        suite=record.suite,
        weights_sha256=record.weights_sha256,
        contract_sha256=record.contract_sha256,
        identities=identities,
        groups=record.groups,
        samples=found,
        sha256=sha256_json([sha256_file(folder / EVALUATION), _digests(record.tasks)]),
        flip_share=record.aa_flip_share or {},
        equal_weights=equally_weighted(record.groups, found, reported),
    )


def _unedited(path: Path, fields: Sequence[str], digest: str) -> dict[str, Column]:
    """The samples of a file. Raises EvidenceFault when its digest differs, even if it is damaged otherwise too."""
    edited = f"{path} is missing or was edited: it does not match evaluation.json"
    if not path.is_file():
        raise EvidenceFault(edited)
    try:
        samples = read_samples(path, fields)
    except EvidenceFault as fault:
        raise EvidenceFault(edited) if sha256_file(path) != digest else fault from None
    if samples.sha256 != digest:
        raise EvidenceFault(edited)
    return samples.columns


def _scored(columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns without metrics that lm-eval computes over pairs or lists, which have no score for an item."""
    return {metric: column for metric, column in columns.items() if not column.aggregate}


def _items(columns: Mapping[str, Column]) -> int:
    """How many items have a score of any metric."""
    first, *others = [column.items for column in columns.values()] or [np.empty(0, dtype=np.bytes_)]
    same = all(np.array_equal(first, items) for items in others)
    return len(first) if same else len(np.unique(np.concatenate([first, *others])))


def _digests(identities: Mapping[str, TaskIdentity]) -> dict[str, str]:
    return {task: identity.samples_sha256 for task, identity in identities.items()}


@dataclass(frozen=True)
class _TaskFiles:
    """The newest results file that has a task, and the samples written with it."""

    results: Path
    record: ResultsFile
    samples: Path


def _lm_eval_output(place: Path, fields: Sequence[str]) -> Evidence:
    """lm-eval's own output: of each task the newest results in the folder, and the samples written with them."""
    found = [(path, read_results(path)) for path in results_files(place)]
    if not found:
        raise DataError(
            f"{place} has no evaluation: neither evaluation.json nor a results file of lm-eval. Make one with: harness "
            "evaluate …, or lm_eval … --output_path DIR --log_samples"
        )
    _require_one_model(place, found)
    newest = {task: (path, record) for path, record in found for task in record.tasks}
    parts = {task: _TaskFiles(*one, sample_file(one[0], task) or Path()) for task, one in newest.items()}
    if missing := [task for task, part in parts.items() if part.samples == Path()]:
        raise EvidenceFault(
            f"{place} lacks samples_<task>.jsonl for: {', '.join(missing[:5])}. The gate compares item by item: "
            "evaluate again with --log_samples."
        )
    if not parts:
        raise EvidenceFault(f"{found[-1][0]} names no task; evaluate again")
    samples = {task: read_samples(part.samples, fields, part.record.filters(task)) for task, part in parts.items()}
    for task, read in samples.items():
        _require_reported(parts[task].record, parts[task].results, task, read.columns)
    identities = {task: _identity(parts[task].record, task, read) for task, read in samples.items()}
    groups: dict[str, list[str]] = {}
    reported: dict[str, dict[str, float]] = {}
    for path, record in found:
        groups |= dict(_groups(path, record))
        reported |= record.group_means
    columns = {task: _scored(read.columns) for task, read in samples.items()}
    contracts = {task: _contract(part.record) for task, part in parts.items()}
    read_files = list(dict.fromkeys(part.results for part in parts.values()))
    digests = [sha256_file(path) for path in read_files]
    return Evidence(
        label=found[-1][1].model_name or place.name,
        suite="lm_eval",
        weights_sha256="",
        contract_sha256=next(iter(contracts.values())) if len(set(contracts.values())) == 1 else sha256_json(contracts),
        identities=identities,
        groups=groups,
        samples=columns,
        sha256=sha256_json([digests[0] if len(digests) == 1 else digests, _digests(identities)]),
        equal_weights=equally_weighted(groups, columns, reported),
        notes=_reading_notes(place, found, newest),
    )


def _contract(record: ResultsFile) -> str:
    template, system = record.chat_template_sha, record.system_instruction_sha
    return sha256_json([template, system]) if system else template or ""


def _require_one_model(place: Path, found: Sequence[tuple[Path, ResultsFile]]) -> None:
    """Raises DataError where the files under a folder are of several models, or do not say which.

    Files without a model's name are of one model if they lie in one folder.
    """
    names = {record.model_name or str(path.parent) for path, record in found}
    folders = sorted({str(path.parent) for path, _ in found})
    one_task_each = len({task for _, record in found for task in record.tasks}) == sum(len(r.tasks) for _, r in found)
    if len(names) > 1 or (len(folders) > 1 and not one_task_each):
        listed = ", ".join(folders[:10] if len(folders) > 1 else sorted(names))
        raise DataError(f"{place} has results of several models; name one of: {listed}")


def _reading_notes(
    place: Path, found: Sequence[tuple[Path, ResultsFile]], newest: Mapping[str, tuple[Path, ResultsFile]]
) -> tuple[str, ...]:
    """What was read of several results files, what was left out, and results that a limit cut."""
    notes = []
    if len(found) > 1:
        read: dict[Path, list[str]] = {}
        for task, (path, _) in newest.items():
            read.setdefault(path, []).append(task)
        listed = [
            f"{', '.join(tasks[:5])}{' …' if len(tasks) > 5 else ''} from {path.name}" for path, tasks in read.items()
        ]
        notes.append(f"{place}: read {'; '.join(listed)}")
        for path, record in found:
            if left_out := [task for task in record.tasks if newest[task][0] != path]:
                notes.append(f"{place}: {', '.join(left_out[:5])} in {path.name} left out: newer results are there")
    for task, (path, record) in newest.items():
        if record.limited(task):
            counts = record.samples[task]
            notes.append(
                f"{path.name}: {task} was evaluated on {counts.effective} of {counts.original} items (--limit). Name "
                "another file in place of the folder, if that one is meant."
            )
        for other, older in found:
            if other != path and task in older.tasks and (older.requested(task) or 0) > (record.requested(task) or 0):
                notes.append(
                    f"{place}: the newest results of {task} ({path.name}) have {record.requested(task)} items, "
                    f"{other.name} has {older.requested(task)}. Name the file to use in place of the folder: {other}"
                )
    return tuple(notes)


def _require_reported(record: ResultsFile, results: Path, task: str, columns: Mapping[str, Column]) -> None:
    """Raises EvidenceFault when the mean of complete samples is not the one that the results report."""
    reported = record.results.get(task, {})
    for metric, column in columns.items():
        key = metric if "," in metric else f"{metric},none"
        if metric.split(",")[0] not in MEANS or key not in reported:
            continue
        value = reported[key]
        if not isinstance(value, int | float) or isinstance(value, bool) or not np.isfinite(value):
            raise EvidenceFault(
                f"{results}: {key} of {task} is {ascii(value)[:40]}, which is not a number; the file was edited or "
                "damaged. Evaluate again."
            )
        if len(column) != record.requested(task):
            continue
        if np.isfinite(column.values).all() and abs(float(column.values.mean()) - value) > ROUNDING:
            raise EvidenceFault(
                f"{column.path}: {metric} averages to {column.values.mean():.4f}, but {results.name} says {value:.4f}; "
                "one of them was edited"
            )


def _groups(results: Path, record: ResultsFile) -> Iterator[tuple[str, list[str]]]:
    """Every group with all its tasks, those of its subgroups too.

    Raises EvidenceFault for a group that lacks a task.
    """

    def leaves(name: str, above: tuple[str, ...]) -> list[str]:
        if name in above or name not in record.groups:
            return [name]
        return [leaf for child in record.group_subtasks[name] for leaf in leaves(child, (*above, name))]

    for group in record.groups:
        tasks = leaves(group, ())
        if missing := sorted(set(tasks) - set(record.tasks)):
            raise EvidenceFault(f"{results}: group {group} lacks {', '.join(missing)}; evaluate the whole group again")
        yield group, tasks


def _identity(record: ResultsFile, task: str, samples: Samples) -> TaskIdentity:
    columns = samples.columns
    scored = _items(_scored(columns))
    requested = record.requested(task)
    directions = record.higher_is_better.get(task, {})
    return TaskIdentity(
        version=str(record.versions.get(task)),
        num_fewshot=record.shots.get(task),
        generation=json.dumps(record.configs[task].generation_kwargs, sort_keys=True),
        samples_sha256=samples.sha256,
        asked=scored if requested is None else requested,
        scored=scored,
        failed=0,
        lower_is_better=sorted(metric for metric, higher in directions.items() if higher is False),
        undirected=sorted({name for metric in columns if directions.get(name := metric.split(",")[0]) is None}),
    )
