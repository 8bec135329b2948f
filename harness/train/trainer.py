"""transformers' Trainer for packed sequences: source weights, penalties against forgetting, loss by source.

Imports torch: only training imports this file.
"""

import math
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.nn.functional import kl_div, log_softmax
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from harness.config.experiment import TrainingConfig
from harness.config.train import TrainConfig
from harness.core.console import say
from harness.core.errors import ConfigError
from harness.train.compute import Compute
from harness.train.packing import IGNORED, TrainingBatches, collate, packed_logits, rows_are_independent
from harness.train.progress import mark_complete

_REDUCTIONS = {"l2_to_start": "mean", "kl_to_base": "sum"}  # processes have the same weights, but rows of their own


def l2_to_start(model: Any, start: dict[str, torch.Tensor]) -> torch.Tensor:
    """Half the squared distance of the weights from their values at the start (L2-SP; Li, Grandvalet, Davoine, 2018).

    For full fine-tuning `start` holds those values. For an adapter, `start` is empty and the distance is the norm of
    the change s·B·A.
    """
    if start:
        parts = [((p - start[n]) ** 2).sum() for n, p in model.named_parameters() if p.requires_grad]
    else:
        parts = [_change(module) for module in model.modules() if hasattr(module, "lora_A") and module.lora_A]
    return 0.5 * torch.stack(parts).sum()


def _change(module: Any) -> torch.Tensor:
    """|s·B·A|² in the Frobenius norm, from r × r products alone: s²·tr(BᵀB·AAᵀ)."""
    (name,) = module.active_adapters
    a, b = module.lora_A[name].weight.float(), module.lora_B[name].weight.float()
    return float(module.scaling[name]) ** 2 * ((b.T @ b) * (a @ a.T)).sum()


def kl_to_base(
    model: Any, inputs: Any, positions: torch.Tensor, logits: torch.Tensor, *, apart: bool = False
) -> torch.Tensor:
    """KL(base‖model) in nats, summed over `positions`; the base is the model without its adapter.

    `logits` are the model's logits at these positions, shape (positions, vocabulary).
    """
    with torch.no_grad(), model.disable_adapter():
        base = packed_logits(model, inputs, positions, apart=apart)
    ours, theirs = log_softmax(logits.float(), -1), log_softmax(base.float(), -1)
    return kl_div(ours, theirs, reduction="sum", log_target=True)


def training_arguments(
    config: TrainConfig,
    steps: int,
    out: Path,
    *,
    use_cpu: bool,
    processes: int = 1,
    bf16: bool = False,
    parts_at_once: int = 1,
) -> TrainingArguments:
    """transformers' arguments for `sequences_per_step` packed sequences per optimiser step, over all processes.

    A forward pass takes one sequence; with `parts_at_once` above 1 a whole step is one batch. A callback decides when
    to save; the last two checkpoints are kept. `bf16` computes fp32 weights in bf16.
    """
    batch = config.sequences_per_step if parts_at_once > 1 else 1
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
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process drives one GPU; several GPUs need several processes
    return arguments


