"""Personal data: what is found, what is left alone, and what a redacted row looks like."""

import json
import pickle
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import SHARED, Spans, own_personal_data, shared_personal_data, span_scores

from harness.config.experiment import validate
from harness.core.errors import ConfigError, UsageError
from harness.data.filters.personal_data import ENTITIES, PersonalData, PersonalDataConfig, worth_analysing

STRUCTURED = ("CREDIT_CARD", "IBAN_CODE", "US_SSN", "PHONE_NUMBER", "EMAIL_ADDRESS", "IP_ADDRESS")


def personal_data(**values: Any) -> PersonalData:
    return PersonalData(validate(PersonalDataConfig, values))


def row(output: str, **values: str) -> dict[str, str]:
    return {"id": "1", "source": "s", "instruction": "Say it.", "input": "", "output": output, "topic": "", **values}


def found(text: str) -> Spans:
    return {(span.entity, span.start, span.end) for span in personal_data().spans(text)}


@pytest.mark.parametrize("entity", [*STRUCTURED, "MEDICAL_RECORD_NUMBER", "ACCOUNT_NUMBER"])
def test_own_labelled_rows(entity: str) -> None:
    score = span_scores(own_personal_data(), found)[entity]
    assert score.hit + score.missed >= 9
    assert score.recall >= 0.9, score
    assert score.precision >= 0.9, score


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data (public labelled rows)")
def test_public_labelled_rows() -> None:
    scores = span_scores(shared_personal_data(), found)
    labelled = {entity: scores[entity] for entity in STRUCTURED if entity in scores}
    assert sum(score.hit + score.missed for score in labelled.values()) == 27
    for entity, score in labelled.items():
        assert score.recall >= 0.9, (entity, score)
        assert score.precision >= 0.9, (entity, score)


def test_the_redacted_row_reads_on() -> None:
    judged = personal_data().judge([row("Mail ada@example.com or call 212-555-0143, card 4111 1111 1111 1111.")])[0]
    assert judged.redacted is not None
    assert judged.redacted["output"] == "Mail <EMAIL_ADDRESS> or call <PHONE_NUMBER>, card <CREDIT_CARD>."
    assert judged.evidence == ("CREDIT_CARD", "EMAIL_ADDRESS", "PHONE_NUMBER")
    assert {k: v for k, v in judged.redacted.items() if k != "output"} == {
        k: v for k, v in row("").items() if k != "output"
    }


def test_the_reason_says_where_and_never_what() -> None:
    judged = personal_data().judge([row("ok", input="ada@example.com, sam@example.com", instruction="SSN 212-45-6781")])
    assert judged[0].reason == "US_SSN in instruction; 2 EMAIL_ADDRESS in input"


def test_messages_are_redacted_and_stay_json() -> None:
    messages = [{"role": "user", "content": 'I am "Ada"\nada@example.com'}, {"role": "assistant", "content": "Hello"}]
    judged = personal_data().judge([row("Hello", messages=json.dumps(messages))])[0]
    assert judged.redacted is not None
    contents = [message["content"] for message in json.loads(judged.redacted["messages"])]
    assert contents == ['I am "Ada"\n<EMAIL_ADDRESS>', "Hello"]
    assert judged.reason == "EMAIL_ADDRESS in message 1"


@pytest.mark.parametrize("action", ["drop", "flag"])
def test_only_redact_gives_a_redacted_row(action: str) -> None:
    judged = personal_data(action=action).judge([row("ada@example.com")])[0]
    assert judged.reason == "EMAIL_ADDRESS in output"
    assert judged.redacted is None


def test_clean_rows_are_clean_and_each_row_gets_its_own_judgement() -> None:
    judged = personal_data().judge([row("Hello"), row("ada@example.com"), row("Version 1.2.3.4")])
    assert [j.reason is None for j in judged] == [True, False, True]


def test_thresholds_and_entities_are_configurable() -> None:
    text = "Employee 212-45-6781, ada@example.com"

    def entities(**values: Any) -> set[str]:
        return {span.entity for span in personal_data(**values).spans(text)}

    assert entities() == {"US_SSN", "EMAIL_ADDRESS"}
    assert entities(thresholds={"US_SSN": 0.8}) == {"EMAIL_ADDRESS"}
    assert entities(entities=["US_SSN"]) == {"US_SSN"}


def test_wrong_configuration_is_named() -> None:
    with pytest.raises(ConfigError, match="phone_regions") as caught:
        personal_data(phone_regions=["usa"], treshold=1)
    assert "Did you mean 'threshold'" in str(caught.value)


def test_names_are_said_to_be_unchecked_without_a_model() -> None:
    assert "names were not looked for" in personal_data().notes()[0]
    assert personal_data(entities=["US_SSN"]).notes() == []
    with pytest.raises(UsageError, match="'no_such_model' is not installed"):
        personal_data(ner_model="no_such_model").spans("Ada wrote it")


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert personal_data().judge([row("ada@example.com at 203.0.113.9")])[0].reason


def test_filter_travels_to_other_processes() -> None:
    filter_ = pickle.loads(pickle.dumps(personal_data(threshold=0.5)))
    assert filter_.judge([row("ada@example.com")])[0].evidence == ("EMAIL_ADDRESS",)


PIECES = [text for text, _ in own_personal_data()]
NUMERIC = st.text(alphabet=st.sampled_from("0123456789.-:@ ()+/|\nabcfgAmrnDE"), max_size=60)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), NUMERIC), min_size=1, max_size=3).map(" ".join))
def test_the_screen_never_hides_a_finding(text: str) -> None:
    unscreened = {span.entity for entity in ENTITIES for span in personal_data()._recognised(entity, text)}
    assert unscreened <= set(worth_analysing(text, ENTITIES))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), NUMERIC), min_size=1, max_size=3).map(" ".join))
def test_redaction_touches_nothing_but_the_findings(text: str) -> None:
    spans = personal_data().spans(text)
    edges = [0, *(edge for span in spans for edge in (span.start, span.end)), len(text)]
    between = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    masks = [f"<{span.entity}>" for span in spans]
    expected = "".join(part + mask for part, mask in zip(between, [*masks, ""], strict=True))
    assert personal_data().redact(text) == expected


def test_long_runs_of_characters_take_no_time_to_speak_of() -> None:
    """Presidio's e-mail pattern alone needs minutes for this."""
    text = "a" * 200_000 + " ada@example.com " + "1" * 50_000
    assert [span.entity for span in personal_data().spans(text)] == ["EMAIL_ADDRESS"]
