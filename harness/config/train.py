"""The configuration of training: group `train`."""

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
    """Rank of the adapter's matrices; a higher rank has more parameters and takes more memory."""

    alpha: Positive = 32.0
    """Scale of the adapter: its output is multiplied by alpha / r."""

    dropout: Share = 0.0
    """Share of the adapter's inputs that are set to zero at random in training."""

    target_modules: str | list[str] = "all-linear"
    """Layers that get an adapter: `all-linear`, names, or a regular expression, as peft takes them."""

    rslora: bool = False
    """Whether the scale is alpha / √r instead of alpha / r, for large ranks."""

    dora: bool = False
    """Whether the magnitude of every output is trained too (DoRA)."""


class TrainConfig(Group):
    """Supervised fine-tuning."""

    method: Literal["lora", "qlora", "full"] = "lora"
    """lora: an adapter; qlora: an adapter on 4-bit weights (GPU only); full: all parameters."""

    lora: LoraConfig = LoraConfig()
    """The LoRA adapter; without effect with `method: full`."""

    learning_rate: Positive = 2e-4
    """Highest learning rate, reached after the warm-up."""

    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: falls to 0 (linear, cosine) or stays constant."""

    warmup_ratio: Share = 0.05
    """Share of the steps during which the learning rate rises from 0."""

    epochs: Positive = 2.0
    """Passes over the data; with a fraction, the last pass is cut short."""

    sequence_length: Count = 2048
    """Length of a training sequence in tokens; rows are packed into sequences."""

    sequences_per_step: Count = 16
    """Packed sequences of one optimiser step, over all processes: the batch size."""

    parts_at_once: Steps = 0
    """Parts of a step that a CPU computes in parallel; 0: one per core; more parts take more memory."""

    too_long: Literal["error", "drop", "split"] = "error"
    """What happens to a row longer than `sequence_length`: an error, dropped, or split between turns."""

    train_on: Literal["all", "last"] = "all"
    """Answers of a conversation that are trained on: all, or the last one."""

    source_weights: dict[str, Positive] = {}
    """Weight of the loss by source; 1 for a source that is not listed."""

    l2_to_start: NotNegative = 0.0
    """Coefficient of a penalty on the squared change of the weights, against forgetting; 0: no penalty."""

    kl_to_base: NotNegative = 0.0
    """Coefficient of a penalty on the divergence from the base model's predictions on replay rows; 0: no penalty."""

    weight_decay: NotNegative = 0.0
    """Decoupled weight decay of AdamW: each step removes this share of a weight, times the learning rate."""

    max_grad_norm: Positive = 1.0
    """Largest L2 norm of a step's gradient; a larger gradient is scaled down to it."""

    gradient_checkpointing: bool = False
    """Whether activations are recomputed in the backward pass: less memory, slower steps."""

    save_every: Steps = 100
    """Optimiser steps between saved states, from which an interrupted training resumes; 0: never."""

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
            raise ValueError("train.l2_to_start is not defined for train.lora.dora=true; use only one of them")
        return self
