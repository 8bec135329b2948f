"""How a group weighs its tasks: by size, or equally (lm-eval's `weight_by_size: false`).

lm-eval does not write the setting down, but the group's mean that it reports follows from one of the two only.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from harness.gate.columns import Column

SAME = 1e-9
ROUNDING = 1e-4

Weighting = Mapping[tuple[str, str], bool]


def equally_weighted(
    groups: Mapping[str, Sequence[str]],
    samples: Mapping[str, Mapping[str, Column]],
    reported: Mapping[str, Mapping[str, float]],
) -> dict[tuple[str, str], bool]:
    """(group, metric) → whether its reported mean weighs the tasks equally; absent where both weightings agree."""
    return {
        (group, metric): equally
        for group, tasks in groups.items()
        for metric, value in reported.get(group, {}).items()
        for equally in _told(value, [samples.get(task, {}).get(metric) for task in tasks])
    }


def _told(value: float, columns: Sequence[Column | None]) -> Iterator[bool]:
    found = [column for column in columns if column is not None and len(column)]
    if len(found) < max(2, len(columns)):
        return
    means = np.array([column.values.mean() for column in found])
    equally, by_size = float(means.mean()), float(np.average(means, weights=[len(column) for column in found]))
    near_equally, near_by_size = abs(value - equally), abs(value - by_size)
    if min(near_equally, near_by_size) <= ROUNDING and abs(near_equally - near_by_size) > SAME:
        yield near_equally < near_by_size


def weighting_faults(left: Weighting, right: Weighting) -> list[str]:
    """Groups that the two sides weigh differently, in words."""
    return [
        f"group {group}: {metric} weighs tasks by their size on one side, and equally on the other"
        for group, metric in sorted(left.keys() & right.keys())
        if left[group, metric] != right[group, metric]
    ]
