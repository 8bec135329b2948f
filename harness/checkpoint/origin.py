"""Records which checkpoint another one was made from, by scaling it towards its base model or by merging."""

import json
import os
from pathlib import Path

from harness.core.errors import DataError, EvidenceFault
from harness.core.files import read_json
from harness.core.paths import relative_folder

ORIGIN = "origin.json"
TRAINED, SCALED = "trained", "scaled"  # folders beside a copied checkpoint/, for the checkpoints it was made from


def write_origin(folder: Path, source: Path, **settings: float) -> None:
    """Records in `folder` what it was made from, as a relative path, so that both can move together."""
    made_from = Path(os.path.relpath(source.resolve(), folder.resolve())).as_posix()
    (folder / ORIGIN).write_text(json.dumps({"made_from": made_from, **settings}) + "\n")


def origins(checkpoint: Path) -> tuple[Path, ...]:
    """The checkpoints that this one was made from, the trained one first; empty for a trained checkpoint.

    Raises EvidenceFault for an origin.json that is damaged, absolute or a link, or that leads back to the checkpoint. A
    file without `made_from` belongs to another tool and is ignored.
    """
    sources: list[Path] = []
    folder = checkpoint.resolve()
    while (source := _source(folder)) is not None:
        if source in (checkpoint.resolve(), *sources):
            raise EvidenceFault(f"{folder / ORIGIN} leads back to {source}: a checkpoint cannot be made from itself")
        sources.insert(0, source)
        folder = source
    return tuple(sources)


def _source(folder: Path) -> Path | None:
    path = folder / ORIGIN
    if not path.is_file():
        return None
    try:
        origin = read_json(path)
    except DataError as error:
        raise EvidenceFault(f"{error}: make the checkpoint again") from None
    if not isinstance(origin, dict) or "made_from" not in origin:
        return None
    if not isinstance(origin["made_from"], str):
        raise EvidenceFault(f"{path} is damaged (made_from is not a path): make the checkpoint again")
    source = relative_folder(folder, origin["made_from"], path)
    if source.is_dir():
        return source
    # the copy that the registry keeps beside the checkpoint made from it, if any
    names = {SCALED: (TRAINED,), TRAINED: ()}.get(folder.name, (SCALED, TRAINED))
    return next((kept for name in names if (kept := folder.with_name(name)).is_dir()), source)


def origins_are_here(checkpoint: Path) -> bool:
    """Whether all checkpoints that a cached copy was made from still exist."""
    return all(folder.is_dir() for folder in origins(checkpoint))


def origin_of(checkpoint: Path) -> Path:
    """The trained checkpoint that a checkpoint goes back to: itself, unless it was made from another."""
    return next(iter(origins(checkpoint)), checkpoint)
