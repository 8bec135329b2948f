"""The interface of an experiment tracker, and the tracker that keeps nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Artifact:
    """A finished file or folder (kind: dataset, model, evaluation, verdict), and the artifacts it was made from.

    `path` must stay valid: nothing is copied, and an offline run is uploaded from there later. `digests` holds the
    inputs that are not artifacts themselves: the base model, the prompt contract.
    """

    name: str
    kind: str
    path: Path
    sha256: str
    inputs: tuple["Artifact", ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)


class Tracker:
    """Receives what one stage of a run reports. The methods here do nothing: a tracker overrides those it supports.

    A tracker's class is built once per stage: `__init__(self, config: TrackerConfig, *, folder, group, stage, run_name,
    settings)`. Files are written under `folder` (a Path). `group` is the experiment, `stage` one of audit, train,
    evaluate and gate. `run_name` stays the same when an interrupted stage starts again. `settings` is the whole
    configuration as plain values, without secrets.
    """

    failed: bool = False
    """Whether an error ended the tracking; set by the harness, which then calls no method any more."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """One point of the history; `step` never decreases."""

    def summary(self, values: dict[str, float]) -> None:
        """Final values, keyed `suite/task/metric`."""

    def table(self, name: str, columns: list[str], rows: list[list[object]]) -> None:
        """A table of samples of one task."""

    def artifact(self, made: Artifact, alias: str = "") -> None:
        """An output of the stage. `alias` (candidate, production) names this version, besides `latest`."""

    def alert(self, title: str, text: str) -> None:
        """Notifies the people who watch the project."""

    def view(self, keys: list[str]) -> None:
        """Saves a view that compares the experiment's runs by these summary keys, where the tracker supports it."""

    def finish(self, exit_code: int) -> None:
        """Ends the tracker run; no call may follow."""


class NoTracker(Tracker):
    """Keeps nothing."""
