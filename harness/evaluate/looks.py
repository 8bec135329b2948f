"""Evaluation in looks: items in a seeded random order, growing numbers of them, until a rule has decided a task."""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

Decided = Callable[[Mapping[str, Path]], Collection[str]]


@dataclass(frozen=True)
class Looks:
    """How far to ask before each look: `sizes` items of every task that is still open, in the end all of them.

    `decided` is given the evaluation folders by label, complete for what was asked so far, and names the tasks
    (leaves, not groups) that need no more items. `rule` names it: what was decided by one rule is not taken over for
    another. It must depend on nothing but the folders.
    """

    sizes: Sequence[int]
    seed: int
    rule: str
    decided: Decided

    @property
    def identity(self) -> dict[str, Any]:
        return {"sizes": list(self.sizes), "seed": self.seed, "rule": self.rule}

    def order(self, task: str, items: Sequence[int]) -> list[int]:
        """The order in which the planned items of a task are asked."""
        return random.Random(f"{self.seed}:{task}").sample(list(items), len(items))

    def run(
        self,
        planned: Mapping[str, Sequence[int]],
        ask: Callable[[dict[str, list[int]]], None],
        results: Callable[[dict[str, list[int]]], Mapping[str, Path]],
    ) -> dict[str, list[int]]:
        """The items asked of each task in the end. `ask` has items answered, `results` writes evaluations of them."""
        orders = {task: self.order(task, items) for task, items in planned.items()}
        undecided = set(planned)
        items: dict[str, list[int]] = {}
        for size in chain(self.sizes, [max(map(len, orders.values()))]):
            items |= {task: orders[task][:size] for task in undecided}
            ask(items)
            undecided = {task for task in undecided if len(items[task]) < len(orders[task])}
            if undecided:
                undecided -= set(self.decided(results(items)))
            if not undecided:
                break
        return items
