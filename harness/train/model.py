"""Loading the pretrained model for training, with a LoRA adapter on it."""

from pathlib import Path
from typing import Any

from harness.base_model import quiet_transformers
from harness.config import TrainConfig
from harness.errors import ConfigError, EnvironmentFault


def device_of(config: TrainConfig) -> str:
    """'cuda' or 'cpu': as configured, or what the machine has."""
    import torch

    if config.device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFault("train.device=cuda, and torch sees no GPU; use train.device=auto or cpu")
    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_for_training(folder: Path, config: TrainConfig, dtype: str) -> Any:
    """The model with freshly initialised adapter weights in fp32 (seeded); the base stays frozen in `dtype`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(config.seed)
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation="sdpa", trust_remote_code=False
        )
    model.config.use_cache = False
    lora = LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=config.lora.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, lora)
    except ValueError as error:
        raise ConfigError([f"train.lora: {' '.join(str(error).split())[:300]}"]) from None


def parameter_counts(model: Any) -> tuple[int, int]:
    """(trained, all) parameters."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)
