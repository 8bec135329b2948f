"""Training in several processes, started by accelerate or torchrun."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from harness.config.experiment import TrainingConfig, read_yaml
from harness.core.errors import ConfigError, EnvironmentFault
from harness.core.processes import LOOPBACK, dies_with_parent, reserved_port
from harness.train.device import device_of
from harness.train.packing import TrainingBatches
from harness.train.progress import STOP, SavedProgress

JOB, BATCHES, ERROR = "job.json", "material.json", "error.json"
_POLL_S = 0.2


def launch(
    config: TrainingConfig, base: Path, batches: TrainingBatches, saved: SavedProgress, resume: Path | None, out: Path
) -> None:
    """Runs `fit` in config.num_processes processes; raises its errors, and EnvironmentFault when a process dies."""
    batches.save(saved.folder / BATCHES)
    job = {"base": str(base), "progress": str(saved.folder), "resume": resume and str(resume), "out": str(out)}
    path = saved.folder / JOB
    path.write_text(json.dumps({"config": config.model_dump(), **job}))
    for name in (ERROR, STOP):
        (saved.folder / name).unlink(missing_ok=True)
    with reserved_port() as port:
        code = _run(launch_command(config, path, port), config.num_processes, saved.folder / STOP)
    with saved.in_use():  # processes that accelerate started may outlive it
        pass
    if code:
        raise_worker_error(saved.folder / ERROR, code)


def launch_command(config: TrainingConfig, job: Path, port: int) -> list[str]:
    """The command that starts the workers: accelerate on GPUs or with its configuration file, torchrun on the CPU.

    `port` is where torchrun's processes meet.
    """
    count = str(config.num_processes)
    worker = ["-m", "harness.train.worker", str(job)]
    if config.accelerate_config is None and device_of(config.train) == "cpu":
        where = ["--nnodes", "1", "--master-addr", LOOPBACK, "--master-port", str(port)]
        return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", count, *where, *worker]
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    if config.accelerate_config is not None:
        file = str(accelerate_file(config.accelerate_config))
        return [*command, "--config_file", file, "--num_processes", count, *worker]
    multi = ["--multi_gpu"] if config.num_processes > 1 else []
    shape = ["--num_processes", count, "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    return [*command, *multi, *shape, *worker]


def accelerate_file(name: str) -> Path:
    """An accelerate configuration file: a shipped one by name, or a path. Raises ConfigError for anything else."""
    shipped = {path.stem: path for path in (Path(__file__).parent / "accelerate").glob("*.yaml")}
    path = shipped.get(name, Path(name))
    if not path.is_file():
        raise ConfigError(
            [f"accelerate_config: {name} is neither a file nor a shipped configuration ({', '.join(shipped)})"]
        )
    settings = read_yaml(path)
    if not settings or not isinstance(settings, dict):
        raise ConfigError([f"accelerate_config: {path} contains no settings"])
    return path


def _run(command: list[str], processes: int, stop: Path) -> int:
    """Runs the command and returns its exit code; on SIGTERM and Ctrl-C the file `stop` makes the workers save first.

    The first signal is not passed on: torchrun would kill its processes after 30 s, accelerate at once. A second one
    is.
    """
    from harness.train.progress import Interruption

    interruption = Interruption()
    with interruption.handling_signals():
        process = subprocess.Popen(  # noqa: S603
            command,
            env=_environment(processes),
            start_new_session=True,
            preexec_fn=dies_with_parent(),
            stdin=subprocess.DEVNULL,
        )
        try:
            while (code := process.poll()) is None:
                if interruption.requested:
                    stop.touch()
                time.sleep(_POLL_S)
        except KeyboardInterrupt:
            process.terminate()
            raise
    if interruption.requested:
        raise KeyboardInterrupt
    return code


def raise_worker_error(path: Path, code: int) -> None:
    """Raises the error that a worker wrote to `path`, by its class; EnvironmentFault if there is none."""
    from harness.core import errors

    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        raise EnvironmentFault(f"a training process ended with code {code}; see its output above") from None
    kind = getattr(errors, found["kind"])
    error = kind.__new__(kind, found["message"])
    raise error


def _environment(processes: int) -> dict[str, str]:
    """The workers' environment: each gets its share of the cores."""
    from harness.core.machine import cores

    return {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(max(1, cores() // processes))}
