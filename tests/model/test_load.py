"""Models as folders: digests of weights that follow the files, and errors that say what a folder lacks."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.numpy import save_file

from harness.config.experiment import ModelConfig
from harness.core.errors import DataError, DiskFull, NetworkFault, OutOfMemory
from harness.core.store import sha256_file, sha256_folder, sha256_json
from harness.model import load
from harness.model.load import adapter_config, load_model, load_tokenizer, local_model, weights_sha256


def weights(folder: Path, value: float, name: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    save_file({"w": np.full(8, value, np.float32)}, folder / name)
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content is read for a digest, in order; no file is too fresh to be kept."""
    read: list[str] = []
    digest = sha256_file

    def counted(path: Path) -> str:
        read.append(path.name)
        return digest(path)

    monkeypatch.setattr(load, "sha256_file", counted)
    monkeypatch.setattr(load, "FRESH_S", -1e9)
    load._digest_as_of.cache_clear()
    return read


def test_the_digest_is_of_names_weights_and_settings(tmp_path: Path) -> None:
    folder = weights(tmp_path / "m", 1)
    expected = [sha256_folder(folder, "*.safetensors"), None, None]
    assert weights_sha256(folder) == sha256_json(expected)
    (folder / "config.json").write_text(json.dumps({"layers": 2, "_name_or_path": "here"}))
    assert weights_sha256(folder) == sha256_json([*expected[:2], {"layers": 2}])
    with pytest.raises(DataError, match=r"contains no \*\.safetensors"):
        weights_sha256(tmp_path)
    with pytest.raises(DataError, match=f"^{tmp_path / 'absent'} does not exist$"):
        weights_sha256(tmp_path / "absent")
    with pytest.raises(DataError, match=f"^{folder / 'config.json'} is not a folder$"):
        weights_sha256(folder / "config.json")


def test_unchanged_weights_are_read_once(tmp_path: Path, reads: list[str]) -> None:
    folder = weights(weights(tmp_path / "m", 1), 2, "more.safetensors")
    assert len({weights_sha256(folder) for _ in range(3)}) == 1
    assert reads == ["model.safetensors", "more.safetensors"]
    weights(folder, 3, "more.safetensors")
    weights_sha256(folder)
    assert reads == ["model.safetensors", "more.safetensors", "more.safetensors"]


def test_weights_that_change_have_another_digest(tmp_path: Path, reads: list[str]) -> None:
    """Of the same size, whatever time they claim to be of, and also when the file or the folder is put in place."""
    folder = weights(tmp_path / "m", 1)
    file = folder / "model.safetensors"
    first, before = weights_sha256(folder), file.stat()
    time.sleep(0.05)  # clocks of file systems are coarse
    weights(folder, 2)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = weights_sha256(folder)
    other = weights(tmp_path / "other", 3)
    os.utime(other / file.name, ns=(before.st_atime_ns, before.st_mtime_ns))
    (other / file.name).replace(file)
    third = weights_sha256(folder)
    shutil.rmtree(folder)
    weights(tmp_path / "fourth", 4).rename(folder)
    assert len({first, second, third, weights_sha256(folder)}) == 4
    weights(folder, 1)
    assert weights_sha256(folder) == first


def test_weights_that_change_within_a_tick_of_the_clock_have_another_digest(tmp_path: Path) -> None:
    digests = [weights_sha256(weights(tmp_path / "m", value)) for value in range(200)]
    assert len(set(digests)) == 200


@pytest.mark.parametrize("damage", ["truncated", "no json", "empty"])
def test_a_damaged_model_is_named(tiny_base: Path, tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "m")
    file = next(folder.glob("*.safetensors"))
    if damage == "no json":
        (folder / "config.json").write_text("{")
    else:
        file.write_bytes(file.read_bytes()[: 100 if damage == "truncated" else 0])
    with pytest.raises(DataError, match=f"the model in {folder} is damaged or cannot be loaded"):
        load_model(folder, "float32")


def test_a_full_disk_or_memory_is_no_fault_of_the_model(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def failing(error: Exception) -> Any:
        def from_pretrained(*_: Any, **__: Any) -> None:
            raise error

        return from_pretrained

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", failing(RuntimeError("CUDA out of memory. Tried")))
    with pytest.raises(OutOfMemory, match=r"cannot load the model in .*: CUDA out of memory"):
        load_model(tiny_base, "float32")
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", failing(OSError(28, "No space left on device")))
    with pytest.raises(DiskFull, match=r"cannot load the tokenizer of .*No space left on device"):
        load_tokenizer(tiny_base)


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (LocalEntryNotFoundError("outgoing traffic has been disabled"), NetworkFault, "is not in its cache"),
        (httpx.ConnectError("no route to host"), NetworkFault, r"\(no route to host\)"),
        (OSError("host unreachable"), NetworkFault, r"\(host unreachable\)"),
        (OSError(28, "No space left on device"), DiskFull, "cannot fetch the model owner/name"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_a_model_that_cannot_be_fetched_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], told: str
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(kind, match=rf"{told}.*\. Download it .* model\.path=<folder>\."):
        local_model(ModelConfig(path="owner/name"))


def test_a_name_that_no_model_can_have_is_no_matter_of_the_network() -> None:
    with pytest.raises(DataError, match="cannot fetch the model owner/na me from the hub"):
        local_model(ModelConfig(path="owner/na me"))


def test_a_damaged_adapter_configuration_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(DataError, match=r"adapter_config\.json is damaged: r is None"):
        adapter_config(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"r": 8, "peft_type": "IA3"}')
    with pytest.raises(DataError, match="peft_type IA3 cannot be served"):
        adapter_config(tmp_path)
