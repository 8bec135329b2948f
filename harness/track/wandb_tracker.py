"""Tracks each stage as one W&B run. Offline, it writes only to the run folder; `wandb sync` uploads that later."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.config.experiment import TrackerConfig
from harness.track.tracker import Artifact, Tracker

INIT_TIMEOUT_S = 30.0
FINISH_TIMEOUT_S = 300.0
PANELS_SHOWN = 40  # metrics of a saved view
LONGEST = 128  # characters of a name or id
OF_ONE_RUN = (
    "WANDB_RUN_ID",
    "WANDB_NAME",
    "WANDB_RUN_GROUP",
    "WANDB_JOB_TYPE",
    "WANDB_RESUME",
    "WANDB_SWEEP_ID",
    "WANDB_SWEEP_PARAM_PATH",
)
AGENTS_STAGE = "gate"  # the stage that reports to the run which `wandb agent` made: it has every metric


def comparison_view(entity: str, project: str, group: str, keys: Sequence[str]) -> Any:
    """A view of an experiment: each `suite/task/metric` of `keys` as bars over runs, their changes, and the loss curve.

    Needs the package `wandb-workspaces`. Saving the view needs a server; that has not been tried.
    """
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


class WandbTracker(Tracker):
    """A W&B run for one stage. Failures raise wandb's own exceptions; SafeTracker catches them.

    The files stay in `folder`: an offline run refers to them by absolute path.
    """

    def __init__(
        self, config: TrackerConfig, *, folder: Path, group: str, stage: str, run_name: str, settings: dict[str, object]
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self._staging = folder.resolve() / "wandb"
        mode: Any = "offline" if kept_offline() else config.mode
        with _own_runs() as named:
            import wandb

            agent = named if stage == AGENTS_STAGE else {}
            self._run: Any = wandb.init(
                project=shortened(agent.get("WANDB_PROJECT") or config.project),
                group=shortened(group),
                job_type=stage,
                id=agent.get("WANDB_RUN_ID") or artifact_name(run_name),
                resume="allow" if mode == "online" else None,
                name=shortened(run_name),
                mode=mode,
                dir=folder,
                config=settings,
                settings=_wandb_settings(agent.get("WANDB_SWEEP_ID")),
            )
        self._first_step = int(self._run.starting_step)

    def metrics(self, values: dict[str, float], step: int) -> None:
        """A continued run keeps the steps it has, since W&B accepts each step once."""
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
        """Only online: views live on the server. docs/wandb.md says how to make one by hand."""
        if not self._run.offline and find_spec("wandb_workspaces") is not None:
            comparison_view(self._run.entity, self._run.project, self._run.group, keys).save()

    def finish(self, exit_code: int) -> None:
        self._run.finish(exit_code=exit_code)

    def _use(self, used: Artifact) -> None:
        """Declares an input. Built again from the same files, it has the digest of the version on the server.

        `use_artifact` cannot be called offline. The call below records the same: the sync then declares the use, and
        uploads the artifact where the server lacks it.
        """
        with _staged_in(self._staging):
            if self._run.offline:
                self._run._log_artifact(_draft(used), aliases=[], is_user_created=True, use_after_commit=True)
            else:
                self._run.use_artifact(_draft(used))


def _draft(made: Artifact) -> Any:
    """The W&B artifact. The same files under the same names always have the same digest there."""
    import wandb

    inputs = [artifact_name(used.name) for used in made.inputs]
    metadata = {"sha256": made.sha256, "inputs": inputs, **made.digests}
    artifact = wandb.Artifact(artifact_name(made.name), type=made.kind, metadata=metadata)
    root = made.path.resolve()
    for file in _files_below(root):
        inside = file.name if root.is_file() else file.relative_to(root).as_posix()
        # A complete run folder never changes, so W&B needs no copy in its staging folder or cache.
        artifact.add_file(str(file), name=inside, policy="immutable", skip_cache=True)
    return artifact


def problem_with_key() -> str:
    """What is wrong with the key for W&B's server (environment or netrc), found without a prompt; '' if nothing is."""
    with _own_runs():
        import wandb
        from wandb.errors import AuthenticationError, UsageError
        from wandb.sdk.lib import wbauth

        try:
            host = wandb.setup().settings.base_url
            found = wbauth.authenticate_session(host=host, source="harness", prompt=False, update_session=False)
        except (AuthenticationError, UsageError) as error:
            return f"the key that was found is not one: {' '.join(str(error).split())[:300]}".rstrip(".")
        return "" if found is not None else "there is none"


def logged_in() -> bool:
    """Whether wandb finds a usable key for its server."""
    return not problem_with_key()


@contextmanager
def _own_runs() -> Iterator[dict[str, str]]:
    """Hides from W&B the environment variables that give one name, id or sweep to every W&B run of a process.

    Yields the hidden ones. A harness run has one W&B run per stage; `wandb agent` sets these for one run.
    """
    hidden = {name: os.environ.pop(name) for name in OF_ONE_RUN if name in os.environ}
    try:
        yield hidden | {name: os.environ[name] for name in ("WANDB_PROJECT",) if name in os.environ and hidden}
    finally:
        os.environ.update(hidden)


def _wandb_settings(sweep: str | None) -> Any:
    """Settings for a silent run that sends nothing about this machine, its code or its command line."""
    import wandb

    return wandb.Settings(
        host="-",  # the default is this machine's name
        sweep_id=sweep,
        silent=True,
        reinit="create_new",  # never reuse the run of another stage, or of a caller
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
    """Keeps W&B's copies of tables in the run folder, not in the user's home; WANDB_DATA_DIR takes precedence."""
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


def artifact_name(name: str) -> str:
    """`name` as the name of a W&B artifact or id of a W&B run: allowed characters only, at most LONGEST of them."""
    return shortened(re.sub(r"[^\w.-]+", "-", name))


def shortened(name: str) -> str:
    """`name`, or its beginning and a digest of it all where W&B would refuse it for its length."""
    if len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: LONGEST - 9]}-{digest}"


def kept_offline() -> bool:
    """Whether the environment keeps W&B from sending anything, whatever tracker.mode says."""
    return os.environ.get("WANDB_MODE", "").lower() in ("offline", "dryrun")


def switched_off() -> bool:
    """Whether the environment turns W&B off, as `WANDB_MODE=disabled` does for every program that uses it."""
    disabled = os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes")
    return disabled or os.environ.get("WANDB_MODE", "").lower() == "disabled"
