"""Duplicates: exact and near ones are found, what is merely alike is kept, and no split can leak."""

import random
import string
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.dedupe import (
    CROWDED,
    DedupeConfig,
    Duplicates,
    DuplicatesFound,
    components,
    pairs_in_buckets,
    signature,
    sketch,
    unpacked,
)
from harness.data.words import grams, hashed

Row = dict[str, str]
CONFIG = DedupeConfig()
VOCABULARY = [a + b + c for a in string.ascii_lowercase[:12] for b in "aeiou" for c in string.ascii_lowercase[:12]]


def sentence(seed: int, length: int = 20) -> str:
    return " ".join(random.Random(seed).sample(VOCABULARY, length))


def row(seed: int, **values: str) -> Row:
    return {"instruction": sentence(2 * seed, 8), "input": "", "output": sentence(2 * seed + 1, 30), **values}


def find(
    rows: Sequence[Row],
    batch: int = 100,
    config: DedupeConfig = CONFIG,
    without: Callable[[str], str] | None = None,
    live: Sequence[bool] | None = None,
) -> DuplicatesFound:
    duplicates = Duplicates(config)
    for start in range(0, len(rows), batch):
        duplicates.add(sketch(rows[start : start + batch], config, without))
    found = duplicates.find(live)
    duplicates.close()
    return found


def removed(found: DuplicatesFound) -> dict[int, tuple[int, str]]:
    return {duplicate.row: (duplicate.of, duplicate.kind) for duplicate in found.duplicates}


def test_nothing_is_found_in_nothing() -> None:
    assert find([]).duplicates == []


def test_exact_duplicates_differ_in_case_spacing_and_punctuation() -> None:
    first = row(1)
    again = {**first, "instruction": first["instruction"].upper() + "?!", "output": first["output"].replace(" ", ",  ")}
    assert removed(find([first, row(2), again, first])) == {2: (0, "exact"), 3: (0, "exact")}


def test_a_row_with_a_few_words_changed_is_a_near_duplicate() -> None:
    first = row(1)
    near = {**first, "output": first["output"].replace(first["output"].split()[15], "otherwise")}
    found = find([row(2), first, near])
    assert removed(found) == {2: (1, "near")}
    before = set(zip(*(f"{first['instruction']} {first['output']}".split()[i:] for i in range(3)), strict=False))
    after = set(zip(*(f"{near['instruction']} {near['output']}".split()[i:] for i in range(3)), strict=False))
    assert found.duplicates[0].jaccard == len(before & after) / len(before | after)


def test_two_questions_on_one_passage_are_no_duplicates() -> None:
    passage = sentence(7, 200)
    rows = [row(n, input=passage, output=sentence(100 + n, 6)) for n in range(5)]
    assert find(rows).duplicates == []


def test_what_every_answer_has_to_say_makes_no_duplicates() -> None:
    rows = [row(n, instruction=sentence(n, 4), output=f"{sentence(50 + n, 5)} {sentence(99, 60)}") for n in range(4)]
    assert len(find(rows).duplicates) == 3
    assert find(rows, without=lambda answer: answer.replace(sentence(99, 60), "")).duplicates == []


def test_one_question_with_several_answers_is_listed_and_kept() -> None:
    first, other = row(1), row(2)
    rows = [first, other, {**first, "output": sentence(70)}, {**other}, {**first, "output": sentence(71)}]
    found = find(rows)
    assert found.conflicts == [[0, 2, 4]]
    assert removed(found) == {3: (1, "exact")}


def test_rows_that_were_dropped_before_take_no_part() -> None:
    first = row(1)
    rows = [first, dict(first), {**first, "output": sentence(70)}, dict(first)]
    found = find(rows, live=[False, True, False, True])
    assert removed(found) == {3: (1, "exact")}
    assert found.conflicts == []
    assert found.clusters.tolist() == [0, 1, 2, 1]


def test_a_copy_of_a_near_duplicate_cites_the_row_that_stays() -> None:
    first = row(1)
    near = {**first, "output": first["output"] + " indeed"}
    assert removed(find([first, near, dict(near)])) == {1: (0, "near"), 2: (0, "near")}


WORD = st.sampled_from(VOCABULARY[:60])
ROWS = st.lists(
    st.builds(
        lambda asked, answer: {"instruction": " ".join(asked), "input": "", "output": " ".join(answer)},
        st.lists(WORD, min_size=1, max_size=3),
        st.lists(WORD, min_size=1, max_size=30),
    ),
    max_size=12,
)


def edited(rows: list[Row], seed: int) -> list[Row]:
    """Twice as many rows: the second half are the first with none to three words changed."""
    chance = random.Random(seed)
    more = []
    for original in rows:
        words = original["output"].split()
        for _ in range(chance.randrange(4)):
            words[chance.randrange(len(words))] = chance.choice(VOCABULARY)
        more.append({**original, "output": " ".join(words)})
    return rows + more


