"""Opening a tracker. One that fails never stops the run it watches."""

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from harness.config.experiment import TrackerConfig
from harness.core.errors import EnvironmentFault, MissingDependency
from harness.track.tracker import Artifact, NoTracker, Tracker


class SafeTracker:
    """Another tracker until its first failure: then one warning on stderr, and nothing more is kept."""

    def __init__(self, start: Callable[[], Tracker]):
        self._tracker: Tracker = NoTracker()
        self._attempt(lambda: self._begin(start))

    def metrics(self, values: dict[str, float], step: int) -> None:
        self._attempt(lambda: self._tracker.metrics(values, step))

    def summary(self, values: dict[str, float]) -> None:
        self._attempt(lambda: self._tracker.summary(values))

    def table(self, name: str, columns: list[str], rows: list[list[object]]) -> None:
        self._attempt(lambda: self._tracker.table(name, columns, rows))

    def artifact(self, made: Artifact, alias: str = "") -> None:
        self._attempt(lambda: self._tracker.artifact(made, alias))

    def alert(self, title: str, text: str) -> None:
        self._attempt(lambda: self._tracker.alert(title, text))

    def view(self, keys: list[str]) -> None:
        self._attempt(lambda: self._tracker.view(keys))

    def finish(self, exit_code: int) -> None:
        tracker, self._tracker = self._tracker, NoTracker()
        self._attempt(lambda: tracker.finish(exit_code))

    def _begin(self, start: Callable[[], Tracker]) -> None:
        self._tracker = start()

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever a tracker raises, the run goes on
            broken, self._tracker = self._tracker, NoTracker()
            with suppress(Exception):  # keeps what was tracked so far
                broken.finish(1)
            reason = " ".join(str(error).split()) or "no message"
            print(f"warning: tracking stopped, the run goes on: {type(error).__name__}: {reason}", file=sys.stderr)


def open_tracker(
    config: TrackerConfig, *, folder: Path, group: str, stage: str, run_name: str, settings: dict[str, object]
) -> Tracker:
    """The tracker of one stage; W&B files go under `folder`. Raises what `check_tracker` raises.

    The run's id is `run_name`: an interrupted stage that starts again goes on in the same W&B run.
    """
    check_tracker(config)
    if config.kind == "none":
        return NoTracker()
    from harness.track.wandb_tracker import WandbTracker

    return SafeTracker(
        lambda: WandbTracker(config, folder=folder, group=group, stage=stage, run_name=run_name, settings=settings)
    )


def check_tracker(config: TrackerConfig) -> None:
    """Raises EnvironmentFault when `config` cannot work here: no wandb, or online without a key."""
    if config.kind == "none":
        return
    if find_spec("wandb") is None:
        raise MissingDependency("wandb", "tracker=wandb", "engine")
    if config.mode == "online":
        from harness.track.wandb_tracker import logged_in

        if not logged_in():
            raise EnvironmentFault(
                "tracker.mode=online needs a W&B key, and there is none. Set WANDB_API_KEY, run `wandb login`, "
                "or keep tracker.mode=offline and upload later with `wandb sync`"
            )
