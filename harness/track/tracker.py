"""Experiment tracking: W&B, or nothing. A tracker that fails never stops the run it watches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


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


class Tracker(Protocol):
    """Where one stage of a run reports to."""

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


class NoTracker:
    """Keeps nothing."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        pass

    def summary(self, values: dict[str, float]) -> None:
        pass

    def table(self, name: str, columns: list[str], rows: list[list[object]]) -> None:
        pass

    def artifact(self, made: Artifact, alias: str = "") -> None:
        pass

    def alert(self, title: str, text: str) -> None:
        pass

    def view(self, keys: list[str]) -> None:
        pass

    def finish(self, exit_code: int) -> None:
        pass
