"""Loss on rows that are not trained on, in batches of rows of like length. Imports torch: only training does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from harness.config.experiment import Config
from harness.model.load import is_adapter, load_model, with_adapter
from harness.prompt.render import Rendered
from harness.train.cpu.attention import use_packed_attention
from harness.train.cpu.layers import token_losses
from harness.train.model import device_of
from harness.train.packing import IGNORED, join


def losses_of(config: Config, base: Path, checkpoint: Path, rows: Sequence[Rendered]) -> tuple[float, float]:
    """Mean losses (nats a supervised token) of the base model and of a checkpoint, an adapter or a whole model."""
    model = _loaded(base, config)
    before = eval_loss(model, rows)
    trained = with_adapter(model, checkpoint, base) if is_adapter(checkpoint) else _loaded(checkpoint, config)
    return before, eval_loss(trained, rows)


def _loaded(folder: Path, config: Config) -> Any:
    model = load_model(folder, config.model.dtype)
    device = device_of(config.train)
    if device == "cpu":
        use_packed_attention(model)
    return model.to(device)


def eval_loss(model: Any, rows: Sequence[Rendered], length: int = 1024) -> float:
    """Mean loss (nats) of the supervised tokens of `rows`; every row once, the model left in the mode it was in."""
    sums = row_losses(model, rows, length)
    return sum(sums) / sum(sum(row.mask[1:]) for row in rows)


def row_losses(model: Any, rows: Sequence[Rendered], length: int = 1024) -> list[float]:
    """Summed loss (nats) of each row's supervised tokens, in the order given.

    Rows are run in batches of up to `length` tokens, the longest first: memory that does not suffice shows at once.
    """
    found = [0.0] * len(rows)
    training = model.training
    model.eval()
    with torch.no_grad():
        for members in by_length([len(row.ids) for row in rows], length):
            for row, loss in zip(members, _batch(model, [rows[m] for m in members]), strict=True):
                found[row] = loss
    model.train(training)
    return found


def by_length(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Numbers of the rows, longest first, cut into batches of at most `length` tokens (or one row that is longer)."""
    batches: list[list[int]] = []
    room = 0
    for row in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        if not batches or sizes[row] > room:
            batches.append([])
            room = length
        batches[-1].append(row)
        room -= sizes[row]
    return batches


def _batch(model: Any, rows: Sequence[Rendered]) -> list[float]:
    packed = join(rows)
    labels = torch.tensor(packed.labels, device=model.device)
    supervised = (labels != IGNORED).nonzero().squeeze(1)
    logits = model(
        input_ids=torch.tensor([packed.input_ids], device=model.device),
        position_ids=torch.tensor([packed.position_ids], device=model.device),
        logits_to_keep=supervised,
        use_cache=False,
    ).logits[0]
    number = (torch.tensor(packed.position_ids, device=model.device) == 0).cumsum(0)[supervised] - 1
    sums = torch.zeros(len(rows), dtype=torch.float64, device=model.device)
    return [float(s) for s in sums.index_add_(0, number, token_losses(logits, labels[supervised]).double())]
