"""Reports a run to the tracker: its curve while it trains, then each stage as one tracker run with linked artifacts."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.config.experiment import TrackingConfig
from harness.core.console import say
from harness.core.layout import EVALUATION, RunFolder
from harness.core.store import read_manifest, sha256_file, sha256_json
from harness.model.load import weights_sha256
from harness.records.base import load
from harness.records.gate import Comparison, Verdict
from harness.records.stages import Dataset, Evaluation, TrainingSummary
from harness.track.open import open_tracker
from harness.track.tracker import Artifact, Tracker

CELL_CHARACTERS = 2000  # longer cells of a samples table are cut
POLL_S, LAST_WAIT_S = 2.0, 30.0  # of the live curve: between two looks at the file; after the last step
Key = tuple[str, str]
SampleRow = dict[str, Any]


def side_by_side(base: Path, candidate: Path, task: str, limit: int) -> tuple[list[str], list[list[object]]]:
    """(columns, rows) of a table of both models' answers, for the items that both evaluation folders hold.

    Each row has prompt, target, both answers, and each metric of both. There are at most `limit` rows; items with a
    changed metric come first.
    """
    left, right = (dict(_samples(folder / f"samples_{task}.jsonl")) for folder in (base, candidate))
    keys = [key for key in right if key in left]
    metrics = sorted({metric for key in keys for metric in right[key].get("metrics", []) if metric in left[key]})
    names = [name for metric in metrics for name in (f"base {metric}", f"candidate {metric}")]
    columns = ["item", "filter", "prompt", "target", "base", "candidate", *names]
    keys.sort(key=lambda key: all(left[key].get(m) == right[key].get(m) for m in metrics))
    return columns, [_sample_cells(left[key], right[key], metrics) for key in keys[:limit]]


def _samples(path: Path) -> Iterator[tuple[Key, SampleRow]]:
    if path.is_file():
        with path.open() as file:
            for line in file:
                row: SampleRow = json.loads(line)
                yield (str(row.get("doc_hash")), str(row.get("filter", "none"))), row


def _sample_cells(base: SampleRow, candidate: SampleRow, metrics: list[str]) -> list[object]:
    found = [side.get(metric) for metric in metrics for side in (base, candidate)]
    values = [float(value) if isinstance(value, int | float) else None for value in found]
    shown = [_shown_prompt(candidate), str(candidate.get("target", "")), _shown_answer(base), _shown_answer(candidate)]
    return [
        str(candidate["doc_hash"])[:12],
        candidate.get("filter", "none"),
        *(t[:CELL_CHARACTERS] for t in shown),
        *values,
    ]


def _shown_prompt(row: SampleRow) -> str:
    arguments = row.get("arguments") or {}
    first = arguments.get("gen_args_0", {}) if isinstance(arguments, dict) else arguments[0]
    return str(first.get("arg_0", "") if isinstance(first, dict) else first[0])


def _shown_answer(row: SampleRow) -> str:
    """The filtered answer; for a multiple-choice item, the choice that the model finds most likely."""
    found = row.get("filtered_resps") or [""]
    if len(found) > 1 and isinstance(found[0], list | tuple):
        return f"choice {max(range(len(found)), key=lambda index: float(found[index][0]))}"
    return str(found[0])


@dataclass(frozen=True)
class FinishedRun:
    """A run folder with the records of its stages, and its artifacts with their inputs."""

    folder: RunFolder
    config: TrackingConfig
    comparison: Comparison
    verdict: Verdict

    @cached_property
    def dataset(self) -> Artifact:
        return self._made("dataset", self.folder.data, load(Dataset, self.folder.audit).sha256)

    @cached_property
    def model(self) -> Artifact:
        """The model, with the digest that the registry records."""
        folder = self.folder.checkpoint
        return self._made("model", folder, weights_sha256(folder), (self.dataset,), base_model=self.base_sha256)

    @cached_property
    def evaluation(self) -> Artifact | None:
        """None where the verdict is INVALID because there is no evaluation."""
        record = self.folder.candidate / EVALUATION
        if not record.is_file():
            return None
        contract = load(Evaluation, record).contract_sha256
        digests = {"base_model": self.base_sha256, "prompt_contract": contract}
        return self._made("evaluation", record.parent, sha256_file(record), (self.model,), **digests)

    @property
    def decision(self) -> Artifact:
        path, evaluation = self.folder.verdict, self.evaluation
        inputs = () if evaluation is None else (evaluation,)
        return self._made("verdict", path, sha256_file(path), inputs, baseline=self.verdict.baseline.weights_sha256)

    @property
    def base_sha256(self) -> str:
        """The digest of the weights that training started from; '' where it is unknown."""
        return str((read_manifest(self.folder.training) or {}).get("inputs", {}).get("base", ""))

    def _made(self, kind: str, path: Path, sha256: str, inputs: tuple[Artifact, ...] = (), **digests: str) -> Artifact:
        known = {name: digest for name, digest in digests.items() if digest}
        return Artifact(f"{self.config.name}-{kind}", kind, path, sha256, inputs, known)


def track_run(folder: Path, config: TrackingConfig, verdict: Verdict) -> None:
    """Reports the stages audit, train, evaluate and gate of a run folder to the configured tracker.

    Where W&B cannot be reached, the stage and those after it are written offline, for `wandb sync`.
    """
    if config.tracker.kind == "none":
        return
    place = RunFolder(folder)
    run = FinishedRun(place, config, load(Comparison, place.comparison), verdict)
    for stage, report in STAGES.items():
        tracker = open_stage(folder, run.config, stage)
        if tracker.failed and run.config.uploads:
            run = replace(run, config=run.config.offline())
            say(f"  {stage} and what follows: offline in {folder}/wandb; upload it later with `wandb sync`")
            tracker = open_stage(folder, run.config, stage)
        report(tracker, run)
        tracker.finish(verdict.exit_code if stage == "gate" else 0)
        if tracker.failed and run.config.uploads:  # each further stage would wait as long
            run = replace(run, config=run.config.offline())
            say(f"  what follows {stage}: offline in {folder}/wandb; upload it later with `wandb sync`")


def open_stage(folder: Path, config: TrackingConfig, stage: str, fingerprints: Sequence[object] = ()) -> Tracker:
    """The tracker of one stage of a run.

    The tracker run's name holds the digest of the stage's inputs: an interrupted stage continues in its own run, and a
    stage repeated with other inputs gets another. It also holds the stage's position, so that `wandb sync` uploads
    the folders in the order of the stages, each after its inputs. `fingerprints` are those of an unfinished stage; by
    default they are read from the manifests of the folders that the stage made.
    """
    run = RunFolder(folder)
    made = {"audit": [run.data], "train": [run.training]}.get(stage, [run.base, run.candidate])
    digest = sha256_json([stage, *(fingerprints or [(read_manifest(at) or {}).get("fingerprint") for at in made])])
    return open_tracker(
        config.tracker,
        folder=folder,
        group=config.name,
        stage=stage,
        run_name=f"{folder.name}-{list(STAGES).index(stage) + 1}-{stage}-{digest[:8]}",
        settings=config.settings,
    )


def _report_audit(tracker: Tracker, run: FinishedRun) -> None:
    data = load(Dataset, run.folder.audit)
    counts = {f"data/{finding.code}": float(finding.rows) for finding in data.findings}
    counts |= {f"data/{source.source}/kept": float(source.kept) for source in data.sources}
    tracker.summary({"data/rows": float(data.rows), "data/conflicts": float(data.conflicts), **counts})
    tracker.artifact(run.dataset)


def _report_training(tracker: Tracker, run: FinishedRun) -> None:
    for line in run.folder.curve.read_text().splitlines():
        step, values = curve_point(line)
        tracker.metrics(values, step)
    summary = load(TrainingSummary, run.folder.training_record).model_dump()
    # Not under train/: W&B lets the last step's value of a key overwrite a total of the same name.
    tracker.summary({f"training/{k}": float(v) for k, v in summary.items() if isinstance(v, int | float)})
    tracker.artifact(run.model, "candidate")


def _report_evaluation(tracker: Tracker, run: FinishedRun) -> None:
    tracker.summary({metric.key: metric.candidate for metric in run.comparison.overall})
    tracker.summary({f"base/{metric.key}": metric.baseline for metric in run.comparison.overall})
    path, evaluation = run.folder.candidate, run.evaluation
    if evaluation is None:
        return
    for task in load(Evaluation, path / EVALUATION).tasks:
        columns, rows = side_by_side(run.folder.base, path, task, run.config.tracker.samples_per_task)
        tracker.table(f"samples/{task}", columns, rows)
    tracker.artifact(evaluation)


def _report_gate(tracker: Tracker, run: FinishedRun) -> None:
    tracker.summary({metric.key: metric.candidate for metric in run.comparison.overall})
    tracker.summary({f"delta/{metric.key}": metric.delta for metric in run.comparison.overall})
    tracker.summary({"gate/exit_code": float(run.verdict.exit_code)})
    tracker.artifact(run.decision)
    if run.verdict.verdict != "PASS":
        tracker.alert(f"{run.verdict.verdict}: {run.folder.name}", "\n".join(run.verdict.reasons))
    tracker.view([metric.key for metric in run.comparison.overall])


STAGES: dict[str, Callable[[Tracker, FinishedRun], None]] = {
    "audit": _report_audit,
    "train": _report_training,
    "evaluate": _report_evaluation,
    "gate": _report_gate,
}


@contextmanager
def live_tracking(folder: Path, config: TrackingConfig, fingerprint: str, curve: Path) -> Iterator[None]:
    """While the block trains, reports the curve to the tracker run that `track_run` completes afterwards.

    Only online: offline nobody can watch, and each stage is written as one folder at the end.
    """
    if not config.online:
        yield
        return
    with live_curve(curve, lambda: open_stage(folder, config, "train", [fingerprint])):
        yield


class TrainingCurve:
    """Reads the rows that training appends to train.jsonl.

    After an interruption the file is cut back to the last checkpoint, and the steps after it are repeated.
    """

    def __init__(self, path: Path):
        self._path, self._read, self._step = path, 0, 0

    def report(self, tracker: Tracker) -> None:
        """Reports the complete rows of later steps than all before; a line that is not a row is left out.

        Such a line may be the rest of a row, where the file was cut and grew again, so the file is read from its start.
        """
        rows = [_point_or_none(line) for line in self._lines()]
        if None in rows:
            self._read = 0
            rows = [_point_or_none(line) for line in self._lines()]
        for step, values in filter(None, rows):
            if step > self._step:
                tracker.metrics(values, step)
                self._step = step

    def _lines(self) -> list[bytes]:
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            if self._path.stat().st_size < self._read:
                self._read = 0
            file.seek(self._read)
            complete, end, _ = file.read().rpartition(b"\n")
        self._read += len(complete) + len(end)
        return complete.splitlines()


def _point_or_none(line: bytes) -> tuple[int, dict[str, float]] | None:
    try:
        return curve_point(line)
    except (ValueError, OverflowError, AttributeError, KeyError):
        return None


def curve_point(line: str | bytes) -> tuple[int, dict[str, float]]:
    """The step of a row of train.jsonl, and its numbers, keyed `train/<name>`."""
    values = {key: float(value) for key, value in json.loads(line).items() if isinstance(value, int | float)}
    return int(values["step"]), {f"train/{key}": value for key, value in values.items() if key != "step"}


@contextmanager
def live_curve(path: Path, opened: Callable[[], Tracker]) -> Iterator[None]:
    """While the block runs, reports what training writes to `path` to the tracker that `opened` returns.

    This happens in a thread of its own, so that a slow or silent server never delays the training. The thread reads the
    file, which rank 0 writes however the training was launched.
    """
    over, codes = threading.Event(), [1]
    thread = threading.Thread(
        target=_follow, args=(TrainingCurve(path), opened, over, codes), daemon=True, name="live curve"
    )
    thread.start()
    try:
        yield
        codes.append(0)
    finally:
        over.set()
        thread.join(LAST_WAIT_S)


def _follow(curve: TrainingCurve, opened: Callable[[], Tracker], over: threading.Event, codes: list[int]) -> None:
    tracker = opened()
    try:
        while not over.wait(POLL_S):
            curve.report(tracker)
        curve.report(tracker)
    finally:
        over.wait()  # only then is the exit code known
        tracker.finish(codes[-1])
