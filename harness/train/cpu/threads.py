"""Splits the rows of a step into shards that threads compute at the same time, each on its own cores.

The layers of a small model are too small to keep several cores busy with one sequence; one shard per core does.
Imports torch: only training imports this file.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier
from typing import Any

import torch

from harness.config.experiment import TrainingConfig

Shard = dict[str, torch.Tensor]
_SMALLEST = 128  # fewest tokens of a shard: the layers' products need some rows


def parts_at_once(config: TrainingConfig) -> int:
    """How many shards of a step are computed in parallel: as configured, or one per core.

    Only one under a launcher, with gradient checkpointing (to save memory), and for what threads cannot repeat bit for
    bit or cannot share: dropout's random numbers, a whole model's gradients, the model without its adapter (KL).
    """
    train = config.train
    alone = (
        config.launcher != "none"
        or train.method != "lora"
        or train.lora.dropout > 0
        or train.kl_to_base > 0
        or train.l2_to_start > 0
        or train.gradient_checkpointing
    )
    if alone:
        return 1
    most = max(1, train.sequences_per_step * train.sequence_length // _SMALLEST)
    return min(most, train.parts_at_once or torch.get_num_threads())


def uses_randomness(model: Any) -> bool:
    """Whether the model has dropout of its own: threads would draw from one generator in random order."""
    layers = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return layers or bool(getattr(model.config, "attention_dropout", None))


def has_experts(model: Any) -> bool:
    """Whether the model is a mixture of experts: peft's adapters on experts change the module while it computes."""
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    return any((getattr(model.config, name, None) or 0) > 1 for name in names)


class ThreadedShards:
    """`count` threads that share the cores evenly; each runs PyTorch's own threads on its share."""

    def __init__(self, count: int):
        self.count = count
        threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(count, "shard", _limit_threads, (max(1, threads // count),))
        started = Barrier(count)
        list(self._pool.map(lambda _: started.wait(), range(count)))
        torch.set_num_threads(threads)  # a thread's setting holds for itself and for threads created later

    def map(self, work: Callable[[Shard], Any], shards: Sequence[Shard]) -> Iterator[Any]:
        """The results of `work` on each shard, in the order of `shards`."""
        return self._pool.map(work, shards)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def _limit_threads(threads: int) -> None:
    """Sets the calling thread's own number of threads. Its first call reads the global number, so that comes first."""
    torch.get_num_threads()
    torch.set_num_threads(threads)


def split_into_shards(inputs: Shard, sequences: int, at_once: int, shared: int = 0) -> list[Shard]:
    """The rows of a step of `sequences` packed sequences, in a multiple of `at_once` shards of about equal work.

    The `shared` tokens that every row begins with are hardly any work: with them there are fewer shards with more rows.
    No row is cut, so there may be fewer shards still. Each holds its number as `shard`, an int64 of shape ().
    """
    positions = inputs["position_ids"][0]
    starts = (positions == 0).nonzero()[:, 0]
    work = torch.cat((torch.zeros(1, dtype=torch.int64), (positions >= shared).cumsum(0)))
    before, total = work[starts].tolist(), int(work[-1])
    count = math.ceil(math.ceil(sequences * total / len(positions)) / at_once) * at_once
    chosen = sorted({_nearest(before, number * total / count) for number in range(1, count)} - {0})
    sizes = [end - start for start, end in pairwise((0, *starts[chosen].tolist(), len(positions)))]
    columns = {key: value.split(sizes, dim=1) for key, value in inputs.items()}
    return [
        {**{key: cut[number] for key, cut in columns.items()}, "shard": torch.tensor(number)}
        for number in range(len(sizes))
    ]


def _nearest(before: list[int], place: float) -> int:
    """The row whose work before it is closest to `place`; `before` is sorted."""
    after = bisect_left(before, place)
    return min(range(max(0, after - 1), min(after + 1, len(before))), key=lambda row: abs(before[row] - place))


def add_gradient(parameter: torch.Tensor, gradient: torch.Tensor | None) -> None:
    """Adds a gradient as `backward` does. None: the shard did not use the parameter. Keeps the parameter's layout."""
    if gradient is None:
        return
    if parameter.grad is None:
        parameter.grad = torch.empty_like(parameter).copy_(gradient)
    else:
        parameter.grad.add_(gradient)
