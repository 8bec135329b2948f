"""Experiment tracking: W&B, what an installed package brings, or nothing. A tracker that fails stops no run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Artifact:
    """A finished file or folder (kind: dataset, model, evaluation, verdict), and the artifacts it was made from.

    `path` is where it stays: nothing is copied, and an offline run is uploaded later from there. `digests` name what
    it was made from beside `inputs`, and is kept in no artifact of its own (the base model, the prompt contract).
    """

    name: str
    kind: str
    path: Path
    sha256: str
    inputs: tuple["Artifact", ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)


class Tracker:
    """Where one stage of a run reports to. As it stands it keeps nothing: a tracker overrides what it can keep.

    The class of a kind is opened once a stage: `__init__(self, config: TrackerConfig, *, folder, group, stage,
    run_name, settings)`. Files go under `folder` (a Path). `group` is the experiment, `stage` one of audit, train,
    evaluate and gate. `run_name` is the same when an interrupted stage starts again. `settings` is the whole
    configuration as plain values, without secrets.
    """

    def metrics(self, values: dict[str, float], step: int) -> None:
        """A point of the history; `step` never falls."""

    def summary(self, values: dict[str, float]) -> None:
        """Final values, keyed `suite/task/metric`."""

    def table(self, name: str, columns: list[str], rows: list[list[object]]) -> None:
        """Samples of one task."""

    def artifact(self, made: Artifact, alias: str = "") -> None:
        """What the stage made. `alias` names this version beside `latest` (candidate, production)."""

    def alert(self, title: str, text: str) -> None:
        """Tells the people who watch the project."""

    def view(self, keys: list[str]) -> None:
        """Saves a comparison of the experiment's runs on these summary keys, where the tracker can."""

    def finish(self, exit_code: int) -> None:
        """Ends the record; nothing may follow."""


class NoTracker(Tracker):
    """Keeps nothing."""
