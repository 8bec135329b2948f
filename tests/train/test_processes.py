"""Two processes train as one does: the same curve, the same weights, the same errors."""

import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny

from harness.core.errors import ConfigError, DiskFull, EnvironmentFault, TrainingFault
from harness.records.base import load
from harness.records.stages import EvaluatedCheckpoint, TrainingSummary
from harness.train.finetune import finetune
from harness.train.launch import _run, accelerate_file, launch_command, raise_worker_error
from harness.train.progress import Interruption, SavedProgress
from harness.train.worker import _write_error

pytestmark = pytest.mark.integration
SETTINGS = (
    "train.sequences_per_step=2",
    "train.epochs=10.5",
    "train.learning_rate=1e-3",
    "train.save_every=5",
    "train.kl_to_base=1",
    "data.sources={tiny: {path: a.jsonl, role: replay}}",
    "model.dtype=float32",
)
WEIGHTS = "adapter_model.safetensors"
TWO = ("launcher=accelerate", "num_processes=2")


def trained(base: Path, out: Path, *overrides: str) -> TrainingSummary:
    out.mkdir()
    return finetune(tiny.config(base, *SETTINGS, *overrides).training, base, tiny.rows(12), out)


def curve(folder: Path, key: str) -> list[float]:
    return [json.loads(line)[key] for line in (folder / "train.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def two(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two") / "out"
    assert trained(tiny_base, out, *TWO).processes == 2
    return out


def test_the_same_curve_and_weights(tiny_base: Path, tmp_path: Path, two: Path) -> None:
    """An odd number of sequences: the last step of one process is half empty. A penalty is that of both."""
    import torch
    from safetensors.torch import load_file

    one = trained(tiny_base, tmp_path / "one")
    both = load(TrainingSummary, two / "training.json")
    assert (one.processes, both.steps) == (1, one.steps)
    assert one.order_sha256 == both.order_sha256
    for key in ("loss", "grad_norm", "loss/tiny", "learning_rate"):
        assert curve(two, key) == pytest.approx(curve(tmp_path / "one", key), rel=1e-4), key
    assert curve(two, "kl_to_base") == pytest.approx(curve(tmp_path / "one", "kl_to_base"), rel=1e-2, abs=1e-6)
    left, right = (load_file(folder / WEIGHTS) for folder in (tmp_path / "one", two))
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, atol=1e-4, rtol=1e-3)


def test_checkpoints_are_examined_between_launches(tiny_base: Path, tmp_path: Path) -> None:
    examine = ("train.eval_every=10", "train.epochs=3", "train.sequences_per_step=1")
    curves: list[list[float]] = []
    kept: list[list[Any]] = []
    for name, launcher in (("one", ()), ("launched", ("launcher=accelerate",))):
        out = tmp_path / name
        out.mkdir()
        found = finetune(
            tiny.config(tiny_base, *SETTINGS, *examine, *launcher).training,
            tiny_base,
            tiny.rows(12),
            out,
            tmp_path / f"{name}-progress",
            {},
            judge,
        )
        curves.append(curve(out, "loss"))
        kept.append([found.kept_step, [examined.step for examined in found.examined], found.resumed_at])
    steps = len(curves[0])
    assert kept[0] == kept[1] == [10, [10, steps], []]
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)


def judge(step: int, folder: Path) -> EvaluatedCheckpoint:
    assert (folder / WEIGHTS).is_file()
    return EvaluatedCheckpoint(step=step, slack=0.05, target=float(step == 10), verdict="PASS", failed_guards=[])


def killed_at(step: int, base: Path, out: Path, progress: Path) -> None:
    """Two processes, whose parent is killed once they have come so far."""

    def watch() -> None:
        while len(SavedProgress(progress).curve()) < step:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    out.mkdir()
    threading.Thread(target=watch, daemon=True).start()
    finetune(tiny.config(base, *SETTINGS, *TWO).training, base, tiny.rows(12), out, progress, {"data": "d"})


