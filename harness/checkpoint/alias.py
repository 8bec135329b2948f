"""Resolves an alias, such as `production`, to the folder that the registry keeps for it."""

import os
from pathlib import Path

from harness.checkpoint.history import current_of, read_history

MODELS = "models"
PRODUCTION = "production"  # the alias that verbs use by default


def registry_folder(runs_dir: Path | str, path: Path | str | None = None) -> Path:
    """The registry's folder: `path` (registry.path), else $HARNESS_REGISTRY, else `registry` beside the runs."""
    chosen = path or os.environ.get("HARNESS_REGISTRY")
    return Path(chosen).expanduser().resolve() if chosen else Path(runs_dir).resolve().parent / "registry"


def resolved(name: str, registry: Path) -> str:
    """The folder of the model that an alias points to; any other name unchanged.

    An alias takes precedence over a folder of the same name (./production is the folder). Raises EvidenceFault when
    the registry's history was edited.
    """
    current = current_of(read_history(registry), name)
    return name if current is None else str(registry / MODELS / current.model)
