"""Toxicity: how well the model finds it, passages of long rows, and the optional second model."""

import pickle
import sys
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled import SHARED, Score, shared_toxicity

from harness.config.experiment import validate
from harness.core.errors import MissingDependency
from harness.data.filters.toxicity import REMOVED, Toxicity, ToxicityConfig, masked, passages

RUDE = "You are a stupid idiot and I fucking hate you, you worthless piece of shit."
POLITE = "The bank opens at nine and closes at six. Bring your passport and a letter with your address on it. "


def toxicity(**values: Any) -> Toxicity:
    return Toxicity(validate(ToxicityConfig, values))


def row(output: str, instruction: str = "Say it.") -> dict[str, str]:
    return {"id": "1", "source": "s", "instruction": instruction, "input": "", "output": output, "topic": ""}


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data (public labelled rows)")
def test_public_labelled_rows() -> None:
    rows = shared_toxicity()
    judged = [j.reason is not None for j in toxicity().judge([row(text) for text, _ in rows])]
    pairs = list(zip(judged, (toxic for _, toxic in rows), strict=True))
    score = Score(pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True)))
    assert score.hit + score.missed == 255
    assert score.precision >= 0.9
    assert score.recall >= 0.35


def test_reason_gives_score_and_place() -> None:
    clean, rude, asked = toxicity().judge([row(POLITE), row(RUDE), row(POLITE, instruction=RUDE)])
    assert clean.reason is None
    assert rude.reason is not None
    assert rude.reason.endswith(" in output")
    assert asked.evidence == ("instruction",)


def test_a_toxic_sentence_is_found_in_a_long_answer() -> None:
    answer = POLITE * 15 + RUDE + " " + POLITE * 15
    assert toxicity().scores([answer])[0] < 0.5
    assert toxicity().judge([row(answer)])[0].evidence == ("output",)


def test_threshold_decides() -> None:
    score = toxicity().scores([RUDE])[0]
    assert toxicity(threshold=score).judge([row(RUDE)])[0].reason
    assert toxicity(threshold=1.0).judge([row(POLITE)])[0].reason is None


def test_judgement_does_not_depend_on_the_batch() -> None:
    rows = [row(RUDE), row(POLITE), row(""), row(POLITE + RUDE)]
    filter_ = pickle.loads(pickle.dumps(toxicity()))
    assert filter_.judge(rows) == [filter_.judge([one])[0] for one in rows]


def test_passages_lose_no_word() -> None:
    text = "One. Two two two. Three!\nFour four\n\nfive"
    assert " ".join(passages(text, 4)).split() == text.split()
    assert all(len(passage.split()) >= 4 for passage in passages(text, 4)[:-1])


def test_detoxify_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detoxify", None)
    with pytest.raises(MissingDependency, match=r"toxicity\.model=detoxify needs the package 'detoxify'"):
        toxicity(model="detoxify", detoxify_variant="unbiased").judge([row(RUDE)])


def test_detoxify_is_asked_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    class Detoxify:
        def __init__(self, variant: str, checkpoint: str | None):
            assert (variant, checkpoint) == ("original-small", "weights.ckpt")

        def predict(self, texts: list[str]) -> dict[str, Any]:
            assert len(texts) <= 32
            scores = [float("stupid" in text) for text in texts]
            return {"toxicity": scores if len(scores) > 1 else scores[0]}

    module = types.ModuleType("detoxify")
    module.Detoxify = Detoxify  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "detoxify", module)
    filter_ = toxicity(model="detoxify", detoxify_variant="original-small", detoxify_checkpoint="weights.ckpt")
    judged = filter_.judge([row(POLITE, "") for _ in range(16)] + [row(RUDE, "")])
    assert [j.reason for j in judged] == [None] * 16 + ["score 1.00 in output"]


def test_redaction_masks_the_toxic_passage_and_keeps_the_rest() -> None:
    before = "Opening hours:\n- nine to six on every working day of the week, also in the holidays\n- closed on Sunday "
    judged = toxicity(action="redact").judge([row(f"{before}and on bank holidays, as all the others are.\n{RUDE}")])[0]
    assert judged.redacted is not None
    assert judged.redacted["output"] == f"{before}and on bank holidays, as all the others are.\n{REMOVED}"
    assert toxicity().judge([judged.redacted])[0].reason is None


def test_an_answer_that_is_toxic_throughout_cannot_be_redacted() -> None:
    judged = toxicity(action="redact").judge([row(RUDE)])[0]
    assert judged.reason is not None
    assert judged.redacted is None


@given(st.text(alphabet="ab.! \n", max_size=80), st.integers(1, 6))
def test_masking_nothing_changes_nothing(text: str, words: int) -> None:
    assert masked(text, words, set()) == text
