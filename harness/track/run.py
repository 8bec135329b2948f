"""A finished run in W&B: one W&B run a stage, grouped by experiment, artifacts linked by what they were made from."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.config import Config
from harness.records import Comparison, Dataset, Evaluation, TrainingSummary, Verdict, load
from harness.store import read_manifest, sha256_file, sha256_json
from harness.track.samples import side_by_side
from harness.track.tracker import Tracker, open_tracker

CANDIDATE, BASE = "eval/candidate", "eval/base"


@dataclass(frozen=True)
class _Finished:
    """A run folder with what its stages recorded, and the names of its artifacts."""

    folder: Path
    config: Config
    comparison: Comparison
    verdict: Verdict

    def artifact(self, kind: str) -> str:
        return f"{self.config.name}-{kind}"


def track_run(folder: Path, config: Config, verdict: Verdict) -> None:
    """Reports the stages of a run folder to the configured tracker: audit, train, evaluate, gate."""
    if config.tracker.kind == "none":
        return
    run = _Finished(folder, config, load(Comparison, folder / "compare.json"), verdict)
    for stage, report in STAGES.items():
        tracker = open_stage(folder, config, stage)
        report(tracker, run)
        tracker.finish(verdict.exit_code if stage == "gate" else 0)


def open_stage(folder: Path, config: Config, stage: str) -> Tracker:
    """The tracker of one stage of a run. Its name holds the digest of the stage's inputs, so a stage that is done
    again with other inputs is another W&B run, and one that was interrupted is the same."""
    return open_tracker(
        config.tracker,
        folder=folder,
        group=config.name,
        stage=stage,
        run_name=f"{folder.name}-{stage}-{_inputs_digest(folder, stage)[:8]}",
        settings=config.model_dump(),
    )


def _inputs_digest(folder: Path, stage: str) -> str:
    made_in = {"audit": ["data"], "train": ["checkpoint"]}
    manifests = [read_manifest(folder / name) or {} for name in made_in.get(stage, [BASE, CANDIDATE])]
    return sha256_json([stage, *(manifest.get("fingerprint") for manifest in manifests)])


def _audit(tracker: Tracker, run: _Finished) -> None:
    data = load(Dataset, run.folder / "data" / "audit.json")
    counts = {f"data/{finding.code}": float(finding.rows) for finding in data.findings}
    counts |= {f"data/{source.source}/kept": float(source.kept) for source in data.sources}
    tracker.summary({"data/rows": float(data.rows), "data/conflicts": float(data.conflicts), **counts})
    tracker.artifact(run.artifact("dataset"), "dataset", run.folder / "data", data.sha256, [])


def _train(tracker: Tracker, run: _Finished) -> None:
    for line in (run.folder / "checkpoint" / "train.jsonl").read_text().splitlines():
        values = {key: value for key, value in json.loads(line).items() if isinstance(value, int | float)}
        tracker.metrics({f"train/{k}": float(v) for k, v in values.items() if k != "step"}, int(values["step"]))
    summary = load(TrainingSummary, run.folder / "checkpoint" / "training.json").model_dump()
    tracker.summary({f"train/{k}": float(v) for k, v in summary.items() if isinstance(v, int | float)})
    weights = run.verdict.candidate.weights_sha256
    uses = [run.artifact("dataset")]
    tracker.artifact(run.artifact("model"), "model", run.folder / "checkpoint", weights, uses, "candidate")


def _evaluate(tracker: Tracker, run: _Finished) -> None:
    tracker.summary({metric.key: metric.candidate for metric in run.comparison.whole})
    tracker.summary({f"base/{metric.key}": metric.baseline for metric in run.comparison.whole})
    path = run.folder / CANDIDATE
    if not (path / "evaluation.json").is_file():  # an INVALID verdict may come before any evaluation
        return
    for task in load(Evaluation, path / "evaluation.json").tasks:
        columns, rows = side_by_side(run.folder / BASE, path, task, run.config.tracker.samples_per_task)
        tracker.table(f"samples/{task}", columns, rows)
    digest = sha256_file(path / "evaluation.json")
    tracker.artifact(run.artifact("evaluation"), "evaluation", path, digest, [run.artifact("model")])


def _gate(tracker: Tracker, run: _Finished) -> None:
    tracker.summary({f"delta/{metric.key}": metric.delta for metric in run.comparison.whole})
    tracker.summary({"gate/exit_code": float(run.verdict.exit_code)})
    path = run.folder / "verdict.json"
    evaluated = (run.folder / CANDIDATE / "evaluation.json").is_file()
    uses = [run.artifact("evaluation")] if evaluated else []
    tracker.artifact(run.artifact("verdict"), "verdict", path, sha256_file(path), uses)
    if run.verdict.verdict != "PASS":
        tracker.alert(f"{run.verdict.verdict}: {run.folder.name}", "\n".join(run.verdict.reasons))
    tracker.view([metric.key for metric in run.comparison.whole])


STAGES: dict[str, Callable[[Tracker, _Finished], None]] = {
    "audit": _audit,
    "train": _train,
    "evaluate": _evaluate,
    "gate": _gate,
}
