"""Leaves out tokens of packed rows that affect neither the loss nor a gradient.

Those are the tokens after a row's last token with a loss, and all repetitions of the beginning that rows share, such
as a system message: attention is causal and positions restart with every row, so a shared token has the same hidden
state in all rows. Imports torch: only training imports this file.
"""

import torch

from harness.train.packing import IGNORED

_LEAST = 8  # fewer shared tokens do not pay for the slower attention


def skip_unused_tokens(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`inputs`, shape (1, tokens), without either kind of unused tokens; tensors of other shapes are unchanged."""
    return share_prompt(drop_tails(inputs))


def drop_tails(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`inputs`, shape (1, tokens), up to each row's last label: no token with a loss attends to what follows.

    Rows without labels are left out, unless no row has any. Tensors of other shapes are unchanged.
    """
    labels = inputs["labels"][0]
    row = (inputs["position_ids"][0] == 0).cumsum(0) - 1
    place = torch.arange(len(labels), device=labels.device)
    supervised = labels != IGNORED
    last = place.new_full((int(row[-1]) + 1,), -1).scatter_reduce(0, row[supervised], place[supervised], "amax")
    kept = place <= last[row]
    return _kept(inputs, kept) if kept.any() else inputs


def share_prompt(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`inputs`, shape (1, tokens), without the repeated beginning; a row's positions then start after it.

    Tensors of other shapes are unchanged.
    """
    if not (shared := shared_tokens(inputs)):
        return inputs
    positions = inputs["position_ids"]
    kept = (positions[0] >= shared) | ((positions[0] == 0).cumsum(0) == 1)
    return _kept(inputs, kept)


def shared_tokens(inputs: dict[str, torch.Tensor]) -> int:
    """Number of tokens that all rows begin with: unsupervised, and never a whole row. 0 if fewer than _LEAST."""
    ids, positions, labels = (inputs[name][0] for name in ("input_ids", "position_ids", "labels"))
    starts = (positions == 0).nonzero()[:, 0]
    sizes = torch.cat((starts, starts.new_tensor([len(ids)]))).diff()
    most = int(torch.cat((sizes - 1, positions[labels != IGNORED])).min())
    if len(starts) < 2 or most < _LEAST:
        return 0
    beginnings = ids[starts[:, None] + torch.arange(most, device=ids.device)]
    shared = int((beginnings == beginnings[0]).all(0).long().cumprod(0).sum())
    return shared if shared >= _LEAST else 0


def _kept(inputs: dict[str, torch.Tensor], kept: torch.Tensor) -> dict[str, torch.Tensor]:
    """Tensors of shape (1, tokens) reduced to the tokens where `kept`, shape (tokens,), is true."""
    shape = inputs["position_ids"].shape
    return {name: value[:, kept] if value.shape == shape else value for name, value in inputs.items()}
