"""Opens a tracker. A tracker that fails never stops the run."""

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

SHOWN = 600  # characters of a tracker's error message
# The shipped trackers by name; installed packages add to them (entry points tuning_harness.trackers).
TRACKERS = {"none": "harness.track.tracker:NoTracker", "wandb": "harness.track.wandb_tracker:WandbTracker"}


class SafeTracker(Tracker):
    """Passes every call to another tracker until that one fails; then prints one warning and tracks nothing more.

    `_attempt` passes the calls on; the loop below the class defines every method of Tracker by it.
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
        except Exception as error:  # the run continues whatever a tracker raises
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        broken, self._tracker, self.failed = self._tracker, NoTracker(), True
        with suppress(Exception):  # saves what was tracked so far
            broken.finish(1)
        reason = " ".join(str(error).split())[:SHOWN] or "no message"
        print(f"warning: tracking stopped, the run continues: {type(error).__name__}: {reason}", file=sys.stderr)


for _method in [name for name, value in vars(Tracker).items() if callable(value) and not name.startswith("_")]:
    setattr(SafeTracker, _method, partialmethod(SafeTracker._attempt, _method))


def open_tracker(
    config: TrackerConfig, *, folder: Path, group: str, stage: str, run_name: str, settings: dict[str, object]
) -> Tracker:
    """The tracker of one stage; its files are written under `folder`. Raises what `check_tracker` raises.

    The tracker's run has the id `run_name`, so an interrupted stage continues in the same run when it starts again.
    Secrets are removed from `settings`.
    """
    tracker_class = check_tracker(config)
    if tracker_class is NoTracker:
        return NoTracker()
    clean = without_secrets(settings)
    return SafeTracker(
        lambda: tracker_class(config, folder=folder, group=group, stage=stage, run_name=run_name, settings=clean)
    )


def check_tracker(config: TrackerConfig) -> Any:
    """The class of the tracker.

    Raises EnvironmentFault when it cannot work here: wandb is missing, it is online without a key, or a plugin cannot
    be used.
    """
    if config.kind == "wandb":
        from harness.track.wandb_tracker import kept_offline, problem_with_key, switched_off

        if switched_off():
            return NoTracker
        if find_spec("wandb") is None:
            raise MissingDependency("wandb", "tracker=wandb", "engine")
        if config.mode == "online" and not kept_offline() and (problem := problem_with_key()):
            raise EnvironmentFault(
                f"tracker.mode=online needs a W&B key, and {problem}. Set WANDB_API_KEY or run `wandb login`; "
                "or use tracker.mode=offline and upload later with `wandb sync`"
            )
    return plugins.load("trackers", config.kind, TRACKERS, Tracker)
