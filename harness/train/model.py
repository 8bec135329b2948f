"""Loads the pretrained model for training, with a LoRA adapter on it, and frees its memory afterwards.

Every layer is transformers' or peft's own; `device.py` replaces some of them on a CPU.
"""

import ctypes
import gc
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.config.train import TrainConfig
from harness.core.errors import ConfigError, EnvironmentFault, MissingDependency
from harness.model.load import load_model, quiet_transformers, with_adapter
from harness.train.device import device_of


def parameters(base: Path, config: TrainConfig) -> tuple[int, int]:
    """(trained, total) number of parameters, without loading the model."""
    return parameter_counts(skeleton(base, config))


def skeleton(base: Path, config: TrainConfig) -> Any:
    """The model as it is trained, adapter included: shapes without weights (on PyTorch's meta device)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with quiet_transformers(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base, trust_remote_code=False))
        plain = config.model_copy(update={"method": "lora"})
        return model if config.method == "full" else with_new_adapter(model, plain)


def load_for_training(folder: Path, config: TrainConfig, dtype: str) -> Any:
    """The model to train. LoRA: new adapter weights in fp32 (seeded) on a base frozen in `dtype`, or in 4 bits for
    QLoRA. Full fine-tuning: the whole model in fp32."""
    import torch
    from transformers import AutoModelForCausalLM, set_seed

    settings = _quantised(config, dtype) if config.method == "qlora" else {}
    loaded = "float32" if config.method == "full" else dtype
    set_seed(config.seed)
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, loaded),
            attn_implementation=attention_of(folder),
            trust_remote_code=False,
            **settings,
        )
    model.config.use_cache = False
    return model if config.method == "full" else with_new_adapter(model, config)


def attention_of(folder: Path) -> str:
    """transformers' attention for a model: SDPA, or eager where the architecture has none or caps its scores.

    SDPA leaves out the soft caps of Gemma 2.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    shape = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(shape), None)
    supported = getattr(kind, "_supports_sdpa", True)
    return "sdpa" if supported and not getattr(shape, "attn_logit_softcapping", None) else "eager"


def with_new_adapter(model: Any, config: TrainConfig) -> Any:
    """`model` with a new adapter that changes nothing yet; raises ConfigError for settings that peft rejects."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if config.method == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=config.gradient_checkpointing)
    lora = LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=config.lora.target_modules,
        use_rslora=config.lora.rslora,
        use_dora=config.lora.dora,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, lora)
    except ValueError as error:
        raise ConfigError([f"train.lora: {' '.join(str(error).split())[:300]}"]) from None


def _quantised(config: TrainConfig, dtype: str) -> dict[str, Any]:
    """Loading settings of QLoRA (NF4, double quantisation; Dettmers et al., 2023)."""
    import torch
    from transformers import BitsAndBytesConfig

    if device_of(config) == "cpu":
        raise EnvironmentFault("train.method=qlora needs a GPU, but torch sees none. Use train.method=lora.")
    if find_spec("bitsandbytes") is None:
        raise MissingDependency("bitsandbytes", "train.method=qlora", "gpu")
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    return {"quantization_config": quantisation, "device_map": {"": own_gpu()}}


def own_gpu() -> int:
    """Index of this process's GPU. accelerate chooses the same one, but only after the model is loaded."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def merge_adapter(folder: Path, base: Path, dtype: str) -> None:
    """Replaces the adapter in `folder` by the merged model: vLLM does not serve DoRA adapters."""
    model = with_adapter(load_model(base, dtype), folder, base).merge_and_unload()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (folder / name).unlink()
    model.save_pretrained(folder)


def parameter_counts(model: Any) -> tuple[int, int]:
    """(trained, total) number of parameters."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


def free_memory() -> None:
    """Returns the memory of a finished training to the system, so that the server can use it."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
