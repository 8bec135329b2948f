"""What all rows of a part of a step begin with, such as a system message, computed once instead of once a row.

Attention is causal and positions restart with every row, so those tokens have one hidden state in all of them. Imports
torch: only the training stage imports this file.
"""

import torch

from harness.train.packing import IGNORED

_LEAST = 8  # tokens: fewer are not worth the longer way through attention


def share_prompt(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`inputs` of shape (1, tokens) without the repeated beginning; a row's positions then begin after it.

    Tensors of other shapes stay as they are.
    """
    if not (shared := shared_tokens(inputs)):
        return inputs
    positions = inputs["position_ids"]
    kept = (positions[0] >= shared) | ((positions[0] == 0).cumsum(0) == 1)
    return {name: value[:, kept] if value.shape == positions.shape else value for name, value in inputs.items()}


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