@settings(deadline=None, max_examples=60)
@given(ROWS, st.integers(0, 9), st.integers(1, 7))
def test_batches_change_nothing(rows: list[Row], seed: int, batch: int) -> None:
    rows = edited(rows, seed)
    one, many = find(rows, len(rows) or 1), find(rows, batch)
    assert one.duplicates == many.duplicates
    assert one.conflicts == many.conflicts
    assert one.clusters.tolist() == many.clusters.tolist()


@settings(deadline=None, max_examples=60)
@given(ROWS, st.integers(0, 9))
def test_found_duplicates_are_similar_and_cite_a_kept_earlier_row(rows: list[Row], seed: int) -> None:
    rows = edited(rows, seed)
    found = find(rows)
    out = {duplicate.row for duplicate in found.duplicates}
    for duplicate in found.duplicates:
        assert duplicate.of < duplicate.row
        assert duplicate.of not in out
        assert duplicate.jaccard >= CONFIG.jaccard
        assert found.clusters[duplicate.of] == found.clusters[duplicate.row]
    for group in found.conflicts:
        assert out.isdisjoint(group)
        assert len({rows[n]["instruction"] for n in group}) == 1
        assert len({rows[n]["output"] for n in group}) > 1
        assert len({int(found.clusters[n]) for n in group}) == 1


@settings(deadline=None, max_examples=60)
@given(ROWS)
def test_removing_duplicates_leaves_none(rows: list[Row]) -> None:
    out = {duplicate.row for duplicate in find(rows).duplicates}
    assert find([r for n, r in enumerate(rows) if n not in out]).duplicates == []


@settings(deadline=None, max_examples=40)
@given(st.lists(WORD, min_size=30, max_size=60), st.integers(0, 25), st.integers(0, 9))
def test_signatures_estimate_the_jaccard_similarity(words: list[str], changes: int, seed: int) -> None:
    chance = random.Random(seed)
    other = list(words)
    for place in chance.sample(range(len(words)), changes):
        other[place] = chance.choice(VOCABULARY)
    sets = [set(zip(*(text[i:] for i in range(3)), strict=False)) for text in (words, other)]
    jaccard = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    config = DedupeConfig(permutations=1024)
    left, right = signature(grams(hashed([words, other]), 3), config)
    assert float((left == right).mean()) == pytest.approx(jaccard, abs=0.09)  # six standard errors


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_nearly_all_pairs_above_the_threshold_become_candidates(threshold: float) -> None:
    config = DedupeConfig(jaccard=threshold)
    changed = int(58 * (1 - threshold) / (1 + threshold))  # of 58 trigrams, so that the similarity is just above it
    missed = 0
    for number in range(300):
        words = sentence(number, 60).split()
        other = words[:-changed] + [word[::-1] * 2 for word in words[-changed:]]
        rows = [{"instruction": "", "input": "", "output": " ".join(text)} for text in (words, other)]
        left, right = sketch(rows, config).bands
        missed += not (left == right).any()
    assert missed <= 3  # 0.3 expected


@given(st.lists(st.integers(0, 3), max_size=40))
def test_rows_with_one_key_are_paired_once(keys: list[int]) -> None:
    rows = np.arange(len(keys)) * 3
    pairs, skipped = pairs_in_buckets(np.array(keys, np.uint64), rows)
    expected = [(3 * i, 3 * j) for i, j in combinations(range(len(keys)), 2) if keys[i] == keys[j]]
    found = [tuple(pair) for pair in unpacked(pairs).tolist()]
    assert len(found) == len(set(found))
    assert set(found) <= set(expected)
    assert len(found) + skipped == len(expected)
    if max((keys.count(key) for key in keys), default=0) <= CROWDED:
        assert skipped == 0


def test_a_crowded_bucket_is_not_compared_pair_by_pair_and_says_so() -> None:
    pairs, skipped = pairs_in_buckets(np.zeros(1000, np.uint64), np.arange(1000))
    assert len(pairs) < 20_000
    assert len(pairs) + skipped == 1000 * 999 // 2
    assert {later for _, later in unpacked(pairs).tolist()} == set(range(1, 1000))


@given(st.integers(1, 15), st.data())
def test_clusters_are_the_connected_components(size: int, data: st.DataObject) -> None:
    edges = data.draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=20))
    labels = list(range(size))
    for left, right in edges:
        old, new = max(labels[left], labels[right]), min(labels[left], labels[right])
        labels = [new if label == old else label for label in labels]
    assert components(size, np.array(edges, np.int64).reshape(-1, 2)).tolist() == labels


def test_many_copies_of_one_row_cost_little() -> None:
    first = row(1)
    copies = [{**first, "output": f"{first['output']} {VOCABULARY[n]}"} for n in range(400)]
    found = find(copies)
    assert len(found.duplicates) == 399
    assert {duplicate.of for duplicate in found.duplicates} == {0}