class PackedTrainer(Trainer):
    """Trains on packed sequences: cross-entropy over the supervised tokens of a whole step, plus the penalties.

    Every step logs the mean loss of each source. `compute` decides how a step is computed.
    """

    def __init__(self, batches: TrainingBatches, config: TrainingConfig, compute: Compute, **arguments: Any):
        super().__init__(train_dataset=batches.examples(config.num_processes), data_collator=collate, **arguments)
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = False
        for printer in (PrinterCallback, ProgressCallback):
            self.remove_callback(printer)
        settings, device = config.train, self.args.device
        if settings.l2_to_start and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            why = "FSDP and DeepSpeed split the weights, and this penalty needs them whole"
            raise ConfigError([f"train.l2_to_start: {why}. Set train.l2_to_start=0 or accelerate_config=null."])
        self._settings, self._compute = settings, compute
        self._apart = not rows_are_independent(self.model)
        if self._apart:
            say("  note: packed rows would see each other in this model, so each row is computed alone (slower)")
        self._names = batches.sources
        replay = [config.roles.get(name) == "replay" for name in self._names]
        self._replay = torch.tensor(replay, device=device)
        self._weights = torch.tensor([settings.source_weights.get(name, 1.0) for name in self._names], device=device)
        shards = settings.sequences_per_step + compute.parts_at_once  # own sums each: threads share none
        self._sums = torch.zeros(shards, 2, len(self._names), dtype=torch.float64, device=device)
        self._source_of = torch.tensor([self._names.index(name) for name in batches.row_sources], device=device)
        self._seen: list[tuple[torch.Tensor, torch.Tensor]] = []  # of the current step: row numbers, token losses
        self._start: dict[str, torch.Tensor] = {}
        if settings.l2_to_start and settings.method == "full":
            self._start = {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}
        self._penalties = dict.fromkeys(_REDUCTIONS, torch.zeros((), device=device))

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """The loss of the batch, shape (); adds its gradients to those of the parameters."""
        loss: torch.Tensor = self._compute.training_step(self, super().training_step, model, inputs, num_items_in_batch)
        return loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean loss over `num_items_in_batch` supervised tokens; logits are computed at supervised positions only."""
        inputs = self._compute.skip_unused_tokens(inputs)
        labels = inputs["labels"][0]
        supervised = (labels != IGNORED).nonzero().squeeze(1)
        logits = packed_logits(model, inputs, supervised, apart=self._apart)
        losses = self._compute.token_losses(logits, labels[supervised])
        items = num_items_in_batch if num_items_in_batch is not None else len(supervised)
        loss = self.objective(model, inputs, supervised, losses, logits, items)
        return (loss, {"logits": logits}) if return_outputs else loss

    def objective(self, model: Any, inputs: Any, supervised: Any, losses: Any, logits: Any, items: Any) -> Any:
        """The loss, shape (): the weighted sum of the supervised tokens' `losses`, shape (n,), divided by the `items`
        tokens of the step, plus the penalties. Multiplied by the number of processes, whose gradients are averaged."""
        row = inputs["row"][0][supervised]
        source = self._source_of[row]
        self._seen.append((row, losses.detach()))
        sums = self._sums[int(inputs.get("shard", 0))]
        sums[0].index_add_(0, source, losses.detach().double())
        sums[1].index_add_(0, source, torch.ones_like(losses, dtype=torch.float64))
        loss = (losses * self._weights[source]).sum() / items
        own = self.accelerator.unwrap_model(model)
        general = self._replay[source].nonzero().squeeze(1)
        if self._settings.kl_to_base and len(general):
            divergence = kl_to_base(own, inputs, supervised[general], logits[general], apart=self._apart)
            penalty = self._settings.kl_to_base * divergence / items
            loss = loss + self._logged_penalty("kl_to_base", penalty)
        loss = loss * self.accelerator.num_processes
        if self._settings.l2_to_start:
            batches = self.current_gradient_accumulation_steps
            penalty = self._settings.l2_to_start * l2_to_start(own, self._start) / batches
            loss = loss + self._logged_penalty("l2_to_start", penalty)
        return loss

    def _logged_penalty(self, name: str, penalty: torch.Tensor) -> torch.Tensor:
        """Returns `penalty` after adding it to the value logged for the step."""
        self._penalties[name] = self._penalties[name] + penalty.detach()
        return penalty

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Keeps the dataset's order, which is the training order already."""
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Marks a checkpoint complete once every process has written its part."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_complete(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")

    def floating_point_ops(self, inputs: Any) -> int:
        """0: transformers would count all parameters again for every batch, and nothing reads the sum."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean loss of each source, and the penalties in use, to the log."""
        if "loss" in logs:
            sums = self.accelerator.reduce(self._sums.sum(0), "sum")
            totals, counts = sums.tolist()
            logs |= {f"loss/{n}": t / c for n, t, c in zip(self._names, totals, counts, strict=True) if c}
            for name, value in self._penalties.items():
                if getattr(self._settings, name):
                    logs[name] = float(self.accelerator.reduce(value, _REDUCTIONS[name]))
                    self._penalties[name] = torch.zeros_like(value)
            self._sums.zero_()
        super().log(logs, start_time)
        self._seen.clear()

    def rows_by_loss(self) -> list[int]:
        """Numbers of the rows in the logged step, NaN losses first, then by mean loss, highest first.

        Covers all processes, so all of them must call this together.
        """
        rows, of_token = torch.cat([row for row, _ in self._seen]).unique(return_inverse=True)
        losses = torch.cat([losses for _, losses in self._seen]).double().nan_to_num(nan=math.inf)
        sums = torch.zeros(len(rows), dtype=torch.float64, device=losses.device).index_add_(0, of_token, losses)
        means = sums / of_token.bincount(minlength=len(rows))
        found = gather_object(list(zip(means.tolist(), rows.tolist(), strict=True)))
        return [row for _, row in sorted(found, key=lambda pair: (-pair[0], pair[1]))]
