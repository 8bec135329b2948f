"""Configuration of training; part of config.py, which says how it is validated."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.config.group import Count, Group, Positive, Share

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy takes


class LoraConfig(Group):
    """The adapter. `rslora` scales by alpha/√r instead of alpha/r; `dora` trains a magnitude for every output too.

    vLLM serves no DoRA: what it trained is merged into the base model, and the checkpoint is a whole model.
    """

    r: Count = 16
    alpha: Positive = 32
    dropout: Share = 0.0
    target_modules: str | list[str] = "all-linear"
    rslora: bool = False
    dora: bool = False


class TrainConfig(Group):
    """Supervised fine-tuning. One optimiser step sees `sequences_per_step` packed sequences, over all processes.

    `parts_at_once` of a step's rows are computed side by side on a CPU, 0 is one a core; memory grows with them.
    `too_long` says what becomes of rows over `sequence_length`: an error, dropped, or split at a turn. `train_on`
    takes the loss on every answer of a conversation or on its last one; `source_weights` multiply the loss of a
    source's tokens. `l2_to_start` and `kl_to_base` are the coefficients of two penalties against forgetting.
    `save_every` and `eval_every` count optimiser steps, 0 is never; `eval_limit` is the number of items a task that
    a checkpoint is evaluated on, `stop_on_forgetting` ends training when a guard of the gate's policy fails.
    """

    method: Literal["lora", "qlora", "full"] = "lora"
    lora: LoraConfig = LoraConfig()
    learning_rate: Positive = 3e-4
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    warmup_ratio: Share = 0.05
    epochs: Positive = 1
    sequence_length: Count = 512
    sequences_per_step: Count = 4
    parts_at_once: Steps = 0
    too_long: Literal["error", "drop", "split"] = "error"
    train_on: Literal["all", "last"] = "all"
    source_weights: dict[str, Positive] = {}
    l2_to_start: NotNegative = 0.0
    kl_to_base: NotNegative = 0.0
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    gradient_checkpointing: bool = False
    save_every: Steps = 100
    eval_every: Steps = 0
    eval_limit: Count = 64
    stop_on_forgetting: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: Seed = 0

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
