"""Two processes train as one does: the same curve, the same weights, the same errors."""

import json
from pathlib import Path

import pytest
import tiny

from harness.errors import ConfigError, EnvironmentFault, TrainingFault
from harness.records import TrainingSummary
from harness.train.finetune import finetune
from harness.train.launch import accelerate_file, launch_command, raise_told

pytestmark = pytest.mark.integration
SETTINGS = ("train.sequences_per_step=2", "train.epochs=2.5", "train.learning_rate=1e-2", "model.dtype=float32")
TWO = ("launcher=accelerate", "num_processes=2")


def trained(base: Path, out: Path, *overrides: str) -> TrainingSummary:
    out.mkdir()
    return finetune(tiny.config(base, *SETTINGS, *overrides), base, tiny.rows(12), out)


def curve(folder: Path, key: str) -> list[float]:
    return [json.loads(line)[key] for line in (folder / "train.jsonl").read_text().splitlines()]


def test_the_same_curve_and_weights(tiny_base: Path, tmp_path: Path) -> None:
    """An odd number of sequences: the last step of one process is half empty."""
    import torch
    from safetensors.torch import load_file

    one = trained(tiny_base, tmp_path / "one")
    two = trained(tiny_base, tmp_path / "two", *TWO)
    assert (one.processes, two.processes, two.steps) == (1, 2, one.steps)
    assert one.order_sha256 == two.order_sha256
    for key in ("loss", "grad_norm", "loss/tiny", "learning_rate"):
        assert curve(tmp_path / "two", key) == pytest.approx(curve(tmp_path / "one", key), rel=1e-4), key
    left, right = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, atol=1e-4, rtol=1e-3)


def test_commands(tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    on_cpu = launch_command(tiny.config(Path("unused"), *TWO, "train.device=cpu"), job, 29500)
    assert on_cpu[1:5] == ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    own = launch_command(tiny.config(Path("unused"), *TWO, "accelerate_config=fsdp"), job, 29500)
    assert own[1:] == [
        "-m", "accelerate.commands.launch", "--config_file", str(accelerate_file("fsdp")), "--num_processes", "2",
        "-m", "harness.train.worker", str(job),
    ]  # fmt: skip


def test_accelerate_reads_the_shipped_file() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    shipped = load_config_from_file(str(accelerate_file("fsdp")))
    assert (shipped.distributed_type.value, shipped.mixed_precision) == ("FSDP", "bf16")
    with pytest.raises(ConfigError, match="accelerate_config: nowhere is no file, and none of: fsdp"):
        accelerate_file("nowhere")


def test_a_configuration_file_of_accelerate_decides(tiny_base: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nmixed_precision: 'no'\nnum_machines: 1\n"
        "num_processes: 1\nuse_cpu: true\nmachine_rank: 0\ndowncast_bf16: 'no'\nmain_training_function: main\n"
    )
    one = trained(tiny_base, tmp_path / "one")
    own = trained(tiny_base, tmp_path / "own", "launcher=accelerate", f"accelerate_config={path}")
    assert own.final_loss == pytest.approx(one.final_loss, rel=1e-5)


def test_a_workers_error_comes_back_as_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "error.json"
    path.write_text(json.dumps({"kind": "TrainingFault", "message": "the loss is nan at step 3"}))
    with pytest.raises(TrainingFault, match="the loss is nan at step 3"):
        raise_told(path, 3)
    with pytest.raises(EnvironmentFault, match="ended with code -9"):
        raise_told(tmp_path / "none.json", -9)
