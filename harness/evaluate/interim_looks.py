"""Evaluation in interim looks: more and more items, in a seeded random order, until a rule has decided each task."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DecidedTasks = Callable[[Mapping[str, Path]], Collection[str]]


@dataclass(frozen=True)
class InterimLooks:
    """How many items to evaluate before each look, and when to stop.

    `sizes` gives, for a number of planned items, the rising numbers of items at the looks; the last look sees all.
    `order` gives the order in which a task's planned items are evaluated. Models in `in_full` are evaluated on all
    items before the first look. `decided` gets the evaluation folders by label, complete up to this look, and returns
    the tasks (leaves, not groups) that need no more items. It must depend on nothing but the folders. `rule` identifies
    the decision rule: an evaluation that was stopped by one rule is not reused for another.
    """

    sizes: Callable[[int], Sequence[int]]
    order: Callable[[str, Sequence[int]], list[int]]
    seed: int
    rule: str
    decided: DecidedTasks
    in_full: Collection[str] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """What the fingerprint of a stopped evaluation contains."""
        return {"seed": self.seed, "rule": self.rule, "whole": sorted(self.in_full)}

    def run(
        self,
        planned: Mapping[str, Sequence[int]],
        ask: Callable[[dict[str, list[int]]], None],
        results: Callable[[dict[str, list[int]]], Mapping[str, Path]],
    ) -> dict[str, list[int]]:
        """The items of each task that were evaluated in the end.

        `ask` gets answers to items, `results` writes evaluations of them and returns their folders by label.
        """
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
