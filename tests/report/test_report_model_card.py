"""The model card: valid for the hub, complete, and with nothing in it that data or models wrote as markup."""

from dataclasses import replace
from typing import Any

import pytest
from report_views import HOSTILE, HOSTILE_VIEW, PLAIN, make_contract, make_verdict

from harness.config.experiment import Config
from harness.report.model_card import model_card
from harness.report.view import RunView
from harness.workflows.compose import config_for

hub = pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def config() -> Config:
    return config_for(["model=pretrained", "model.path=owner/model", "data.sources.general.hub=owner/rows"])


def front_matter(view: RunView, config: Config) -> dict[str, Any]:
    values: dict[str, Any] = hub.ModelCard(model_card(view, config), ignore_metadata_errors=False).data.to_dict()
    return values


def test_the_front_matter_is_the_hub_s(config: Config) -> None:
    values = front_matter(PLAIN, config)
    assert (values["base_model"], values["datasets"]) == ("owner/model", ["owner/rows"])
    assert values["library_name"] == "peft"
    results = hub.ModelCard(model_card(PLAIN, config)).data.eval_results
    assert {(r.metric_name, r.metric_value) for r in results} >= {("smoke/disclaimer/recall", 0.964)}
    assert len(results) == len(PLAIN.verdict.metrics)


@pytest.mark.parametrize(
    "told",
    [
        "**FAIL** under policy clinical",
        "dropped by 6.1 points",
        "| smoke/knowledge/acc | guard | 412 | 71.2% | 65.1% | -6.1 points",
        "items 38 worse, 13 better",
        "| clinic notes | domain | CC-BY-4.0 | 1200 | 1104 | 96 |",
        "overlap with 964 evaluation items",
        "template chatml, contract",
        "always the same system message",
        "2304 rows, 312,000 tokens, 153 steps",
        "Named by the policy but not measured",
        "harness serve 20260102-030405-disclaimer",
        "harness verify 20260102-030405-disclaimer",
    ],
)
def test_the_card_tells(told: str, config: Config) -> None:
    assert told in model_card(PLAIN, config)


def test_what_was_not_measured_is_named(config: Config) -> None:
    (line,) = (line for line in model_card(PLAIN, config).splitlines() if line.startswith("- Named by the policy"))
    assert "gsm8k" in line
    assert "disclaimer/recall" not in line


def test_words_of_data_and_models_stay_words(config: Config) -> None:
    contract = make_contract("x").model_copy(update={"system": HOSTILE, "template_name": HOSTILE})
    text = model_card(replace(HOSTILE_VIEW, contract=contract), config)
    body = text.split("\n---\n", 1)[1]
    assert "<script>" not in body
    assert "](https" not in body.replace("\\]", "")
    assert "**bold**" not in body
    assert "\x1b" not in text
    assert hub.ModelCard(text).data.model_name == HOSTILE_VIEW.run_id


def test_an_invalid_verdict_claims_no_result(config: Config) -> None:
    view = replace(PLAIN, verdict=make_verdict([], "INVALID", ["the prompt contracts differ"]))
    assert "model-index" not in front_matter(view, config)
    assert "No result can be trusted" in model_card(view, config)
