"""The order of training: known beforehand, complete, and the same for any number of processes."""

import dataclasses
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from harness.train.packing import IGNORED, Pack, TrainingBatches, data_order, padded

PACKS = st.integers(1, 30)
EPOCHS = st.floats(0.05, 4)
SEEDS = st.integers(0, 9)


def ordered(packs: int, order: list[int], per_step: int = 1) -> TrainingBatches:
    made = [Pack([n, n], [0, 1], [n, IGNORED], (n,)) for n in range(packs)]
    return TrainingBatches(made, order, [str(n) for n in range(packs)], ["tiny"] * packs, per_step)


@given(packs=PACKS, epochs=EPOCHS, seed=SEEDS)
def test_every_pack_comes_as_often_as_the_epochs_say(packs: int, epochs: float, seed: int) -> None:
    order = data_order(packs, epochs, seed)
    counts = Counter(order)
    assert order == data_order(packs, epochs, seed)
    assert epochs * packs <= len(order) < epochs * packs + 1 or len(order) == 1
    assert all(int(epochs) <= counts[pack] <= int(epochs) + 1 for pack in range(packs))


@given(packs=PACKS, epochs=EPOCHS, seed=SEEDS, per_step=st.integers(1, 8))
def test_steps_take_the_order_apart(packs: int, epochs: float, seed: int, per_step: int) -> None:
    order = data_order(packs, epochs, seed)
    batches = ordered(packs, order, per_step)
    steps = range(1, batches.steps + 1)
    assert [pack for step in steps for pack in batches.members(step)] == [batches.packs[pack] for pack in order]
    assert all(batches.members(step) for step in steps)


@given(count=PACKS, processes=st.integers(1, 4))
def test_what_is_added_for_other_processes_carries_no_loss(count: int, processes: int) -> None:
    packs = [Pack([n, n], [0, 1], [n, IGNORED], (n,)) for n in range(count)]
    found = padded(packs, list(range(count)), processes)
    assert found[:count] == packs
    assert len(found) % processes == 0
    assert sum(p.supervised for p in found[count:]) == 0


def test_the_digest_sees_order_and_content() -> None:
    digests = {ordered(3, order).order_sha256 for order in ([0, 1, 2], [0, 2, 1], [0, 1])}
    whole = ordered(3, [0, 1, 2])
    changed = [Pack([0, 0], [0, 1], [IGNORED, IGNORED], (0,)), *whole.packs[1:]]
    assert len({*digests, dataclasses.replace(whole, packs=changed).order_sha256}) == 4
