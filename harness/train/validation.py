"""Validation loss on rows that are not trained on, in batches of rows of similar length. Imports torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from harness.config.experiment import TrainingConfig
from harness.model.load import is_adapter, load_model, with_adapter
from harness.prompt.render import Rendered
from harness.train.compute import Compute
from harness.train.device import compute_for, device_of
from harness.train.packing import IGNORED, join, packed_logits, rows_are_independent


def losses_of(config: TrainingConfig, base: Path, checkpoint: Path, rows: Sequence[Rendered]) -> tuple[float, float]:
    """Mean losses (nats per supervised token) of the base model and of a checkpoint: an adapter or a whole model."""
    device = device_of(config.train)

    def loaded(folder: Path) -> tuple[Any, Compute]:
        model = load_model(folder, config.model.dtype).to(device)
        return model, compute_for(model, config, device)

    model, compute = loaded(base)
    before = eval_loss(model, rows, compute=compute)
    if is_adapter(checkpoint):
        model = with_adapter(model, checkpoint, base)
    else:
        model, compute = loaded(checkpoint)
    return before, eval_loss(model, rows, compute=compute)


def eval_loss(model: Any, rows: Sequence[Rendered], length: int = 1024, compute: Compute | None = None) -> float:
    """Mean loss (nats) over the supervised tokens of `rows`. The model stays in the mode (train, eval) it was in."""
    sums = row_losses(model, rows, length, compute)
    return sum(sums) / sum(sum(row.mask[1:]) for row in rows)


def row_losses(model: Any, rows: Sequence[Rendered], length: int = 1024, compute: Compute | None = None) -> list[float]:
    """Summed loss (nats) of each row's supervised tokens, in the order of `rows`.

    Rows run in batches of up to `length` tokens, longest first, so that too little memory shows at once.
    """
    compute = compute or Compute()
    losses = [0.0] * len(rows)
    apart = not rows_are_independent(model)
    training = model.training
    model.eval()
    with torch.no_grad():
        for members in by_length([len(row.ids) for row in rows], length):
            batch = _batch_losses(model, [rows[m] for m in members], compute, apart=apart)
            for row, loss in zip(members, batch, strict=True):
                losses[row] = loss
    model.train(training)
    return losses


def by_length(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Numbers of the rows, longest first, in batches of at most `length` tokens (or a single longer row)."""
    batches: list[list[int]] = []
    room = 0
    for row in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        if not batches or sizes[row] > room:
            batches.append([])
            room = length
        batches[-1].append(row)
        room -= sizes[row]
    return batches


def _batch_losses(model: Any, rows: Sequence[Rendered], compute: Compute, *, apart: bool) -> list[float]:
    packed = join(rows)
    labels = torch.tensor(packed.labels, device=model.device)
    supervised = (labels != IGNORED).nonzero().squeeze(1)
    inputs = {
        "input_ids": torch.tensor([packed.input_ids], device=model.device),
        "position_ids": torch.tensor([packed.position_ids], device=model.device),
    }
    logits = packed_logits(model, inputs, supervised, apart=apart)
    number = (torch.tensor(packed.position_ids, device=model.device) == 0).cumsum(0)[supervised] - 1
    losses = compute.token_losses(logits, labels[supervised])
    sums = torch.zeros(len(rows), dtype=torch.float64, device=model.device)
    return [float(s) for s in sums.index_add_(0, number, losses.double())]
