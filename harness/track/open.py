"""Opening a tracker. One that fails never stops the run it watches."""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partialmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.config.experiment import TrackerConfig
from harness.core import plugins
from harness.core.errors import EnvironmentFault, MissingDependency
from harness.core.redact import without_secrets
from harness.track.tracker import NoTracker, Tracker

# The shipped trackers by name; installed packages add to them (entry points tuning_harness.trackers).
TRACKERS = {"none": "harness.track.tracker:NoTracker", "wandb": "harness.track.wandb_tracker:WandbTracker"}


class SafeTracker(Tracker):
    """Another tracker until its first failure: then one warning on stderr, and nothing more is kept.

    Every method of Tracker is handed on by `_attempt` (see below the class).
    """

    def __init__(self, start: Callable[[], Tracker]):
        self._tracker: Tracker = NoTracker()
        try:
            self._tracker = start()
        except Exception as error:
            self._stop(error)

    def _attempt(self, method: str, *arguments: Any, **named: Any) -> None:
        tracker = self._tracker
        if method == "finish":
            self._tracker = NoTracker()
        try:
            getattr(tracker, method)(*arguments, **named)
        except Exception as error:  # whatever a tracker raises, the run goes on
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        broken, self._tracker = self._tracker, NoTracker()
        with suppress(Exception):  # keeps what was tracked so far
            broken.finish(1)
        reason = " ".join(str(error).split()) or "no message"
        print(f"warning: tracking stopped, the run goes on: {type(error).__name__}: {reason}", file=sys.stderr)


for _method in [name for name in vars(Tracker) if not name.startswith("_")]:
    setattr(SafeTracker, _method, partialmethod(SafeTracker._attempt, _method))


def open_tracker(
    config: TrackerConfig, *, folder: Path, group: str, stage: str, run_name: str, settings: dict[str, object]
) -> Tracker:
    """The tracker of one stage; its files go under `folder`. Raises what `check_tracker` raises.

    The run's id is `run_name`: an interrupted stage that starts again goes on in the same run of the tracker.
    `settings` reach it without secrets.
    """
    tracker_class = check_tracker(config)
    if config.kind == "none":
        return NoTracker()
    clean = without_secrets(settings)
    return SafeTracker(
        lambda: tracker_class(config, folder=folder, group=group, stage=stage, run_name=run_name, settings=clean)
    )


def check_tracker(config: TrackerConfig) -> Any:
    """The class of the tracker. Raises EnvironmentFault when it cannot work here: no wandb, online without a key, an
    installed package that cannot be used."""
    if config.kind == "wandb" and find_spec("wandb") is None:
        raise MissingDependency("wandb", "tracker=wandb", "engine")
    found = plugins.load("trackers", config.kind, TRACKERS, Tracker)
    if config.kind == "wandb" and config.mode == "online":
        from harness.track.wandb_tracker import logged_in

        if not logged_in():
            raise EnvironmentFault(
                "tracker.mode=online needs a W&B key, and there is none. Set WANDB_API_KEY, run `wandb login`, "
                "or keep tracker.mode=offline and upload later with `wandb sync`"
            )
    return found
