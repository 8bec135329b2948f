"""The machine that work ran on: processor, cores, memory, GPUs."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path


def hardware() -> dict[str, str]:
    """Architecture, processor, usable cores, memory (GiB) and GPUs by name; what cannot be determined is left out."""
    found = {
        "machine": platform.machine(),
        "processor": processor(),
        "cores": str(cores()),
        "memory_gib": f"{memory_gib():.1f}",
        "gpus": ", ".join(gpus()),
    }
    return {name: value for name, value in found.items() if value}


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float:
    """The machine's memory in GiB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def processor() -> str:
    """The processor's model name; on Linux `platform.processor()` is mostly empty."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def gpus(fields: str = "name") -> list[str]:
    """The NVIDIA GPUs by these fields of nvidia-smi, separated by commas: PyTorch is too heavy to ask for them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [name.strip() for name in done.stdout.splitlines() if name.strip()] if done.returncode == 0 else []


def peak_memory_gib() -> float:
    """The most memory this process held, in GiB: of the GPU where PyTorch uses one, else of the machine."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 2**30
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
