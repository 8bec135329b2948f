"""A saved W&B view that puts the runs of an experiment beside each other (extra package `wandb-workspaces`).

Building it needs no network; saving does, and could not be tried against a server here.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

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
