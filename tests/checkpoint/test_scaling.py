"""One training gives the whole curve between base and trained model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny

from harness.checkpoint.origin import origin_of
from harness.checkpoint.resolve import locate
from harness.checkpoint.scaling import scale, split_alpha
from harness.core.errors import DataError, UsageError
from harness.model.load import load_model, with_adapter

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("name", "found"),
    [("RUN", ("RUN", 1.0)), ("RUN@0.25", ("RUN", 0.25)), ("a/b@1", ("a/b", 1.0)), ("x@y@0", ("x@y", 0.0))],
)
def test_names(name: str, found: tuple[str, float]) -> None:
    assert split_alpha(name) == found


@pytest.mark.parametrize("name", ["RUN@2", "RUN@-0.5", "RUN@half", "RUN@"])
def test_names_that_mean_no_alpha(name: str) -> None:
    with pytest.raises(UsageError, match=r"RUN@0\.5"):
        split_alpha(name)


def test_a_folder_with_such_a_name_is_itself(tmp_path: Path) -> None:
    (tmp_path / "run@2").mkdir()
    assert split_alpha(str(tmp_path / "run@2")) == (str(tmp_path / "run@2"), 1.0)


def weights(folder: Path, base: Path) -> dict[str, Any]:
    if (folder / "adapter_config.json").is_file():
        model = with_adapter(load_model(base, "float32"), folder, base).merge_and_unload()
    else:
        model = load_model(folder, "float32")
    return {name: p.detach().double() for name, p in model.named_parameters()}


@pytest.fixture(scope="module")
def full(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from harness.train.finetune import finetune

    folder = tmp_path_factory.mktemp("full")
    config = tiny.config(tiny_base, "train.method=full", "train.learning_rate=2e-3", "model.dtype=float32")
    finetune(config.training, tiny_base, tiny.rows(8), folder)
    return folder


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_every_weight_lies_between(
    tiny_base: Path, tiny_adapter: Path, full: Path, tmp_path: Path, alpha: float, kind: str
) -> None:
    import torch

    tuned = {"adapter": tiny_adapter, "full": full}[kind]
    scale(tuned, tiny_base, alpha, "float32", tmp_path)
    start, end, made = (weights(folder, tiny_base) for folder in (tiny_base, tuned, tmp_path))
    assert max(float((end[n] - start[n]).abs().max()) for n in start) > 1e-3
    for name, value in made.items():
        torch.testing.assert_close(value, start[name].lerp(end[name], alpha), atol=2e-6, rtol=0)
    numbers = json.loads((tmp_path / "numerics.json").read_text())
    assert numbers["candidate"]
    if kind == "full":  # the adapter's own were taken in bfloat16
        assert (numbers["candidate"] == json.loads((tuned / "numerics.json").read_text())["candidate"]) == (alpha == 1)


def test_a_name_with_alpha_is_made_once_and_knows_its_origin(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    config = tiny.config(tiny_base)
    folder, base = locate(f"{tiny_adapter}@0.5", config.model, Path(config.runs_dir))
    assert base == tiny_base
    assert origin_of(folder) == tiny_adapter
    assert origin_of(tiny_adapter) == tiny_adapter
    before = (folder / "adapter_model.safetensors").stat().st_mtime_ns
    assert locate(f"{tiny_adapter}@0.5", config.model, Path(config.runs_dir))[0] == folder
    assert (folder / "adapter_model.safetensors").stat().st_mtime_ns == before
    assert locate(f"{tiny_adapter}@1.0", config.model, Path(config.runs_dir))[0] == tiny_adapter


def test_a_copy_whose_run_is_gone_is_made_again_from_one_with_the_same_weights(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the data behind the weights would be unknown."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    first, second = (shutil.copytree(tiny_adapter, tmp_path / name) for name in ("first", "second"))
    config = tiny.config(tiny_base)
    folder, _ = locate(f"{first}@0.5", config.model, Path(config.runs_dir))
    assert origin_of(folder) == first
    shutil.rmtree(first)
    assert locate(f"{second}@0.5", config.model, Path(config.runs_dir))[0] == folder
    assert origin_of(folder) == second


def test_a_change_that_is_no_product_is_refused(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_adapter, tmp_path / "dora")
    path = tmp_path / "dora" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_dora": True}))
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="use_dora cannot be scaled"):
        scale(tmp_path / "dora", tiny_base, 0.5, "float32", tmp_path / "out")


def test_another_base_is_refused(full: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not the base model of this checkpoint"):
        scale(full, tiny_adapter, 0.5, "float32", tmp_path)
