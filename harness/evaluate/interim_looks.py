"""Evaluation in looks: items in a seeded random order, growing numbers of them, until a rule has decided a task."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DecidedTasks = Callable[[Mapping[str, Path]], Collection[str]]


@dataclass(frozen=True)
class InterimLooks:
    """How far to ask before each look: `sizes` gives the numbers of items of a task with so many planned, rising, in
    the end all of them; `order` the order in which its planned items are asked.

    Models in `in_full` are asked everything before the first look. `decided` is given the evaluation folders by label,
    complete for what was asked so far, and names the tasks (leaves, not groups) that need no more items. `rule` names
    all of it: what was decided by one rule is not taken over for another. It must depend on nothing but the folders.
    """

    sizes: Callable[[int], Sequence[int]]
    order: Callable[[str, Sequence[int]], list[int]]
    seed: int
    rule: str
    decided: DecidedTasks
    in_full: Collection[str] = ()

    @property
    def identity(self) -> dict[str, Any]:
        return {"seed": self.seed, "rule": self.rule, "whole": sorted(self.in_full)}

    def run(
        self,
        planned: Mapping[str, Sequence[int]],
        ask: Callable[[dict[str, list[int]]], None],
        results: Callable[[dict[str, list[int]]], Mapping[str, Path]],
    ) -> dict[str, list[int]]:
        """The items asked of each task in the end. `ask` has items answered, `results` writes evaluations of them."""
        orders = {task: self.order(task, items) for task, items in planned.items()}
        looks = {task: [*self.sizes(len(order)), len(order)] for task, order in orders.items()}
        undecided = set(planned)
        items: dict[str, list[int]] = {}
        for look in range(max(map(len, looks.values()))):
            items |= {task: orders[task][: looks[task][min(look, len(looks[task]) - 1)]] for task in undecided}
            ask(items)
            undecided = {task for task in undecided if len(items[task]) < len(orders[task])}
            if undecided:
                undecided -= set(self.decided(results(items)))
            if not undecided:
                break
        return items
