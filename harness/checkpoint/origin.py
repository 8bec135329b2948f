"""Where a checkpoint comes from that was made of another one: scaled towards its base model, or merged into it."""

import json
import os
from pathlib import Path

from harness.core.errors import EvidenceFault

ORIGIN = "origin.json"
TRAINED, SCALED = "trained", "scaled"  # where a copy keeps what its checkpoint/ was made of, beside it


def write_origin(folder: Path, source: Path, **settings: float) -> None:
    """Notes in `folder` what it is made of: as seen from there, so that both can move together."""
    made_from = Path(os.path.relpath(source.resolve(), folder.resolve())).as_posix()
    (folder / ORIGIN).write_text(json.dumps({"made_from": made_from, **settings}) + "\n")


def origins(checkpoint: Path) -> tuple[Path, ...]:
    """The checkpoints that this one was made of, the trained one first; none for one that was trained itself.

    Raises EvidenceFault for an origin.json that is no JSON, or that leads back to the checkpoint itself. One without
    `made_from` is another tool's file, and says nothing.
    """
    found: list[Path] = []
    folder = checkpoint.resolve()
    while (source := _source(folder)) is not None:
        if source in (checkpoint.resolve(), *found):
            raise EvidenceFault(f"{folder / ORIGIN} leads back to {source}: no checkpoint is made of itself")
        found.insert(0, source)
        folder = source
    return tuple(found)


def _source(folder: Path) -> Path | None:
    path = folder / ORIGIN
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text())
    except ValueError as error:
        raise EvidenceFault(f"{path} is damaged ({error}): make the checkpoint again") from None
    if not isinstance(told, dict) or "made_from" not in told:
        return None
    if not isinstance(told["made_from"], str):
        raise EvidenceFault(f"{path} is damaged (made_from is no path): make the checkpoint again")
    return _beside(folder, (folder / told["made_from"]).resolve())


def _beside(folder: Path, source: Path) -> Path:
    """The named source; where it is gone, the copy that the registry keeps beside what was made of it, if any."""
    if source.is_dir():
        return source
    names = {SCALED: (TRAINED,), TRAINED: ()}.get(folder.name, (SCALED, TRAINED))
    return next((kept for name in names if (kept := folder.with_name(name)).is_dir()), source)


def origins_are_here(checkpoint: Path) -> bool:
    """Whether a copy in a cache still leads to the run it was made of."""
    return all(folder.is_dir() for folder in origins(checkpoint))


def origin_of(checkpoint: Path) -> Path:
    """The trained checkpoint behind one: itself, for one that was made of no other."""
    return next(iter(origins(checkpoint)), checkpoint)
