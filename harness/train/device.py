"""Where a model is trained, and what computes its steps there. Both are decided here, once, and nowhere else.

Where the folder `cpu/` is missing, a CPU trains by PyTorch alone.
"""

from typing import Any

from harness.config.experiment import TrainingConfig
from harness.config.train import TrainConfig
from harness.core.errors import EnvironmentFault
from harness.train.compute import Compute


def device_of(config: TrainConfig) -> str:
    """'cuda' or 'cpu': as configured, or what the machine has. Nothing else decides where a model is trained."""
    import torch

    if config.device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFault("train.device=cuda, and torch sees no GPU; use train.device=auto or cpu")
    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def compute_for(model: Any, config: TrainingConfig, device: str, parts_at_once: int | None = None) -> Compute:
    """How the steps of `model` are computed on `device`, 'cpu' or 'cuda'. On a CPU this changes layers of `model`.

    A training that goes on passes the `parts_at_once` it was started with: another number rounds differently.
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
