"""Which device trains a model, and how its steps are computed there. Both are decided here and nowhere else.

Without the folder `cpu/`, a CPU trains with PyTorch alone.
"""

from typing import Any

from harness.config.experiment import TrainingConfig
from harness.config.train import TrainConfig
from harness.core.errors import EnvironmentFault
from harness.train.compute import Compute


def device_of(config: TrainConfig) -> str:
    """'cuda' or 'cpu': as configured; with `auto`, 'cuda' if torch sees a GPU. Raises EnvironmentFault."""
    import torch

    if config.device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFault("train.device=cuda, but torch sees no GPU. Use train.device=auto or train.device=cpu.")
    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def compute_for(model: Any, config: TrainingConfig, device: str, parts_at_once: int | None = None) -> Compute:
    """How the steps of `model` are computed on `device`, 'cpu' or 'cuda'. On a CPU this replaces layers of `model`.

    A resumed training passes the `parts_at_once` that it started with: another number rounds differently.
    """
    if device != "cpu":
        return Compute()
    try:
        from harness.train.cpu.accelerate import accelerate_on_cpu
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("harness.train.cpu"):
            raise
        return Compute()
    return accelerate_on_cpu(model, config, parts_at_once)
