"""transformers' Trainer for packed sequences. Imports torch: only the training stage imports this file."""

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from harness.config import TrainConfig
from harness.train.losses import token_losses
from harness.train.packed_attention import attends_by_rows
from harness.train.packing import IGNORED
from harness.train.shortening import drop_tails, share_prompt, shared_tokens
from harness.train.side_by_side import SideBySide, apart, draws_lots, together


def training_arguments(
    config: TrainConfig,
    steps: int,
    out: Path,
    *,
    use_cpu: bool,
    processes: int = 1,
    bf16: bool = False,
    at_once: int = 1,
) -> TrainingArguments:
    """`sequences_per_step` packed sequences an optimiser step, over all processes.

    One of them a forward pass; where several parts are computed `at_once` a whole step is one batch. A callback says
    when to save: the last two checkpoints are kept. `bf16` is for weights in fp32, computed in bf16.
    """
    batch = config.sequences_per_step if at_once > 1 else 1
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=config.sequences_per_step // processes // batch,
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
    """Computes the loss of one packed sequence: summed cross-entropy over the tokens of the whole step.

    With `side_by_side` a batch is a whole step, and the gradients of its parts are added in their order: the same bits
    whichever is done first.
    """

    _by_rows = False  # whether tokens that change nothing can be left out

    def __init__(self, side_by_side: SideBySide | None = None, **arguments: Any):
        super().__init__(data_collator=together, **arguments)
        self._side_by_side = side_by_side
        self._by_rows = attends_by_rows(self.model) and not draws_lots(self.model)
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = False
        for printer in (PrinterCallback, ProgressCallback):
            self.remove_callback(printer)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """The batch's loss, its gradients added to those of the parameters."""
        if self._side_by_side is None:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

        def one(part: Any) -> Any:
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, part, num_items_in_batch=num_items_in_batch)
            return loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)

        shared = shared_tokens(inputs) if self._by_rows else 0
        parts = apart(inputs, self.args.per_device_train_batch_size, self._side_by_side.count, shared)
        total = torch.zeros(())
        for loss, gradients in self._side_by_side.map(one, parts):
            total += loss
            for parameter, gradient in zip(parameters, gradients, strict=True):
                _add(parameter, gradient)
        return total

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: transformers would count all parameters anew for every batch, and nothing reads the sum."""
        return 0

    def close(self) -> None:
        """Ends the threads, if there are any."""
        if self._side_by_side is not None:
            self._side_by_side.close()

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean loss over `num_items_in_batch` supervised tokens; logits exist only at supervised positions."""
        if self._by_rows:
            inputs = share_prompt(drop_tails(inputs))
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


def _add(parameter: torch.Tensor, gradient: torch.Tensor | None) -> None:
    """As `backward` does: a part need not use every parameter, and optimisers count on a parameter's own layout."""
    if gradient is None:
        return
    if parameter.grad is None:
        parameter.grad = torch.empty_like(parameter).copy_(gradient)
    else:
        parameter.grad.add_(gradient)
