"""Tokens of packed rows that need not be computed: loss and gradients are the same without them.

What comes after the last token with a loss, and what all rows begin with, such as a system message, all but once:
attention is causal and positions restart with every row, so those tokens have one hidden state in all of them. Imports
torch: only the training stage imports this file.
"""

import torch

from harness.train.packing import IGNORED

_LEAST = 8  # tokens: fewer are not worth the longer way through attention


def skip_unused_tokens(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`inputs` of shape (1, tokens) without both; tensors of other shapes stay as they are."""
    return share_prompt(drop_tails(inputs))


def drop_tails(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`inputs` of shape (1, tokens) up to each row's last label: nothing with a loss attends to what follows.

    A row without labels is left out, unless none has any. Tensors of other shapes stay as they are.
    """
    labels = inputs["labels"][0]
    row = (inputs["position_ids"][0] == 0).cumsum(0) - 1
    place = torch.arange(len(labels), device=labels.device)
    supervised = labels != IGNORED
    last = place.new_full((int(row[-1]) + 1,), -1).scatter_reduce(0, row[supervised], place[supervised], "amax")
    kept = place <= last[row]
    return _kept(inputs, kept) if kept.any() else inputs


def share_prompt(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`inputs` of shape (1, tokens) without the repeated beginning; a row's positions then begin after it.

    Tensors of other shapes stay as they are.
    """
    if not (shared := shared_tokens(inputs)):
        return inputs
    positions = inputs["position_ids"]
    kept = (positions[0] >= shared) | ((positions[0] == 0).cumsum(0) == 1)
    return _kept(inputs, kept)


def shared_tokens(inputs: dict[str, torch.Tensor]) -> int:
    """How many tokens all rows begin with, 0 for too few; nothing supervised, and never the whole of a row."""
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
    """All that is of shape (1, tokens) where `kept`, of shape (tokens,), is true."""
    shape = inputs["position_ids"].shape
    return {name: value[:, kept] if value.shape == shape else value for name, value in inputs.items()}
