"""What a checkpoint was made from: read from its origin.json, also in a copy, and never a traceback."""

from pathlib import Path

import pytest

from harness.checkpoint.origin import ORIGIN, origin_of, origins, write_origin
from harness.core.errors import EvidenceFault


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "checkpoint").mkdir()
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("foreign", ['{"hub": "owner/model"}', "[]", "7", "null"])
def test_another_tool_s_file_says_nothing(foreign: str, checkpoint: Path) -> None:
    (checkpoint / ORIGIN).write_text(foreign)
    assert (origins(checkpoint), origin_of(checkpoint)) == ((), checkpoint)


@pytest.mark.parametrize("broken", [b"{", b"", b"\xff", b'{"made_from": 5}', b'{"made_from": "."}'])
def test_a_broken_file_is_a_fault(broken: bytes, checkpoint: Path) -> None:
    (checkpoint / ORIGIN).write_bytes(broken)
    with pytest.raises(EvidenceFault, match=ORIGIN):
        origins(checkpoint)


def test_two_that_were_made_of_each_other(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write_origin(checkpoint, tmp_path / "other")
    write_origin(tmp_path / "other", checkpoint)
    with pytest.raises(EvidenceFault, match="leads back"):
        origins(checkpoint)


def test_a_copy_leads_to_the_source_beside_it(checkpoint: Path, tmp_path: Path) -> None:
    """Merged, scaled and trained, as the registry keeps them: their sources are gone."""
    for name, source in (("checkpoint", "gone/scaled/model"), ("scaled", "gone/run/checkpoint"), ("trained", "")):
        (tmp_path / name).mkdir(exist_ok=True)
        if source:
            write_origin(tmp_path / name, tmp_path / source)
    assert origins(checkpoint) == (tmp_path / "trained", tmp_path / "scaled")
