"""The whole objective: weighted sources, penalties, losses by source. Imports torch: only training imports this."""

import math
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from harness.config import Config
from harness.errors import ConfigError
from harness.train.material import Material
from harness.train.penalties import kl_to_base, l2_to_start
from harness.train.progress import mark_complete
from harness.train.side_by_side import SideBySide
from harness.train.trainer import PackedTrainer

_OVER_PROCESSES = {"l2_to_start": "mean", "kl_to_base": "sum"}  # each has the same weights, and rows of its own


class ObjectiveTrainer(PackedTrainer):
    """Trains on `material`; what is logged at every step holds the mean loss of every source."""

    def __init__(self, material: Material, config: Config, at_once: int = 1, **arguments: Any):
        arguments["side_by_side"] = SideBySide(at_once) if at_once > 1 else None
        super().__init__(train_dataset=material.examples(config.num_processes), **arguments)
        settings, device = config.train, self.args.device
        if settings.l2_to_start and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            why = "FSDP and DeepSpeed split the weights, and the distance is that of whole ones"
            raise ConfigError([f"train.l2_to_start: {why}; leave it out, or accelerate_config"])
        self._settings = settings
        self._names = material.sources
        roles = {name: source.role for name, source in config.data.sources.items()}
        replay = [roles.get(name) == "replay" for name in self._names]
        self._replay = torch.tensor(replay, device=device)
        self._weights = torch.tensor([settings.source_weights.get(name, 1.0) for name in self._names], device=device)
        parts = settings.sequences_per_step + at_once  # each has its own sums: threads never add to one
        self._sums = torch.zeros(parts, 2, len(self._names), dtype=torch.float64, device=device)
        self._source_of = torch.tensor([self._names.index(name) for name in material.row_sources], device=device)
        self._seen: list[tuple[torch.Tensor, torch.Tensor]] = []  # of a step: numbers of rows, losses of their tokens
        self._start = self._starting_weights() if settings.l2_to_start and settings.method == "full" else {}
        self._penalties = dict.fromkeys(_OVER_PROCESSES, torch.zeros((), device=device))

    def _starting_weights(self) -> dict[str, torch.Tensor]:
        return {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """The dataset is in training order already."""
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Complete or absent: the marker is written once every process has written its part."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_complete(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")

    def objective(self, model: Any, inputs: Any, supervised: Any, losses: Any, logits: Any, items: Any) -> Any:
        """Weighted mean loss over the step's tokens, plus the penalties; scaled as gradients of processes are."""
        row = inputs["row"][0][supervised]
        source = self._source_of[row]
        self._seen.append((row, losses.detach()))
        self._count(self._sums[int(inputs.get("part", 0))], source, losses.detach())
        loss = (losses * self._weights[source]).sum() / items
        own = self.accelerator.unwrap_model(model)
        general = self._replay[source].nonzero().squeeze(1)
        if self._settings.kl_to_base and len(general):
            penalty = self._settings.kl_to_base * kl_to_base(own, inputs, supervised[general], logits[general]) / items
            loss = loss + self._noted("kl_to_base", penalty)
        loss = loss * self.accelerator.num_processes
        if self._settings.l2_to_start:
            parts = self.current_gradient_accumulation_steps
            penalty = self._settings.l2_to_start * l2_to_start(own, self._start) / parts
            loss = loss + self._noted("l2_to_start", penalty)
        return loss

    def _noted(self, name: str, penalty: torch.Tensor) -> torch.Tensor:
        self._penalties[name] = self._penalties[name] + penalty.detach()
        return penalty

    def _count(self, sums: torch.Tensor, source: torch.Tensor, losses: torch.Tensor) -> None:
        sums[0].index_add_(0, source, losses.double())
        sums[1].index_add_(0, source, torch.ones_like(losses, dtype=torch.float64))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds each source's mean loss, and the penalties in use, to what is logged."""
        if "loss" in logs:
            sums = self.accelerator.reduce(self._sums.sum(0), "sum")
            totals, counts = sums.tolist()
            logs |= {f"loss/{n}": t / c for n, t, c in zip(self._names, totals, counts, strict=True) if c}
            for name, value in self._penalties.items():
                if getattr(self._settings, name):
                    logs[name] = float(self.accelerator.reduce(value, _OVER_PROCESSES[name]))
                    self._penalties[name] = torch.zeros_like(value)
            self._sums.zero_()
        super().log(logs, start_time)
        self._seen.clear()

    def rows_by_loss(self) -> list[int]:
        """Numbers of the rows of the step that is logged, highest mean loss first, before all what is no number.

        Of all processes, which have to ask for it together.
        """
        rows, of_token = torch.cat([row for row, _ in self._seen]).unique(return_inverse=True)
        losses = torch.cat([losses for _, losses in self._seen]).double().nan_to_num(nan=math.inf)
        sums = torch.zeros(len(rows), dtype=torch.float64, device=losses.device).index_add_(0, of_token, losses)
        means = sums / of_token.bincount(minlength=len(rows))
        found = gather_object(list(zip(means.tolist(), rows.tolist(), strict=True)))
        return [row for _, row in sorted(found, key=lambda pair: (-pair[0], pair[1]))]
