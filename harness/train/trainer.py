"""transformers' Trainer for packed sequences. Imports torch: only the training stage imports this file."""

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from harness.config import TrainConfig
from harness.train.losses import token_losses
from harness.train.packing import IGNORED


def training_arguments(
    config: TrainConfig, steps: int, out: Path, *, use_cpu: bool, processes: int = 1, bf16: bool = False
) -> TrainingArguments:
    """One packed sequence a forward pass, `sequences_per_step` of them an optimiser step over all processes.

    A callback says when to save: the last two checkpoints are kept. `bf16` is for weights in fp32, computed in bf16.
    """
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=config.sequences_per_step // processes,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule if config.schedule != "constant" else "constant_with_warmup",
        warmup_steps=round(config.warmup_ratio * steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=2,
        bf16=bf16,
        gradient_checkpointing=config.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if config.gradient_checkpointing else None,
        ddp_backend="gloo" if use_cpu and processes > 1 else None,
        ddp_find_unused_parameters=False if processes > 1 else None,
        report_to=[],
        seed=config.seed,
        use_cpu=use_cpu,
        dataloader_pin_memory=not use_cpu,
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process drives one GPU; several are several processes
    return arguments


class PackedTrainer(Trainer):
    """Computes the loss of one packed sequence: summed cross-entropy over the tokens of the whole step."""

    def __init__(self, **arguments: Any):
        super().__init__(data_collator=_collate, **arguments)
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = False
        for printer in (PrinterCallback, ProgressCallback):
            self.remove_callback(printer)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean loss over `num_items_in_batch` supervised tokens; logits exist only at supervised positions."""
        labels = inputs["labels"][0]
        supervised = (labels != IGNORED).nonzero().squeeze(1)
        outputs = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            logits_to_keep=supervised,
            use_cache=False,
        )
        losses = token_losses(outputs.logits[0], labels[supervised])
        items = num_items_in_batch if num_items_in_batch is not None else len(supervised)
        loss = self.objective(model, inputs, supervised, losses, outputs.logits[0], items)
        return (loss, outputs) if return_outputs else loss

    def objective(self, model: Any, inputs: Any, supervised: Any, losses: Any, logits: Any, items: Any) -> Any:
        """The loss from the supervised tokens' losses, shape (n,): their sum over the `items` tokens of the step."""
        return losses.sum() / items


def _collate(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """One packed sequence as tensors of shape (1, length), dtype int64."""
    return {key: torch.tensor([values]) for key, values in batch[0].items()}
