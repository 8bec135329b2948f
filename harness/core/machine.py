"""Facts about this machine: processor, cores, memory, GPUs."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import psutil


def hardware() -> dict[str, str]:
    """Architecture, processor, usable cores, memory (GiB) and GPU names; unknown facts are left out."""
    found = {
        "machine": platform.machine(),
        "processor": processor(),
        "cores": str(cores()),
        "memory_gib": f"{memory_gib():.1f}",
        "gpus": ", ".join(gpus()),
    }
    return {name: value for name, value in found.items() if value}


def cores() -> int:
    """Number of cores that this process may use."""
    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1


def memory_gib() -> float:
    """The machine's memory in GiB."""
    return float(psutil.virtual_memory().total) / 2**30


def available_memory_gib() -> float:
    """Memory available to new processes in GiB: unused memory and what the kernel can reclaim, such as cached files."""
    return float(psutil.virtual_memory().available) / 2**30


def processor() -> str:
    """The processor's model name. On Linux `platform.processor()` is mostly empty, so /proc/cpuinfo comes first."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def gpus(fields: str = "name") -> list[str]:
    """One line for each NVIDIA GPU, from nvidia-smi: importing PyTorch would take too long.

    `fields` are those of `nvidia-smi --query-gpu`, for example "name,memory.total". Empty without a GPU or a working
    driver.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def peak_memory_gib() -> float:
    """Peak memory of this process in GiB: on the GPU if PyTorch uses one, else in RAM."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 2**30
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
