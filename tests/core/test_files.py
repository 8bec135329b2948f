"""Files that others wrote: whatever lies there, reading ends at once, with a reason."""

import os
from pathlib import Path

import pytest

from harness.core.errors import DataError
from harness.core.files import read_json, read_text

DAMAGED = {
    "empty": b"",
    "cut": b'{"a": [1, ',
    "not text": b"\xff\xfe\x00",
    "bottomless": b"[" * 200_000,
    "a number without end": b"9" * 80_000,
}


@pytest.mark.parametrize("kind", list(DAMAGED))
def test_damaged_json_is_an_error_with_the_file_s_name(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(DAMAGED[kind])
    with pytest.raises(DataError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


def test_a_pipe_a_device_and_a_folder_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "device", "folder"):
        with pytest.raises(DataError, match="is not a regular file"):
            read_text(tmp_path / name)


def test_a_file_of_unreasonable_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(DataError, match="has 1024 MiB; at most 256 MiB are read"):
        read_text(tmp_path / "a")


def test_a_missing_file_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in ("none", "loop"):
        with pytest.raises(FileNotFoundError):
            read_text(tmp_path / name)
