"""One W&B run a stage. Offline it writes to the run folder only, and `wandb sync` uploads that later."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.config.experiment import TrackerConfig
from harness.track.tracker import Artifact, Tracker

# A saved W&B view that puts the runs of an experiment beside each other (extra package `wandb-workspaces`). Building
# it needs no network; saving does, and could not be tried against a server here.


PANELS_SHOWN = 40


def comparison_view(entity: str, project: str, group: str, keys: Sequence[str]) -> Any:
    """The view: each `suite/task/metric` of `keys` as bars over runs, what the gate found, and the loss curve."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    scores = [panels.BarPlot(title=key, metrics=[key]) for key in keys[:PANELS_SHOWN]]
    changes = [panels.BarPlot(title=f"change of {key}", metrics=[f"delta/{key}"]) for key in keys[:PANELS_SHOWN]]
    curve = [panels.LinePlot(title="loss", x="Step", y=["train/loss"]), panels.RunComparer(diff_only=True)]
    sections = {"Scores": scores, "Candidate minus baseline": changes, "Training": curve}
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"{group}: base, candidate, production",
        sections=[workspaces.Section(name=name, panels=found, is_open=True) for name, found in sections.items()],
        runset_settings=workspaces.RunsetSettings(filters=f"Group = '{group}'"),
    )


def can_save_views() -> bool:
    return find_spec("wandb_workspaces") is not None


INIT_TIMEOUT_S = 30.0
FINISH_TIMEOUT_S = 300.0


class WandbTracker(Tracker):
    """Any failure surfaces as wandb's own exception; SafeTracker keeps it from the run.

    `folder` is where the files stay: an offline run names them by absolute path.
    """

    def __init__(
        self, config: TrackerConfig, *, folder: Path, group: str, stage: str, run_name: str, settings: dict[str, object]
    ):
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._staging = folder.resolve() / "wandb"
        self._run: Any = wandb.init(
            project=config.project,
            group=group,
            job_type=stage,
            id=_run_id(run_name),
            resume="allow" if config.mode == "online" else None,
            name=run_name,
            mode=config.mode,
            dir=folder,
            config=settings,
            settings=_wandb_settings(),
        )
        self._first_step = int(self._run.starting_step)

    def metrics(self, values: dict[str, float], step: int) -> None:
        """A run that goes on keeps the steps it has: W&B takes none twice."""
        if step >= self._first_step:
            self._run.log(values, step=step)

    def summary(self, values: dict[str, float]) -> None:
        self._run.summary.update(values)

    def table(self, name: str, columns: list[str], rows: list[list[object]]) -> None:
        import wandb

        with _staged_in(self._staging):
            self._run.log({name: wandb.Table(columns=columns, data=rows, allow_mixed_types=True)})

    def artifact(self, made: Artifact, alias: str = "") -> None:
        for used in made.inputs:
            self._use(used)
        with _staged_in(self._staging):
            self._run.log_artifact(_draft(made), aliases=["latest", *([alias] if alias else [])])

    def alert(self, title: str, text: str) -> None:
        self._run.alert(title=title[:63], text=text, level="ERROR")

    def view(self, keys: list[str]) -> None:
        """Only online: a view lives on the server (docs/wandb.md says how to make it by hand)."""

        if not self._run.offline and can_save_views():
            comparison_view(self._run.entity, self._run.project, self._run.group, keys).save()

    def finish(self, exit_code: int) -> None:
        self._run.finish(exit_code=exit_code)

    def _use(self, used: Artifact) -> None:
        """Declares an input: built again from the same files, it has the digest of the version on the server.

        `use_artifact` refuses to be called offline. What it does with an artifact that is not on the server yet is
        done here as well: the record says so, and the sync declares the use (and uploads what it does not find).
        """
        with _staged_in(self._staging):
            if self._run.offline:
                self._run._log_artifact(_draft(used), aliases=[], is_user_created=True, use_after_commit=True)
            else:
                self._run.use_artifact(_draft(used))


def _draft(made: Artifact) -> Any:
    """W&B's artifact; the same files under the same names always have the same digest there."""
    import wandb

    inputs = [_artifact_name(used.name) for used in made.inputs]
    metadata = {"sha256": made.sha256, "inputs": inputs, **made.digests}
    artifact = wandb.Artifact(_artifact_name(made.name), type=made.kind, metadata=metadata)
    root = made.path.resolve()
    for file in _files_below(root):
        inside = file.name if root.is_file() else file.relative_to(root).as_posix()
        # Run folders never change once complete: no second copy in W&B's staging folder or cache.
        artifact.add_file(str(file), name=inside, policy="immutable", skip_cache=True)
    return artifact


def logged_in() -> bool:
    """Whether wandb finds a key for its server (environment or netrc), without asking anybody."""
    import wandb
    from wandb.sdk.lib import wbauth

    host = wandb.setup().settings.base_url
    found = wbauth.authenticate_session(host=host, source="harness", prompt=False, update_session=False)
    return found is not None


def _wandb_settings() -> Any:
    """Quiet, and nothing about this machine, its code or its command line leaves it."""
    import wandb

    return wandb.Settings(
        silent=True,
        reinit="create_new",  # the run of one stage is never taken for that of another, nor for a caller's own
        console="off",
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_disable_viewer=True,
        x_save_requirements=False,
        init_timeout=INIT_TIMEOUT_S,
        finish_timeout=FINISH_TIMEOUT_S,
        finish_timeout_raises=True,
    )


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """W&B copies tables to a folder in the user's home; samples belong in the run folder. A user's own choice stays."""
    chosen = "WANDB_DATA_DIR" in os.environ
    os.environ.setdefault("WANDB_DATA_DIR", str(folder))
    try:
        yield
    finally:
        if not chosen:
            del os.environ["WANDB_DATA_DIR"]


def _files_below(path: Path) -> list[Path]:
    """The file itself, or every file below a folder."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _run_id(name: str) -> str:
    """`name` without what W&B forbids in an id, at most 128 characters; its end, the digest, stays."""
    return re.sub(r"[^\w.-]+", "-", name)[-128:]


def _artifact_name(name: str) -> str:
    """`name` with W&B's characters only, at most 128 of them."""
    return re.sub(r"[^\w.-]+", "-", name)[:128]
