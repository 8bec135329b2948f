"""Texts as words: case, spacing, punctuation and Unicode form change nothing; numbers and signs do."""

import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data import words as subject
from harness.data.words import grams, hashed, words

PLAIN_WORDS = st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=8), min_size=1, max_size=12)
SEPARATORS = st.sampled_from([" ", "  ", ", ", " - ", "\n", "… ", "! ", ' "', " (", "—", "\t", " ** ", "\u00a0"])


@given(PLAIN_WORDS, st.data())
def test_case_spacing_and_punctuation_change_nothing(plain: list[str], data: st.DataObject) -> None:
    text = "".join(
        data.draw(st.sampled_from([word, word.upper(), word.title()])) + data.draw(SEPARATORS) for word in plain
    )
    assert words(text) == plain


@given(st.text())
def test_words_of_words_stay_as_they_are(text: str) -> None:
    assert words(" ".join(words(text))) == words(text)


@given(st.text(st.characters(max_codepoint=127)))
def test_the_fast_way_for_ascii_finds_the_same_words(text: str) -> None:
    plain = subject._plain(text)
    assert subject._ascii_words(plain) == subject._unicode_words(plain)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Don’t", "DON'T"),
        ("dont", "don't"),
        ("1,000 people", "1000 people"),
        ("ﬁne ＡＢＣ", "fine abc"),
        ("STRASSE", "straße"),
        ("cafe\u0301", "café"),
        ("soft\u00adhyphen zero\u200bwidth", "softhyphen zerowidth"),
        ("2 + 2", "2+2"),
        ("6 × 7", "6*7"),
        ("well-known", "well known"),
    ],
)
def test_the_same_words(left: str, right: str) -> None:
    assert words(left) == words(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [("What is 2+2?", "What is 2-2?"), ("3.5", "35"), ("1 2", "12"), ("🙂", "🙁"), ("今日", "明日"), ("a b", "ab")],
)
def test_different_words(left: str, right: str) -> None:
    assert words(left) != words(right)


def test_signs_of_a_script_without_spaces_are_words() -> None:
    assert words("今日は good") == ["今", "日", "は", "good"]


@given(st.lists(PLAIN_WORDS, max_size=6), st.integers(1, 5))
def test_grams_are_the_runs_of_words_of_each_text(texts: list[list[str]], n: int) -> None:
    found = grams(hashed(texts), n)
    alone = [grams(hashed([text]), n).hashes for text in texts]
    assert np.array_equal(found.hashes, np.concatenate([np.zeros(0, np.uint64), *alone]))
    runs = [[tuple(text[i : i + n]) for i in range(max(1, len(text) - n + 1))] for text in texts]
    expected = {run for text in runs for run in text}
    assert len(set(found.hashes.tolist())) == len(expected)
    assert np.diff(found.offsets).tolist() == [len(text) for text in runs]


def test_hashes_are_the_same_in_every_process() -> None:
    assert hashed([["word"]]).hashes.tolist() == [10776770685243991114]
