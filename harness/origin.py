"""Where a checkpoint comes from that was made of another one: scaled towards its base model, or merged into it."""

import json
import os
from pathlib import Path

ORIGIN = "origin.json"


def write_origin(folder: Path, source: Path, **settings: float) -> None:
    """Notes in `folder` what it is made of: as seen from there, so that both can move together."""
    made_from = Path(os.path.relpath(source.resolve(), folder.resolve())).as_posix()
    (folder / ORIGIN).write_text(json.dumps({"made_from": made_from, **settings}) + "\n")


def origins(checkpoint: Path) -> tuple[Path, ...]:
    """The checkpoints that this one was made of, the trained one first; none for one that was trained itself."""
    path = checkpoint / ORIGIN
    if not path.is_file():
        return ()
    source = (checkpoint.resolve() / json.loads(path.read_text())["made_from"]).resolve()
    return (*origins(source), source)


def origins_are_here(checkpoint: Path) -> bool:
    """Whether a copy in a cache still leads to the run it was made of."""
    return all(folder.is_dir() for folder in origins(checkpoint))


def origin_of(checkpoint: Path) -> Path:
    """The trained checkpoint behind one: itself, for one that was made of no other."""
    return next(iter(origins(checkpoint)), checkpoint)
