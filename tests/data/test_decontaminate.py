"""Decontamination: rows that hold an evaluation item are found, with the item; rows that do not are left alone."""

import pickle
import random
import string
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.decontaminate import DecontaminateConfig, Decontamination, Match
from harness.data.evaluation_items import suite_items
from harness.data.words import words

CONFIG = DecontaminateConfig()
VOCABULARY = [a + b + c for a in string.ascii_lowercase[:20] for b in "aeiou" for c in string.ascii_lowercase[:20]]


def sentence(seed: int, length: int) -> str:
    return " ".join(random.Random(seed).sample(VOCABULARY, length))


def item(name: str, text: str, task: str = "quiz", answers: Sequence[str] = ()) -> dict[str, Any]:
    return {"id": name, "task": task, "text": text, "answers": list(answers)}


def row(instruction: str, output: str = "I do not know.", given: str = "") -> dict[str, str]:
    return {"instruction": instruction, "input": given, "output": output}


def match(items: Sequence[dict[str, Any]], *asked: Any) -> Match | None:
    return Decontamination(items, CONFIG).match(asked[0] if isinstance(asked[0], dict) else row(*asked))


ITEMS = [item(f"item-{n}", sentence(n, 8 + n)) for n in range(20)]
LONG = ITEMS[12]["text"]


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        LONG.upper() + "?!",
        LONG.replace(" ", ",  "),
        f"Please think about this. {LONG}. Then answer in French.",
        f"so {sentence(99, 40)} {LONG} {sentence(98, 40)}",
    ],
)
def test_an_item_is_found_whatever_stands_around_it(text: str) -> None:
    for asked in (row(text), row("Read this.", given=text), row("Make up a question.", output=text)):
        assert match(ITEMS, asked) == Match("item-12", "quiz", "exact", 1.0)


def test_an_item_split_over_instruction_and_input_is_found() -> None:
    words = LONG.split()
    found = match(ITEMS, row(" ".join(words[:9]), given=" ".join(words[9:])))
    assert found == Match("item-12", "quiz", "exact", 1.0)


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(ITEMS[4:]), st.integers(0, 999))
def test_an_item_with_a_tenth_of_its_words_changed_is_found(asked: dict[str, Any], seed: int) -> None:
    chance = random.Random(seed)
    words = asked["text"].split()
    for place in chance.sample(range(len(words)), len(words) // 10):
        words[place] = f"other{chance.choice(VOCABULARY)}"
    found = match(ITEMS, row(" ".join(words)))
    assert found is not None
    assert found.item_id == asked["id"]
    assert found.score >= CONFIG.similarity


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(ITEMS), st.integers(0, 999))
def test_half_of_an_items_words_are_not_the_item(asked: dict[str, Any], seed: int) -> None:
    chance = random.Random(seed)
    words = asked["text"].split()
    for place in chance.sample(range(len(words)), len(words) // 2):
        words[place] = f"other{chance.choice(VOCABULARY)}"
    assert match(ITEMS, row(" ".join(words))) is None


def test_a_long_run_of_an_items_words_is_reported_as_a_run() -> None:
    long = item("passage", sentence(50, 90))
    found = match([*ITEMS, long], row(f"Summarise: {' '.join(long['text'].split()[30:45])}"))
    assert found is not None
    assert (found.item_id, found.kind) == ("passage", "ngram")
    assert found.score == pytest.approx(15 / 90)
    assert match([*ITEMS, long], row(" ".join(long["text"].split()[30:42]))) is None


TEMPLATE = "read the following note of a nurse with care and write a short summary of it for the patient in plain words"
TEMPLATED = [item(f"note-{n}", f"{TEMPLATE}: {sentence(300 + n, 12)}", task="notes") for n in range(30)]


def test_a_tasks_template_alone_is_no_item() -> None:
    assert match(TEMPLATED, f"{TEMPLATE}: {sentence(500, 12)}") is None
    found = match(TEMPLATED, TEMPLATED[7]["text"])
    assert found is not None
    assert found.item_id == "note-7"


SHORT = [
    item("sum", "What is 2+2?"),
    item("capital", "What is the capital of France?"),
    item("stem", "The sun is", answers=["a star that burns", "a planet"]),
    item("thing", "dresser", answers=["replace the drawer with a pin", "wood"]),
]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (row("what is 2 + 2"), "sum"),
        (row("Quick one, what is 2+2? Thanks."), "sum"),
        (row("What is 2-2?"), None),
        (row("What is 12+2?"), None),
        (row("What is 2+2*5?"), None),
        (row("WHAT IS THE CAPITAL OF FRANCE"), "capital"),
        (row("What is the capital of Spain?"), None),
        (row("Tell me what is the capital of France's oldest bank."), None),
        (row("The sun is", "A planet."), "stem"),
        (row("The sun is bright and I like it."), None),
        (row("Complete: the sun is", "a star that burns"), "stem"),
        (row("dresser"), "thing"),
        (row("dresser", "Replace the drawer with a pin."), "thing"),
        (row("A riddle. Dresser", "Replace the drawer with a pin."), "thing"),
        (row("My dresser is too small."), None),
    ],
)
def test_short_items_have_to_stand_alone(asked: dict[str, str], expected: str | None) -> None:
    found = match([*SHORT, *ITEMS], asked)
    assert (found.item_id if found else None) == expected


