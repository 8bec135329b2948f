"""A model's index of shards: libraries load what it names, so it may name nothing but the folder's own safetensors."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.core.errors import DataError
from harness.model.load import weights_sha256

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": np.ones(2, "f4")}, folder / FIRST)
    save_file({"b": np.ones(2, "f4")}, folder / SECOND)
    save_file({"b": np.zeros(2, "f4")}, tmp_path / "other.safetensors")
    (folder / "config.json").write_text("{}")
    write_index(folder, {"a": FIRST, "b": SECOND})
    return folder


def write_index(folder: Path, shards: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def test_shards_are_taken(model: Path) -> None:
    digest = weights_sha256(model)
    save_file(
        {"layers.0.b": np.ones(2, "f4")}, model / "consolidated.safetensors"
    )  # other names, as Mistral writes them
    assert weights_sha256(model) != digest


@pytest.mark.parametrize("name", ["../other.safetensors", "/other.safetensors", "missing.safetensors", "b.bin", ""])
def test_an_index_that_names_a_file_elsewhere(model: Path, name: str) -> None:
    write_index(model, {"a": FIRST, "b": name})
    with pytest.raises(DataError, match=r"index\.json names .* which is no safetensors file of this folder"):
        weights_sha256(model)


def test_a_tensor_in_two_files_is_no_choice_of_the_index(model: Path) -> None:
    save_file({"b": np.zeros(2, "f4")}, model / "other.safetensors")
    with pytest.raises(DataError, match="both hold 'b'"):
        weights_sha256(model)


@pytest.mark.parametrize("shards", [[1], None, {"a": 1}, "x"])
def test_a_damaged_index(model: Path, shards: object) -> None:
    write_index(model, shards)
    with pytest.raises(DataError, match="weight_map does not give a file"):
        weights_sha256(model)


def test_a_tensor_that_its_file_does_not_hold(model: Path) -> None:
    write_index(model, {"a": FIRST, "b": FIRST})
    with pytest.raises(DataError, match="which it does not hold"):
        weights_sha256(model)
