"""How many parameters a model has and how many are trained, and the memory that takes: without loading it."""

from pathlib import Path
from typing import Any

from harness.base_model import quiet_transformers
from harness.config_train import TrainConfig


def parameters(base: Path, config: TrainConfig) -> tuple[int, int]:
    """(trained, all) parameters."""
    from harness.train.model import parameter_counts

    return parameter_counts(skeleton(base, config))


def skeleton(base: Path, config: TrainConfig) -> Any:
    """The model as it is trained, adapter included, with shapes and no weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from harness.train.model import with_new_adapter

    with quiet_transformers(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base, trust_remote_code=False))
        plain = config.model_copy(update={"method": "lora"})
        return model if config.method == "full" else with_new_adapter(model, plain)
