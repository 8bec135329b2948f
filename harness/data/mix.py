"""The mix: how many rows of each source are used, which ones, and which of them are set aside for validation."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.config.data import DataConfig
from harness.core.errors import DataError

RowCounts = dict[str, int]


def wanted(data: DataConfig, available: Mapping[str, int]) -> RowCounts:
    """The number of rows to take from each source. Raises DataError that names every source with too few rows."""
    counts = _explicit(data, available)
    short = [
        f"{name} (needed {count}, available {available[name]})"
        for name, count in counts.items()
        if count > available[name]
    ]
    if short:
        raise DataError(
            f"the mix cannot be made: too few rows are left of {', '.join(short)}. "
            "Add rows, or lower data.mix.rows or data.sources.<name>.rows."
        )
    return counts


def _explicit(data: DataConfig, available: Mapping[str, int]) -> RowCounts:
    sources = data.sources
    fixed = {name: source.rows for name, source in sources.items() if source.rows is not None}
    weights = {name: source.weight for name, source in sources.items() if source.weight is not None}
    if weights:
        total = _total(weights, available) if data.mix.rows is None else data.mix.rows - sum(fixed.values())
        if total <= 0 and data.mix.rows is not None:
            raise DataError(f"data.mix.rows={data.mix.rows} leaves no rows for the sources with a weight; raise it")
        if total == 0:
            empty = [f"{name} (available {available[name]})" for name in weights if not available[name]]
            raise DataError(f"the mix cannot be made: no row is left of {', '.join(empty) or 'its sources'}")
        return {**fixed, **_shared_out(total, weights)}
    replay = [name for name, source in sources.items() if source.role == "replay" and name not in fixed]
    domain = {name: available[name] for name in sources if name not in fixed and name not in replay}
    counts = {**fixed, **domain}
    base = sum(counts.values())
    if data.mix.replay == "all" or not base:
        return {**counts, **{name: available[name] for name in replay}}
    if replay:
        total = round(data.mix.replay / (1 - data.mix.replay) * base)
        counts |= _shared_out(total, {name: max(available[name], 1) for name in replay})
    return counts


def _total(weights: Mapping[str, float], available: Mapping[str, int]) -> int:
    """The most rows in all that the weights and the available rows allow."""
    whole = sum(weights.values())
    total = int(min(available[name] * whole / weight for name, weight in weights.items()))
    while total and any(n > available[name] for name, n in _shared_out(total, weights).items()):
        total -= 1
    return total


def _shared_out(total: int, weights: Mapping[str, float]) -> RowCounts:
    """`total` divided by weight, rounded by largest remainder so that the parts add up."""
    whole = sum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    counts = {name: int(value) for name, value in exact.items()}
    left = total - sum(counts.values())
    for name in sorted(exact, key=lambda n: (counts[n] - exact[n], n))[:left]:
        counts[name] += 1
    return counts


def sample(rows: Sequence[int], count: int, sampling: str, topics: Sequence[str], seed: str) -> list[int]:
    """`count` of the row numbers, ascending. `topics` holds the topic of each row; by_topic keeps their shares."""
    if count >= len(rows):
        return list(rows)
    if sampling == "first":
        return list(rows[:count])
    if sampling == "random":
        return sorted(random.Random(seed).sample(rows, count))
    members: dict[str, list[int]] = {}
    for row, topic in zip(rows, topics, strict=True):
        members.setdefault(topic, []).append(row)
    parts = _shared_out(count, {topic: len(numbers) for topic, numbers in members.items()})
    chosen = [random.Random(f"{seed}/{topic}").sample(members[topic], n) for topic, n in parts.items()]
    return sorted(row for part in chosen for row in part)


def split(rows: Sequence[int], clusters: NDArray[np.int64], share: float, seed: int) -> tuple[list[int], list[int]]:
    """(train, validation), both ascending. Whole clusters go to validation until its share is reached.

    Rows of a cluster (duplicates, near-duplicates, the same prompt with several answers) are never on both sides.
    """
    target = round(share * len(rows))
    if not target:
        return list(rows), []
    members: dict[int, list[int]] = {}
    for row in rows:
        members.setdefault(int(clusters[row]), []).append(row)
    order = sorted(members)
    random.Random(f"validation/{seed}").shuffle(order)
    validation: list[int] = []
    for cluster in order:
        if len(validation) + len(members[cluster]) <= target:
            validation += members[cluster]
    chosen = set(validation)
    return [row for row in rows if row not in chosen], sorted(chosen)
