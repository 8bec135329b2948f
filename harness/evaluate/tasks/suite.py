"""What a suite can show: the number of items of each task, and the smallest drop that they detect."""

import sys
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.config.experiment import EvaluationConfig, TaskConfig
from harness.core.errors import NetworkFault
from harness.evaluate.tasks.check import check_suite_files
from harness.stats.power import n_for_noninferiority

DISCORDANCES = (0.10, 0.20)
PRECISION = 1e-4


@dataclass(frozen=True)
class DetectableDrop:
    """The smallest drop of a right/wrong metric that the items of a task or group detect.

    `drops` has one value for each share in DISCORDANCES of items on which two models differ; None where no drop is
    detected. `known` is False where the data are missing, and `items` is only the task's limit.
    """

    task: str
    items: int
    known: bool
    drops: tuple[float | None, ...]


def smallest_drop(items: int, discordance: float, alpha: float, power: float) -> float | None:
    """The smallest margin for which this many paired items show non-inferiority with this power; None without one.

    The inverse of `n_for_noninferiority` (Miller 2024), to a hundredth of a point. A one-sided test at alpha detects
    the same drop with this power.
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
    """The smallest drops that each task and group detects at the policy's error rates."""
    gate = config.gate
    result = []
    for task in config.tasks:
        size = sizes[task.name]
        items = task.limit or 0 if size is None else size
        drops = tuple(smallest_drop(items, share, gate.pass_level(), gate.power) for share in DISCORDANCES)
        result.append(DetectableDrop(task.name, items, size is not None, drops))
    return result


def sizes(tasks: Sequence[TaskConfig], loaded: dict[str, Any]) -> dict[str, int | None]:
    """The number of evaluated items by task or group, for loaded tasks."""
    from harness.evaluate.tasks.load import leaves

    def evaluated(task: TaskConfig, leaf: str) -> int:
        return min(task.limit or sys.maxsize, len(loaded["tasks"][leaf].eval_docs))

    return {task.name: sum(evaluated(task, leaf) for leaf in leaves(loaded, task.name)) for task in tasks}


def metric_sizes(tasks: Sequence[TaskConfig], seed: int) -> dict[str, dict[str, int]]:
    """Items that each metric has, by task, for the tasks under tasks/ that have a behaviour.

    Which metrics an item has is what the task's grader returns for an empty answer; `seed` draws the sample of a limit,
    as an evaluation does. No code of the user's tasks is run: for them the behaviour's own metrics count. A task
    whose grader takes no empty answer is left out.
    """
    from harness.behavior.registry import behavior_folders
    from harness.behavior.rules import without_functions
    from harness.evaluate.domain import behavior_metrics
    from harness.evaluate.tasks.load import CodeNotRun, load_tasks, sample

    folders = behavior_folders()
    found: dict[str, dict[str, int]] = {}
    for task in (task for task in tasks if task.name in folders):
        with without_functions():
            try:
                code = load_tasks([task], None, run_code=False)["tasks"][task.name]
            except CodeNotRun:
                rows, graded = behavior_rows(task.name), partial(behavior_metrics, task.name)
            else:
                rows, graded = code.eval_docs, partial(_graded, code)
            chosen = sample(task.name, len(rows), task.limit, seed)
            with suppress(Exception):  # a grader may need an answer; the task's size then stands for all its metrics
                found[task.name] = dict(Counter(name for index in chosen for name in graded(rows[index], "")))
    return found


def _graded(code: Any, row: dict[str, Any], answer: str) -> Any:
    return code.process_results(row, [answer])


def behavior_rows(name: str) -> list[dict[str, Any]]:
    """The items of a task with a behaviour, read without the task's own code; empty where it has no items.jsonl."""
    from harness.behavior.registry import behavior_folders
    from harness.data.evaluation_items import ITEMS, read_items

    folder = behavior_folders().get(name)
    return read_items(folder / ITEMS) if folder is not None and (folder / ITEMS).is_file() else []


def local_sizes(config: EvaluationConfig) -> tuple[dict[str, int | None], set[str]]:
    """As `sizes`, loading the tasks, and the tasks that name code of the user's; None where the data are not here.

    No code of the user's tasks is run: their items are counted where they lie in an items.jsonl, and are unknown else.
    """
    from harness.evaluate.tasks.load import CodeNotRun, load_tasks

    result: dict[str, int | None] = {}
    coded: set[str] = set()
    for task in config.tasks:
        try:
            hub = Path(config.hub_dir) if config.hub_dir else None
            result |= sizes([task], load_tasks([task], hub, run_code=False))
        except CodeNotRun:
            own = len(behavior_rows(task.name))
            result[task.name] = min(task.limit or sys.maxsize, own) if own else None
            coded.add(task.name)
        except NetworkFault:
            result[task.name] = None
    return result, coded


def description(config: EvaluationConfig, tasks: Sequence[DetectableDrop], coded: Collection[str] = ()) -> str:
    """A table of tasks, items and smallest drops (in points); the items of `coded` tasks are known to code alone."""
    gate = config.gate
    shares = " / ".join(f"{share:.0%}" for share in DISCORDANCES)
    lines = [
        f"suite {config.suite.name}, policy {gate.name}: the smallest drop, in points, that is detected with a",
        f"probability of {gate.power:.0%} (one-sided alpha {gate.pass_level():g}) if {shares} of the answers differ",
        f"{'task':<24} {'items':>6}   drop",
    ]
    for one in tasks:
        drops = " / ".join("none" if drop is None else f"{100 * drop:.1f}" for drop in one.drops)
        why = (
            "its items are known to its code alone, which is not run here"
            if one.task in coded
            else "its data are missing"
        )
        at_most = "" if one.known else f"  ({why}: this is the limit of each task)" if one.items else f"  ({why})"
        items = str(one.items) if one.known or one.items else "?"
        lines.append(f"{one.task:<24} {items:>6}   {drops if one.items else '?'}{at_most}")
    if config.suite.skip:
        lines.append(f"skipped: {', '.join(config.suite.skip)}")
    return "\n".join(lines)


def suite_statement(config: EvaluationConfig, loaded: dict[str, Any]) -> str:
    """One line for the start of an evaluation: the smallest drop of each task or group, at the first discordance."""
    tasks = detectable_drops(config, sizes(config.tasks, loaded))
    drops = [f"{one.task} {100 * drop:.1f}" for one in tasks if (drop := one.drops[0]) is not None]
    skipped = f"; skipped: {', '.join(config.suite.skip)}" if config.suite.skip else ""
    return f"smallest drops detected, in points, if 10% of the answers differ: {', '.join(drops) or 'none'}{skipped}"


def suite_description(config: EvaluationConfig) -> str:
    """The table of the configured suite, with the data on this machine. Raises ConfigError for errors in its files."""
    check_suite_files(task.name for task in config.tasks)
    counted, coded = local_sizes(config)
    return description(config, detectable_drops(config, counted), coded)