def test_killed_it_goes_on_to_the_same_bits(tiny_base: Path, tmp_path: Path, two: Path) -> None:
    progress, out = tmp_path / "progress", tmp_path / "out"
    assert tiny.exit_code(killed_at, 8, tiny_base, tmp_path / "killed", progress) == -signal.SIGKILL
    out.mkdir()
    summary = finetune(
        tiny.config(tiny_base, *SETTINGS, *TWO).training, tiny_base, tiny.rows(12), out, progress, {"data": "d"}
    )
    assert 5 <= summary.resumed_at[0] < summary.steps
    assert curve(out, "loss") == curve(two, "loss")
    assert (out / WEIGHTS).read_bytes() == (two / WEIGHTS).read_bytes()


def test_processes_are_told_to_stop_by_a_file(tmp_path: Path) -> None:
    """A signal would reach torchrun, which kills what has not ended after 30 s: a step may take longer."""
    stop = tmp_path / "stop"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(stop)!r}).exists(): time.sleep(0.01)\nexit(3)"
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(KeyboardInterrupt):
        _run([sys.executable, "-c", waits], 1, stop)
    assert stop.is_file()


def test_a_process_of_an_earlier_start_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = SavedProgress(tmp_path)
    progress.open({})
    with ThreadPoolExecutor() as pool, progress.in_use():
        second = pool.submit(SavedProgress(tmp_path).open, {})
        while "waiting for a process of an earlier start" not in capsys.readouterr().err:
            time.sleep(0.01)
        assert not second.done()
    second.result()


def test_what_processes_tell_each_other_is_where_their_backend_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL speaks between GPUs only: a tensor of the CPU would end training after its first step."""
    import torch

    seen: list[str] = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flag: seen.append(flag.device.type))
    from harness.train.callbacks import CheckpointSaving

    saving = CheckpointSaving(tiny.config(Path("unused"), *TWO).training, 10, Interruption())
    with pytest.raises(RuntimeError, match="meta"):  # stands in for a GPU here, and holds no value
        saving._stop_requested(torch.device("meta"))
    assert seen == ["meta"]


def test_the_first_error_of_any_process_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "error.json"
    _write_error(TrainingFault("out of memory at step 3"), path)
    _write_error(TrainingFault("another process went away"), path)
    with pytest.raises(TrainingFault, match="out of memory at step 3"):
        raise_worker_error(path, 1)
    _write_error(DiskFull("no space left"), tmp_path / "nowhere" / "error.json")
    assert "harness: no space left" in capsys.readouterr().err


def test_commands(tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    on_cpu = launch_command(tiny.config(Path("unused"), *TWO, "train.device=cpu").training, job, 29500)
    assert on_cpu[1:5] == ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    own = launch_command(tiny.config(Path("unused"), *TWO, "accelerate_config=fsdp").training, job, 29500)
    assert own[1:] == [
        "-m", "accelerate.commands.launch", "--config_file", str(accelerate_file("fsdp")), "--num_processes", "2",
        "-m", "harness.train.worker", str(job),
    ]  # fmt: skip


def test_accelerate_reads_the_shipped_file_and_no_other_is_taken_for_one(tmp_path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    shipped = load_config_from_file(str(accelerate_file("fsdp")))
    assert (shipped.distributed_type.value, shipped.mixed_precision) == ("FSDP", "bf16")
    with pytest.raises(ConfigError, match=r"nowhere is neither a file nor a shipped configuration \(fsdp\)"):
        accelerate_file("nowhere")
    for name, text, told in (("broken", "a: [", "while parsing"), ("empty", "", "contains no settings")):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError, match=rf"{path}.*{told}"):
            accelerate_file(str(path))


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
        raise_worker_error(path, 3)
    with pytest.raises(EnvironmentFault, match="ended with code -9"):
        raise_worker_error(tmp_path / "none.json", -9)
