"""A tracker: one CSV file for the final values of all stages."""

from pathlib import Path
from typing import Any

from harness.config.experiment import TrackerConfig
from harness.track.tracker import Tracker


class CsvTracker(Tracker):
    def __init__(self, config: TrackerConfig, *, folder: Path, stage: str, **_: Any):
        self._path, self._stage = folder / config.options["file"], stage

    def summary(self, values: dict[str, float]) -> None:
        with self._path.open("a") as file:
            file.writelines(f"{self._stage},{key},{value}\n" for key, value in values.items())
