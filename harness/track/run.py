"""A finished run in W&B: one W&B run a stage, grouped by experiment, artifacts linked by what they were made from."""

import json
from pathlib import Path

from harness.config import Config
from harness.records import Comparison, Dataset, TrainingSummary, Verdict, load
from harness.store import sha256_file
from harness.track.tracker import Tracker, open_tracker

COLUMNS = ["item", "metric", "prompt", "base", "candidate", "base value", "candidate value"]


def track_run(folder: Path, config: Config, verdict: Verdict) -> None:
    """Reports train, evaluate and gate stages of a run folder to the configured tracker."""
    if config.tracker.kind == "none":
        return
    dataset, model, evaluation = (f"{config.name}-{kind}" for kind in ("dataset", "model", "evaluation"))
    comparison = load(Comparison, folder / "compare.json")
    with_stage = {"train": _train, "evaluate": _evaluate, "gate": _gate}
    for stage, report in with_stage.items():
        tracker = open_tracker(
            config.tracker,
            folder=folder,
            group=config.name,
            stage=stage,
            run_name=f"{folder.name}-{stage}",
            settings=config.model_dump(),
        )
        report(tracker, folder, (dataset, model, evaluation), comparison, verdict, config)
        tracker.finish(verdict.exit_code if stage == "gate" else 0)


Names = tuple[str, str, str]


def _train(
    tracker: Tracker, folder: Path, names: Names, comparison: Comparison, verdict: Verdict, config: Config
) -> None:
    for line in (folder / "checkpoint" / "train.jsonl").read_text().splitlines():
        values = json.loads(line)
        tracker.metrics({f"train/{k}": v for k, v in values.items() if k != "step"}, int(values["step"]))
    summary = load(TrainingSummary, folder / "checkpoint" / "training.json").model_dump()
    tracker.summary({f"train/{k}": float(v) for k, v in summary.items()})
    data = load(Dataset, folder / "data" / "audit.json")
    tracker.artifact(names[0], "dataset", folder / "data", data.sha256, [])
    tracker.artifact(names[1], "model", folder / "checkpoint", verdict.candidate.weights_sha256, [names[0]])


def _evaluate(
    tracker: Tracker, folder: Path, names: Names, comparison: Comparison, verdict: Verdict, config: Config
) -> None:
    tracker.summary({metric.key: metric.candidate for metric in comparison.whole})
    tracker.summary({f"base/{metric.key}": metric.baseline for metric in comparison.whole})
    for task in sorted({flip.task for flip in comparison.flips}):
        flips = [flip for flip in comparison.flips if flip.task == task][: config.tracker.samples_per_task]
        rows: list[list[object]] = [
            [f.item, f.metric, f.prompt, f.baseline_response, f.candidate_response, f.baseline_value, f.candidate_value]
            for f in flips
        ]
        tracker.table(f"samples/{task}", COLUMNS, rows)
    path = folder / "eval" / "candidate"
    if not (path / "evaluation.json").is_file():  # an INVALID verdict may come before any evaluation
        return
    tracker.artifact(names[2], "evaluation", path, sha256_file(path / "evaluation.json"), [names[1]])


def _gate(
    tracker: Tracker, folder: Path, names: Names, comparison: Comparison, verdict: Verdict, config: Config
) -> None:
    tracker.summary({f"delta/{metric.key}": metric.delta for metric in comparison.whole})
    tracker.summary({"gate/exit_code": float(verdict.exit_code)})
    path = folder / "verdict.json"
    evaluated = [names[2]] if (folder / "eval" / "candidate" / "evaluation.json").is_file() else []
    tracker.artifact(f"{config.name}-verdict", "verdict", path, sha256_file(path), evaluated)
