"""What a suite can show: its items, and the smallest drop that so many would not miss."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.experiment import EvaluationConfig, TaskConfig
from harness.core.errors import NetworkFault
from harness.stats.power import n_for_noninferiority

DISCORDANCES = (0.10, 0.20)
PRECISION = 1e-4


@dataclass(frozen=True)
class DetectableDrop:
    """A task or group with its items (`known`: counted, not just its limit), and the smallest drop of a right/wrong
    metric that so many show, for each share in DISCORDANCES of items on which two models differ (None: no drop)."""

    task: str
    items: int
    known: bool
    drops: tuple[float | None, ...]


def smallest_drop(items: int, discordance: float, alpha: float, power: float) -> float | None:
    """The smallest margin for which so many paired items show non-inferiority with this power; None when none does.

    The inverse of `n_for_noninferiority` (Miller 2024), to a hundredth of a point: the same drop is also what a
    one-sided test at alpha finds with this power.
    """
    low, high = PRECISION, 1 - PRECISION
    if items < 1 or n_for_noninferiority(high, discordance, alpha, power) > items:
        return None
    while high - low > PRECISION:
        middle = (low + high) / 2
        enough = n_for_noninferiority(middle, discordance, alpha, power) <= items
        low, high = (low, middle) if enough else (middle, high)
    return high


def detectable_drops(config: EvaluationConfig, sizes: dict[str, int | None]) -> list[DetectableDrop]:
    """What each task and group can show at the policy's error rates."""
    gate = config.gate
    found = []
    for task in config.tasks:
        size = sizes[task.name]
        items = task.limit or 0 if size is None else size
        drops = tuple(smallest_drop(items, share, gate.alpha_pass, gate.power) for share in DISCORDANCES)
        found.append(DetectableDrop(task.name, items, size is not None, drops))
    return found


def sizes(tasks: Sequence[TaskConfig], loaded: dict[str, Any]) -> dict[str, int | None]:
    """Items that are asked, by task or group, of loaded tasks."""
    from harness.evaluate.tasks.load import leaves

    def asked(task: TaskConfig, leaf: str) -> int:
        return min(task.limit or sys.maxsize, len(loaded["tasks"][leaf].eval_docs))

    return {task.name: sum(asked(task, leaf) for leaf in leaves(loaded, task.name)) for task in tasks}


def local_sizes(config: EvaluationConfig) -> dict[str, int | None]:
    """As `sizes`, of what can be loaded on this machine; None where a task's data are not here."""
    from harness.evaluate.tasks.load import load_tasks

    found: dict[str, int | None] = {}
    for task in config.tasks:
        try:
            found |= sizes([task], load_tasks([task], Path(config.hub_dir) if config.hub_dir else None))
        except NetworkFault:
            found[task.name] = None
    return found


def description(config: EvaluationConfig, found: Sequence[DetectableDrop]) -> str:
    """A table: task, items, smallest drops in points."""
    gate = config.gate
    shares = " / ".join(f"{share:.0%}" for share in DISCORDANCES)
    lines = [
        f"suite {config.suite.name}, policy {gate.name}: the smallest drop, in points, that is shown with a chance of",
        f"{gate.power:.0%} (one-sided alpha {gate.alpha_pass:g}) where {shares} of the items differ between the models",
        f"{'task':<24} {'items':>6}   drop",
    ]
    for one in found:
        drops = " / ".join("none" if drop is None else f"{100 * drop:.1f}" for drop in one.drops)
        at_most = "" if one.known else "  (its data are not here: the suite's limit, each task of a group)"
        items = str(one.items) if one.known or one.items else "?"
        lines.append(f"{one.task:<24} {items:>6}   {drops if one.items else '?'}{at_most}")
    if config.suite.skip:
        lines.append(f"skipped: {', '.join(config.suite.skip)}")
    return "\n".join(lines)


def suite_statement(config: EvaluationConfig, loaded: dict[str, Any]) -> str:
    """One line for the start of an evaluation: the smallest drop of each task or group at the first discordance."""
    found = detectable_drops(config, sizes(config.tasks, loaded))
    drops = [f"{one.task} {100 * drop:.1f}" for one in found if (drop := one.drops[0]) is not None]
    skipped = f"; skipped: {', '.join(config.suite.skip)}" if config.suite.skip else ""
    return f"smallest drops shown, in points (10% of answers differing): {', '.join(drops) or 'none'}{skipped}"


def suite_description(config: EvaluationConfig) -> str:
    """What the configured suite can show with the data of this machine."""
    return description(config, detectable_drops(config, local_sizes(config)))
