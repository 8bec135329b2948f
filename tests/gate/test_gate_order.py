"""Any order of the items gives the same bits, on every path to a verdict."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import Folder, Row, compare_both, guard, policy, sample

from harness.config.gate import GateConfig, RuleConfig
from harness.gate.verdict import decide
from harness.results.evidence import read_evidence

Item = tuple[float, float, int]  # the baseline's score, the candidate's, the cluster


def right_wrong(n: int, seed: int) -> list[Item]:
    luck = random.Random(seed)
    return [(float(luck.random() < 0.8), float(luck.random() < 0.8), index // 5) for index in range(n)]


def graded(n: int, seed: int) -> list[Item]:
    """Tenths, so that many are tied and few are exact in binary."""
    luck = random.Random(seed)
    return [(luck.randrange(11) / 10, luck.randrange(4, 11) / 10, index // 5) for index in range(n)]


def uneven(n: int, seed: int) -> list[Item]:
    luck = random.Random(seed)
    return [(luck.random(), luck.betavariate(5, 1), luck.randrange(40)) for _ in range(n)]


def lowest(items: list[Item]) -> list[Item]:
    return [(100 * before, 100 * after, cluster) for before, after, cluster in items]


def target(**changes: Any) -> RuleConfig:
    return RuleConfig(**({"metric": "*/quiz/acc", "role": "target"} | changes))


PATHS: dict[str, tuple[list[Item], GateConfig]] = {
    "right/wrong": (right_wrong(120, 1), policy(guard(), target(floor=0.7))),
    "few tied scores": (graded(60, 2), policy(guard())),
    "some tied scores": (graded(150, 3), policy(guard(), target(floor=0.5))),
    "many scores": (uneven(4300, 4), policy(guard(margin="1 points"))),
    "scores with a range": (lowest(graded(90, 5)), policy(guard(range=(0.0, 100.0)))),
    "a demanded gain": (graded(150, 6), policy(target(margin="3 points"), require=["target"])),
    "right/wrong in clusters": (right_wrong(400, 7), policy(guard(cluster="passage"))),
    "few clusters": (right_wrong(60, 8), policy(guard(cluster="passage"))),
    "scores in clusters": (uneven(400, 9), policy(guard(cluster="passage"), target(floor=0.6, cluster="passage"))),
    "floor of clusters": (right_wrong(400, 10), policy(target(floor=0.7, cluster="passage"), require=["target"])),
    "demanded gain of clusters": (
        graded(300, 11),
        policy(target(margin="3 points", cluster="passage"), require=["target"]),
    ),
    "slices": (graded(150, 12), policy(guard(slices=["p3"]), slice_key="passage")),
}


def rows(items: Sequence[Item], side: int) -> list[Row]:
    return [sample(index, item[side], doc={"id": index, "passage": f"p{item[2]}"}) for index, item in enumerate(items)]


def decided(path: Path, tasks: dict[str, list[Item]], gate: GateConfig, equally: bool = False) -> list[Any]:
    groups = {"quiz": [*tasks]} if len(tasks) > 1 else {}
    sides = [Folder({task: rows(items, side) for task, items in tasks.items()}, groups=groups) for side in (0, 1)]
    evidence = [read_evidence(one.write(path / name), gate.fields) for one, name in zip(sides, "ab", strict=True)]
    if groups:
        evidence = [replace(one, equal_weights={("quiz", "acc"): equally}) for one in evidence]
    verdict = decide(gate, compare_both(evidence, gate))
    assert verdict.verdict != "INVALID"
    return [verdict.verdict, verdict.reasons, verdict.forgetting, *(metric.model_dump() for metric in verdict.metrics)]


def shuffled(items: Sequence[Item], seed: int) -> list[Item]:
    return random.Random(seed).sample(items, len(items))


@pytest.mark.parametrize("name", PATHS)
def test_the_order_of_the_items_changes_no_bit(tmp_path: Path, name: str) -> None:
    items, gate = PATHS[name]
    first = decided(tmp_path / "as it is", {"quiz": items}, gate)
    for seed in range(3):
        assert decided(tmp_path / str(seed), {"quiz": shuffled(items, seed)}, gate) == first


@pytest.mark.parametrize("equally", [False, True])
@pytest.mark.parametrize("made", [right_wrong, graded])
@pytest.mark.parametrize("cluster", [None, "passage"])
def test_nor_does_the_order_within_the_tasks_of_a_group(
    tmp_path: Path, equally: bool, made: Any, cluster: str | None
) -> None:
    tasks = {"one": made(60, 1), "two": made(240, 2)}
    gate = policy(guard(cluster=cluster), target(floor=0.6, cluster=cluster))
    first = decided(tmp_path / "as it is", tasks, gate, equally)
    for seed in range(2):
        mixed = {task: shuffled(items, seed) for task, items in tasks.items()}
        assert decided(tmp_path / str(seed), mixed, gate, equally) == first


def test_a_permuted_sample_keeps_its_p_value(tmp_path: Path) -> None:
    """One sample of tied scores had p-values from .018 to .099 over 25 orders of its items."""
    items = [(0.6, 0.6 + change / 10, 0) for change in [-4] * 6 + [1] * 30 + [0] * 44]
    found = {str(decided(tmp_path / str(seed), {"quiz": shuffled(items, seed)}, policy(guard()))) for seed in range(25)}
    assert len(found) == 1