@pytest.mark.parametrize(
    "text", ["What’s a well-known ox-bow?", "whats a wellknown oxbow", "what s a well known ox bow"]
)
def test_short_items_are_found_however_their_punctuation_was_cleaned(text: str) -> None:
    assert match([item("one", "What's a well-known ox-bow?"), *ITEMS], text) is not None


def test_the_best_match_is_cited() -> None:
    near = item("near", LONG.replace(LONG.split()[3], "otherwise"))
    found = match([near, *ITEMS], LONG)
    assert found == Match("item-12", "quiz", "exact", 1.0)


ROWS = [row(text) for text in (LONG, sentence(70, 30), ITEMS[3]["text"].upper(), "dresser", f"Now: {LONG}. Go.", "")]


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(len(ROWS))), st.permutations(range(len(ITEMS))), st.integers(1, 4))
def test_order_of_rows_items_and_batches_changes_nothing(rows: list[int], items: list[int], batch: int) -> None:
    known = Decontamination([*ITEMS, *SHORT], CONFIG)
    shuffled = Decontamination([*SHORT, *(ITEMS[n] for n in items)], CONFIG)
    expected = known.match_all(ROWS)
    assert [m.item_id if m else None for m in expected] == ["item-12", None, "item-3", "thing", "item-12", None]
    found: list[Match | None] = []
    for start in range(0, len(rows), batch):
        found += shuffled.match_all([ROWS[n] for n in rows[start : start + batch]])
    assert found == [expected[n] for n in rows]
    assert shuffled.digest == known.digest


def test_it_travels_to_other_processes() -> None:
    known = Decontamination([*ITEMS, *SHORT], CONFIG)
    assert pickle.loads(pickle.dumps(known)).match_all(ROWS) == known.match_all(ROWS)


def test_the_digest_names_items_and_rules() -> None:
    digests = {
        Decontamination(ITEMS, CONFIG).digest,
        Decontamination(ITEMS[1:], CONFIG).digest,
        Decontamination([{**ITEMS[0], "text": "other"}, *ITEMS[1:]], CONFIG).digest,
        Decontamination(ITEMS, DecontaminateConfig(similarity=0.9)).digest,
        Decontamination([], CONFIG).digest,
    }
    assert len(digests) == 5


def test_no_items_find_nothing() -> None:
    assert Decontamination([], CONFIG).match_all(ROWS) == [None] * len(ROWS)
    assert Decontamination(ITEMS, CONFIG).match_all([]) == []


def test_a_judgement_cites_the_item() -> None:
    clean, found = Decontamination(ITEMS, CONFIG).judge([row("Hello?"), row(LONG)])
    assert clean.reason is None
    assert found.reason == "overlaps evaluation item item-12 of quiz (exact, 1.00 of its words)"


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=8), st.lists(st.text(max_size=60), max_size=8))
def test_any_text_can_be_an_item_or_a_row(texts: list[str], asked: list[str]) -> None:
    known = Decontamination([item(f"i{n}", text) for n, text in enumerate(texts)], CONFIG)
    assert len(known.match_all([row(text) for text in asked])) == len(asked)
    for found, text in zip(known.match_all([row(text, "") for text in texts]), texts, strict=True):
        assert found is not None or not words(text), text


class FakeTask:
    """What `suite_items` uses of an lm-eval task."""

    def __init__(self, kind: str, docs: list[dict[str, Any]], template: str):
        self.OUTPUT_TYPE, self.eval_docs, self._template = kind, docs, template

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return self._template.format(**doc)

    def doc_to_choice(self, doc: dict[str, Any]) -> list[str]:
        return ["A", "B"] if "listed" in doc else list(doc["choices"])


def test_items_of_loaded_tasks_are_what_they_say_themselves() -> None:
    plain = {"question": "Why is the sky blue?", "choices": ["Air", "Sea"], "answerKey": "A"}
    listed = {"question": "How deep is it?", "listed": ["a mile", "a yard"], "passage": "The lake is deep and cold."}
    tasks = {
        "plain": FakeTask("multiple_choice", [plain], "Question: {question}\nAnswer:"),
        "letters": FakeTask("multiple_choice", [listed], "{passage}\nQ: {question}\nA. {listed[0]}\nB. {listed[1]}"),
        "free": FakeTask("generate_until", [{"id": "f1", "goal": "dresser", "label": 1}], "Question: {goal}\nAnswer:"),
    }
    assert suite_items({"tasks": tasks}) == [
        {"id": "free/f1", "task": "free", "text": "dresser", "answers": []},
        {
            "id": "letters/0",
            "task": "letters",
            "text": "The lake is deep and cold.\nHow deep is it?",
            "answers": ["a mile", "a yard"],
        },
        {"id": "plain/0", "task": "plain", "text": "Why is the sky blue?", "answers": ["Air", "Sea"]},
    ]
