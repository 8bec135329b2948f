"""What makes training fast on a CPU is used there alone, and training works without it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

import harness
from harness.records.base import load
from harness.records.stages import TrainingSummary
from harness.train.finetune import finetune

pytestmark = pytest.mark.integration
SETTINGS = ("model.dtype=float32", "train.learning_rate=1e-2", "train.parts_at_once=2", "train.epochs=2")
ALONE = """
import json, sys
from importlib.util import find_spec
from pathlib import Path

import tiny
import torch

import harness
from harness.train.finetune import finetune
from harness.train.plan import plan_training

torch.set_num_threads(1)
base, out, settings = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
assert find_spec("harness.train.cpu") is None, harness.__file__
config, rows = tiny.config(base, *settings).training, tiny.rows(16)
assert plan_training(config, base, rows[:12]).computed.parts_at_once == 1
finetune(config, base, rows[:12], out, validation=rows[12:])
"""


def curve(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "train.jsonl").read_text().splitlines()]


def trained(base: Path, out: Path, *overrides: str) -> TrainingSummary:
    out.mkdir()
    rows = tiny.rows(16)
    return finetune(tiny.config(base, *SETTINGS, *overrides).training, base, rows[:12], out, validation=rows[12:])


@pytest.fixture(scope="module")
def accelerated(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("accelerated") / "out"
    assert trained(tiny_base, out).parts_at_once == 2
    return out


def test_without_the_folder_training_ends_as_it_does_with_it(
    tiny_base: Path, tmp_path: Path, accelerated: Path
) -> None:
    package, out = tmp_path / "harness", tmp_path / "out"
    source = Path(harness.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(package / "train" / "cpu")
    for name in ("conf", "data", "tasks"):
        (tmp_path / name).symlink_to(source.parent / name)
    out.mkdir()
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(tiny.__file__).parent}"}
    command = [sys.executable, "-c", ALONE, str(tiny_base), str(out), *SETTINGS]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(curve(out)) > 2
    assert curve(out) == pytest.approx(curve(accelerated), rel=1e-4)
    plain, fast = (load(TrainingSummary, folder / "training.json") for folder in (out, accelerated))
    assert plain.parts_at_once == 1
    assert plain.order_sha256 == fast.order_sha256
    assert plain.base_validation_loss == pytest.approx(fast.base_validation_loss, rel=1e-5)
    assert plain.validation_loss == pytest.approx(fast.validation_loss, rel=1e-3)
    assert {path.name for path in out.iterdir()} == {path.name for path in accelerated.iterdir()}


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_model_on_a_gpu_has_layers_of_transformers_and_peft_alone(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, method: str
) -> None:
    """There is no GPU here: the one decision says that there is, and everything after it runs as it would there."""
    from harness.train.trainer import PackedTrainer

    ours: set[str] = set()
    attention: set[str] = set()
    usual = PackedTrainer.compute_loss

    def compute_loss(self: Any, model: Any, *arguments: Any, **named: Any) -> Any:
        kinds = {kind for module in model.modules() for kind in type(module).__mro__}
        ours.update(kind.__name__ for kind in kinds if kind.__module__.startswith("harness."))
        attention.add(model.config._attn_implementation)
        return usual(self, model, *arguments, **named)

    monkeypatch.setattr(PackedTrainer, "compute_loss", compute_loss)
    monkeypatch.setattr("harness.train.fit.device_of", lambda _: device)
    out = tmp_path / "out"
    out.mkdir()
    summary = finetune(
        tiny.config(tiny_base, *SETTINGS, f"train.method={method}").training, tiny_base, tiny.rows(12), out
    )
    if device == "cuda":
        assert (ours, attention, summary.parts_at_once) == (set(), {"sdpa"}, 1)
    else:  # the control: what would be found
        assert ours >= ({"FrozenNorm", "LoraLinear"} if method == "lora" else set())
        assert attention == {"packed_rows"}
