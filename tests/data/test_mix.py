"""The mix written is the configured mix, or an error says which source is too small; validation never leaks."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.data import AuditConfig, DataConfig, MixConfig, SourceConfig
from harness.config.experiment import validate
from harness.core.errors import ConfigError, DataError
from harness.data.audit import audit
from harness.data.mix import sample, split, wanted
from harness.data.tables import QUARANTINE, VALIDATION, read_parquet, read_rows

WORDS = [f"w{number}" for number in range(4000)]


def data(mix: dict[str, Any] | None = None, **sources: dict[str, Any]) -> DataConfig:
    made = {name: {"path": f"{name}.jsonl", "licence": "CC0-1.0", **values} for name, values in sources.items()}
    return validate(DataConfig, {"sources": made, "mix": mix or {}})


REPLAY = {"role": "replay"}


@pytest.mark.parametrize(
    ("config", "available", "counts"),
    [
        (data(a={}, b={}), {"a": 30, "b": 7}, {"a": 30, "b": 7}),
        (data(a={}, r=REPLAY), {"a": 950, "r": 800}, {"a": 950, "r": 50}),
        (data({"replay": 0.5}, a={}, r=REPLAY), {"a": 40, "r": 40}, {"a": 40, "r": 40}),
        (data({"replay": 0}, a={}, r=REPLAY), {"a": 40, "r": 40}, {"a": 40, "r": 0}),
        (data({"replay": "all"}, a={}, r=REPLAY), {"a": 40, "r": 80}, {"a": 40, "r": 80}),
        (data({"replay": 0.2}, a={}, r=REPLAY, s=REPLAY), {"a": 80, "r": 300, "s": 100}, {"a": 80, "r": 15, "s": 5}),
        (data(r=REPLAY), {"r": 80}, {"r": 80}),
        (data(a={"rows": 10}, b={"rows": 5}), {"a": 30, "b": 7}, {"a": 10, "b": 5}),
        (data({"rows": 40}, a={"weight": 3}, b={"weight": 1}), {"a": 30, "b": 20}, {"a": 30, "b": 10}),
        (data(a={"weight": 3}, b={"weight": 1}), {"a": 30, "b": 20}, {"a": 30, "b": 10}),
        (data({"rows": 25}, a={"weight": 1}, b={"rows": 5}), {"a": 30, "b": 20}, {"a": 20, "b": 5}),
    ],
)  # fmt: skip
def test_counts(config: DataConfig, available: dict[str, int], counts: dict[str, int]) -> None:
    assert wanted(config, available) == counts


@pytest.mark.parametrize(
    ("config", "available", "told"),
    [
        (data(a={"rows": 10}, b={"rows": 9}), {"a": 30, "b": 7}, r"of b \(needed 9, available 7\)\. "),
        (data({"rows": 80}, a={"weight": 1}, b={"weight": 1}), {"a": 30, "b": 50}, r"a \(needed 40, available 30\)"),
        (data({"replay": 0.5}, a={}, r=REPLAY), {"a": 40, "r": 39}, r"r \(needed 40, available 39\)"),
        (data(a={"weight": 1}, b={"weight": 9}), {"a": 5, "b": 0}, r"no row is left of b"),
        (data({"rows": 5}, a={"weight": 1}, b={"rows": 9}), {"a": 50, "b": 10}, r"data\.mix\.rows=5 leaves no rows"),
        (data(a={"rows": 9}, b={"rows": 9}), {"a": 1, "b": 2}, r"a \(needed 9, available 1\), b \(needed 9,"),
    ],
)  # fmt: skip
def test_a_source_too_small_is_named(config: DataConfig, available: dict[str, int], told: str) -> None:
    with pytest.raises(DataError, match=told):
        wanted(config, available)


@pytest.mark.parametrize(
    ("mix", "sources", "told"),
    [
        ({}, {"a": {"weight": 1}, "b": {}}, "b has neither"),
        ({"rows": 5}, {"a": {}}, "weights divide"),
        ({}, {"a": {"weight": 1, "rows": 3}}, "not both"),
        ({"replay": 1.5}, {"a": {}}, "replay"),
    ],
)
def test_a_mix_that_says_two_things(mix: dict[str, Any], sources: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        data(mix, **sources)


@given(
    weights=st.dictionaries(st.sampled_from("abcde"), st.floats(0.1, 10), min_size=1),
    available=st.lists(st.integers(100, 500), min_size=5, max_size=5),
)
def test_weights_give_what_every_source_has(weights: dict[str, float], available: list[int]) -> None:
    config = data(**{name: {"weight": weight} for name, weight in weights.items()})
    have = dict(zip("abcde", available, strict=True))
    counts = wanted(config, {name: have[name] for name in weights})
    total = sum(counts.values())
    for name, count in counts.items():
        assert count <= have[name]
        assert abs(count - total * weights[name] / sum(weights.values())) <= 1


@given(st.data())
def test_samples_have_the_size_and_order_asked_for(draw: st.DataObject) -> None:
    rows = sorted(draw.draw(st.sets(st.integers(0, 1000), min_size=1, max_size=60)))
    count = draw.draw(st.integers(0, len(rows)))
    topics = [draw.draw(st.sampled_from("xyz")) for _ in rows]
    for sampling in ("random", "first", "by_topic"):
        chosen = sample(rows, count, sampling, topics, "seed")
        assert len(chosen) == count
        assert chosen == sorted(set(chosen) & set(rows))
        assert chosen == sample(rows, count, sampling, topics, "seed")
    shares, kept = Counter(topics), sample(rows, count, "by_topic", topics, "seed")
    taken = Counter(topics[rows.index(row)] for row in kept)
    assert all(abs(taken[topic] - count * n / len(rows)) <= 1 for topic, n in shares.items())


@given(
    clusters=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    share=st.floats(0, 0.9),
    seed=st.integers(0, 5),
)
def test_no_cluster_is_on_both_sides(clusters: list[int], share: float, seed: int) -> None:
    rows = list(range(len(clusters)))
    train, validation = split(rows, np.array(clusters), share, seed)
    assert sorted([*train, *validation]) == rows
    assert len(validation) <= round(share * len(rows))
    assert {clusters[row] for row in train}.isdisjoint({clusters[row] for row in validation})


def sentence(seed: int, length: int = 12) -> str:
    return " ".join(random.Random(seed).sample(WORDS, length))


def write(path: Path, first: int, count: int) -> None:
    rows = [{"instruction": sentence(n), "output": f"{sentence(-n - 1)}."} for n in range(first, first + count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rows_left_out_of_the_mix_are_accounted_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", 0, 30)
    write(tmp_path / "r.jsonl", 100, 30)
    config = data({"replay": 0.25}, a={}, r=REPLAY)
    record = audit(config, AuditConfig(), [], tmp_path)
    assert Counter(row["source"] for row in read_rows(tmp_path)) == {"a": 30, "r": 10}
    left = list(read_parquet(tmp_path / QUARANTINE, ("reasons",)))
    assert len(left) == 20
    assert {row["source"] for row in left} == {"r"}
    assert left[0]["reasons"] == ["mix: not in the sample of its source"]
    assert [(s.read, s.kept, s.quarantined) for s in record.sources] == [(30, 30, {}), (30, 10, {"mix": 20})]


def test_one_question_with_several_answers_stays_on_one_side(tmp_path: Path) -> None:
    rows = [{"instruction": sentence(n // 3), "output": sentence(-n - 1)} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SourceConfig(path=str(tmp_path / "rows.jsonl"), licence="CC0-1.0")
    record = audit(DataConfig(sources={"mine": source}, validation=0.3, mix=MixConfig()), AuditConfig(), [], tmp_path)
    train = {row["instruction"] for row in read_rows(tmp_path)}
    validation = [row["instruction"] for row in read_parquet(tmp_path / VALIDATION)]
    assert train.isdisjoint(validation)
    assert record.validation_rows == len(validation) == 18
    assert record.rows == 42
    assert record.conflicts == 20
    conflicts = [json.loads(line) for line in (tmp_path / "conflicts.jsonl").read_text().splitlines()]
    assert [len(group["answers"]) for group in conflicts] == [3] * 20
