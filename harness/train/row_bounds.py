"""Where the rows of a packed sequence begin and end. Imports torch: only the training stage imports this file."""

from typing import NamedTuple

import torch
from torch import Tensor


class Row(NamedTuple):
    """A row's own tokens in a packed sequence; before them it sees the first `shared` tokens after `root`."""

    start: int
    end: int
    root: int
    shared: int

    @property
    def length(self) -> int:
        """Tokens that its last token sees, itself included."""
        return self.shared + self.end - self.start

    def seen(self, tensor: Tensor, tokens: int) -> Tensor:
        """What of `tensor` the row's last token sees; `tokens` is the dimension of the tokens."""
        own = tensor.narrow(tokens, self.start, self.end - self.start)
        return torch.cat((tensor.narrow(tokens, self.root, self.shared), own), tokens) if self.shared else own


def bounds(positions: Tensor) -> list[Row]:
    """The rows of a packed sequence. positions (tokens,): each row's begin anew, at 0 or after what it shares.

    Raises ValueError where a row would share more than the row at its root has.
    """
    starts: list[int] = [0, *((positions.diff() != 1).nonzero().flatten() + 1).tolist()]
    ends = [*starts[1:], len(positions)]
    rows: list[Row] = []
    root, most = 0, 0
    for start, end, shared in zip(starts, ends, [0, *positions[starts[1:]].tolist()], strict=True):
        if not shared:
            root, most = start, end - start
        elif shared > most:
            raise ValueError(
                f"positions go from {positions[start - 1]} to {shared}, and the row before has {most} tokens"
            )
        rows.append(Row(start, end, root, shared))
    return rows
