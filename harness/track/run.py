"""Reports a finished run to the tracker: one tracker run per stage, grouped by experiment, with linked artifacts."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.config.experiment import Config
from harness.core.layout import EVALUATION, RunFolder
from harness.core.store import read_manifest, sha256_file, sha256_json
from harness.model.load import weights_sha256
from harness.records.base import load
from harness.records.gate import Comparison, Verdict
from harness.records.stages import Dataset, Evaluation, TrainingSummary
from harness.track.live import curve_point, live_curve
from harness.track.open import open_tracker
from harness.track.tracker import Artifact, Tracker

CELL_CHARACTERS = 2000  # longer cells of a samples table are cut
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
    values = [_number(side.get(metric)) for metric in metrics for side in (base, candidate)]
    shown = [_shown_prompt(candidate), str(candidate.get("target", "")), _shown_answer(base), _shown_answer(candidate)]
    return [
        str(candidate["doc_hash"])[:12],
        candidate.get("filter", "none"),
        *(t[:CELL_CHARACTERS] for t in shown),
        *values,
    ]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


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
    config: Config
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


def track_run(folder: Path, config: Config, verdict: Verdict) -> None:
    """Reports the stages audit, train, evaluate and gate of a run folder to the configured tracker."""
    if config.tracker.kind == "none":
        return
    place = RunFolder(folder)
    run = FinishedRun(place, config, load(Comparison, place.comparison), verdict)
    for stage, report in STAGES.items():
        tracker = open_stage(folder, config, stage)
        report(tracker, run)
        tracker.finish(verdict.exit_code if stage == "gate" else 0)


@contextmanager
def live_tracking(folder: Path, config: Config, fingerprint: str, curve: Path) -> Iterator[None]:
    """While the block trains, reports the curve to the tracker run that `track_run` completes afterwards.

    Only online: offline nobody can watch, and each stage is written as one folder at the end.
    """
    if config.tracker.kind == "none" or config.tracker.mode == "offline":
        yield
        return
    with live_curve(curve, lambda: open_stage(folder, config, "train", [fingerprint])):
        yield


def open_stage(folder: Path, config: Config, stage: str, fingerprints: Sequence[str] = ()) -> Tracker:
    """The tracker of one stage of a run.

    The tracker run's name holds the digest of the stage's inputs: an interrupted stage continues in its own run, and a
    stage repeated with other inputs gets another. It also holds the stage's position, so that `wandb sync` uploads
    the folders in the order of the stages, each after its inputs. `fingerprints` are those of an unfinished stage.
    """
    digest = sha256_json([stage, *(fingerprints or _fingerprints(folder, stage))])
    return open_tracker(
        config.tracker,
        folder=folder,
        group=config.name,
        stage=stage,
        run_name=f"{folder.name}-{list(STAGES).index(stage) + 1}-{stage}-{digest[:8]}",
        settings=config.model_dump(),
    )


def _fingerprints(folder: Path, stage: str) -> list[object]:
    run = RunFolder(folder)
    made_in = {"audit": [run.data], "train": [run.training]}
    places = made_in.get(stage, [run.base, run.candidate])
    return [(read_manifest(place) or {}).get("fingerprint") for place in places]


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
    tracker.summary({f"train/{k}": float(v) for k, v in summary.items() if isinstance(v, int | float)})
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
