"""Configuration of training; experiment.py validates it with the rest."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.config.group import Count, Group, Positive, Share

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy takes


class LoraConfig(Group):
    """The LoRA adapter.

    vLLM does not serve DoRA: a DoRA adapter is merged into the base model, and the checkpoint is a whole model.
    """

    r: Count = 16
    """Rank of the adapter's matrices: more parameters, more memory."""

    alpha: Positive = 32.0
    """Scale of the adapter: its output is multiplied by alpha / r."""

    dropout: Share = 0.0
    """Share of the adapter's inputs that are zeroed at random in training."""

    target_modules: str | list[str] = "all-linear"
    """Layers that get an adapter: `all-linear`, names, or a regular expression, as peft takes them."""

    rslora: bool = False
    """Whether the scale is alpha / √r instead of alpha / r, for large ranks."""

    dora: bool = False
    """Whether a magnitude of every output is trained too (DoRA)."""


class TrainConfig(Group):
    """Supervised fine-tuning."""

    method: Literal["lora", "qlora", "full"] = "lora"
    """lora: an adapter; qlora: an adapter on 4-bit weights (GPU only); full: all parameters."""

    lora: LoraConfig = LoraConfig()
    """The LoRA adapter; without effect with `method: full`."""

    learning_rate: Positive = 2e-4
    """Highest learning rate, reached after the warm-up."""

    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """Course of the learning rate after the warm-up: down to 0 (linear, cosine) or constant."""

    warmup_ratio: Share = 0.05
    """Share of the steps in which the learning rate rises from 0."""

    epochs: Positive = 2.0
    """Passes over the data; a fraction ends within a pass."""

    sequence_length: Count = 2048
    """Length of a training sequence in tokens; rows are packed into sequences."""

    sequences_per_step: Count = 16
    """Packed sequences of one optimiser step, over all processes: the batch size."""

    parts_at_once: Steps = 0
    """Parts of a step that a CPU computes side by side; 0: one a core; more take more memory."""

    too_long: Literal["error", "drop", "split"] = "error"
    """What happens to a row longer than `sequence_length`: an error, dropped, or split between turns."""

    train_on: Literal["all", "last"] = "all"
    """Answers of a conversation that are learned: all, or the last one."""

    source_weights: dict[str, Positive] = {}
    """Factor of the loss by source; 1 where a source is not named."""

    l2_to_start: NotNegative = 0.0
    """Coefficient of a penalty on the squared change of the weights, against forgetting; 0: none."""

    kl_to_base: NotNegative = 0.0
    """Coefficient of a penalty on leaving the base model's predictions on replay rows; 0: none."""

    weight_decay: NotNegative = 0.0
    """Decoupled weight decay of AdamW: the share of a weight removed a step, times the learning rate."""

    max_grad_norm: Positive = 1.0
    """Largest L2 norm of a step's gradient; a larger gradient is scaled down to it."""

    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward pass: less memory, slower steps."""

    save_every: Steps = 100
    """Optimiser steps between saved states that an interrupted training goes on from; 0: never."""

    eval_every: Steps = 0
    """Optimiser steps between evaluations of the checkpoint against the base model; 0: never."""

    eval_limit: Count = 64
    """Most items of each task in an evaluation during training."""

    stop_on_forgetting: bool = True
    """Whether training ends when an evaluated checkpoint fails a guard of the gate's policy."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of training; auto: the GPU where there is one, else the CPU."""

    seed: Seed = 0
    """Seed for the adapter's first weights, the order of rows and dropout."""

    @model_validator(mode="after")
    def _applicable(self) -> "TrainConfig":
        if self.kl_to_base and self.method == "full":
            raise ValueError(
                "train.kl_to_base needs train.method=lora or qlora: the base is the model without its adapter; "
                "with train.method=full use train.l2_to_start"
            )
        if self.l2_to_start and self.lora.dora and self.method != "full":
            raise ValueError("train.l2_to_start is not defined for train.lora.dora=true; use one of the two")
        return self
