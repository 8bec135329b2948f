"""Aliases. Wherever a checkpoint, run or evaluation is named, `production` means the model it points to."""

import os
from collections.abc import Sequence
from pathlib import Path

from harness.checkpoint.history import HISTORY, HistoryEntry, current_of, read_history
from harness.core.errors import UsageError, nearest
from harness.core.paths import inside

MODELS = "models"
PRODUCTION = "production"  # the alias of every verb that is given no other


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
    return name if current is None else str(model_folder(registry, current))


def model_folder(registry: Path, entry: HistoryEntry) -> Path:
    """The folder of an entry's model. Raises EvidenceFault where the entry names a folder elsewhere."""
    return inside(registry / MODELS, entry.model, registry / HISTORY)


def require_promoted(name: str, registry: Path) -> None:
    """Raises UsageError with the first steps where `name` is an alias that points to no model yet."""
    entries = read_history(registry)
    if name in {PRODUCTION, *(entry.alias for entry in entries)} and current_of(entries, name) is None:
        raise UsageError(nothing_promoted(name, registry))


def require_alias(registry: Path, entries: Sequence[HistoryEntry], alias: str) -> None:
    """Raises UsageError with the line to type where the registry, or this alias in it, was never made."""
    known = {entry.alias for entry in entries}
    if alias in known:
        return
    option = "" if alias == PRODUCTION else f" --alias {alias}"
    make = f"Make it once, on purpose: harness registry init{option} --registry {registry}"
    if not known:
        raise UsageError(
            f"There is no registry at {registry} (--registry, $HARNESS_REGISTRY or beside the runs). {make}"
        )
    raise UsageError(f"The registry {registry} has no alias {alias}. {nearest(alias, known)} {make}")


def nothing_promoted(alias: str, registry: Path) -> str:
    """The message for an alias that points to no model yet."""
    option = "" if alias == PRODUCTION else f" --alias {alias}"
    return (
        f"Nothing has been promoted as {alias} (registry: {registry}). "
        f"First: harness registry init{option}, harness ci RUN --against base, then harness promote RUN{option}."
    )
