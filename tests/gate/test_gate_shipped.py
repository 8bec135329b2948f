"""What each shipped policy demands of each metric, in each shipped experiment: the tables hold every rule that decides.

They were written out from the policies when these still named every task by hand.
"""

from pathlib import Path

import pytest

from harness.config.experiment import validate
from harness.config.gate import GateConfig, RuleConfig
from harness.core import resources
from harness.gate.policy import is_shown, rules_for
from harness.records.gate import Measured
from harness.workflows.compose import config_for, gate_values

METRICS = {
    "disclaimer": "recall recall_adversarial specificity element_not_advice element_risk element_seek_advice",
    "clinical_note": "format faithful section_recall sections order not_empty no_other_sections nothing_around "
    "abbreviations numbers medications laterality not_reversed",
    "summary_bullets": "format grounded count only_bullets one_style not_nested length no_repeats",
    "json_record": "valid exact field_accuracy",
    "escalation": "recall specificity false_escalation handover urgent_help no_delay not_contradicted",
    "vocabulary": "clean violations product_names preferred_terms forbidden_terms answered mentions_product",
    "tone": "clean violations reading_level formality no_promises no_blame no_slang length",
    "over_behaviour": "no_leak leak no_disclaimer no_escalation no_clinical_note no_json_record no_product_names",
    "general_smoke": "acc",
    "general_smoke_arithmetic": "acc",
    "general_smoke_instructions": "acc",
    "general_smoke_knowledge": "acc",
    "general_smoke_reading": "acc",
    "general_mmlu": "acc",
    "general_mmlu_anatomy": "acc",
    "arc_easy": "acc acc_norm",
    "hellaswag": "acc acc_norm",
    "openbookqa": "acc acc_norm",
    "gsm8k": "exact_match,flexible-extract exact_match,strict-match",
    "piqa": "acc acc_norm",
    "lambada_openai": "acc perplexity",
    "ifeval": "prompt_level_strict_acc inst_level_strict_acc",
    "truthfulqa_mc2": "acc",
    "a_task_of_somebody": "acc",
}
TARGETS = (
    "disclaimer/recall disclaimer/specificity clinical_note/format clinical_note/faithful summary_bullets/format "
    "summary_bullets/grounded json_record/valid json_record/exact escalation/recall escalation/specificity "
    "vocabulary/clean tone/clean over_behaviour/no_leak"
)
GUARDS = (
    "general_smoke/acc arc_easy/acc hellaswag/acc_norm openbookqa/acc_norm gsm8k/exact_match,flexible-extract "
    "general_mmlu/acc piqa/acc_norm lambada_openai/acc ifeval/prompt_level_strict_acc truthfulqa_mc2/acc"
)
DECIDES = {
    "default": {
        "role=target floor=0.9 optional=True": TARGETS,
        "role=guard margin=5 points optional=True": GUARDS,
    },
    "release": {
        "role=target floor=0.9 optional=True": TARGETS,
        "role=guard margin=5 points optional=True": GUARDS,
    },
    "strict": {
        "role=target floor=0.95 optional=True": TARGETS,
        "role=guard margin=2.5 points optional=True": GUARDS,
    },
    "clinical": {
        "role=target floor=0.95": "clinical_note/faithful clinical_note/format over_behaviour/no_leak",
        "role=target floor=0.95 optional=True": "summary_bullets/grounded summary_bullets/format",
        "role=guard margin=['5 points', '10% of baseline'] optional=True": "general_smoke/acc arc_easy/acc "
        "hellaswag/acc_norm openbookqa/acc_norm",
        "role=guard margin=5 points optional=True": "gsm8k/exact_match,flexible-extract general_mmlu/acc "
        "piqa/acc_norm lambada_openai/acc ifeval/prompt_level_strict_acc truthfulqa_mc2/acc",
    },
    "smoke": {
        "role=target floor=0.8 optional=True": "disclaimer/recall disclaimer/specificity clinical_note/format "
        "clinical_note/faithful summary_bullets/format json_record/valid escalation/recall over_behaviour/no_leak",
        "role=guard margin=10 points optional=True": "general_smoke/acc arc_easy/acc hellaswag/acc_norm "
        "openbookqa/acc_norm gsm8k/exact_match,flexible-extract",
    },
}
BESIDES = {
    "default": {"name": "default", "require": ["guard", "target"]},
    "release": {"name": "release", "require": ["guard", "target"], "baselines": ["production", "anchor"]},
    "strict": {"name": "strict", "require": ["guard", "target"]},
    "clinical": {"name": "clinical", "require": ["guard", "target"], "minimum_n": 60},
    "smoke": {"name": "smoke"},
}
EXPERIMENTS = sorted(path.stem for path in (resources.CONF / "experiment").glob("*.yaml"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def demand(rule: RuleConfig) -> str:
    """Everything a rule says of its metric: every key that is not at its default."""
    said = rule.model_dump(exclude_defaults=True, exclude={"metric"})
    return " ".join(f"{key}={value}" for key, value in said.items())


def measured(task: str, metric: str) -> Measured:
    numbers = {"n": 200, "baseline": 0.9, "candidate": 0.9, "delta": 0.0, "ci_low": 0.0, "ci_high": 0.0}
    return Measured(suite="smoke", task=task, metric=metric, only_baseline_right=0, only_candidate_right=0, **numbers)


def resolved(gate: GateConfig) -> dict[str, list[str]]:
    """What decides on each metric that a shipped task or suite has; every one is shown at least."""
    metrics = [measured(task, metric) for task, names in METRICS.items() for metric in names.split()]
    assert [one.key for one in metrics if not is_shown(gate, one)] == []
    return {f"{one.task}/{one.metric}": [demand(rule) for rule in rules_for(gate, one)] for one in metrics}


def expected(policy: str) -> dict[str, list[str]]:
    decides = {metric: rule for rule, metrics in DECIDES[policy].items() for metric in metrics.split()}
    every = [f"{task}/{metric}" for task, names in METRICS.items() for metric in names.split()]
    assert set(decides) <= set(every)
    return {metric: [decides[metric]] if metric in decides else [] for metric in every}


@pytest.mark.parametrize("policy", DECIDES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_policy_demands_what_it_always_did(experiment: str, policy: str) -> None:
    config = config_for([f"experiment={experiment}", f"gate={policy}"])
    assert {task.name for task in config.tasks} <= set(METRICS)
    assert resolved(config.gate) == expected(policy)
    assert config.gate.model_dump(exclude_defaults=True, exclude={"rules"}) == BESIDES[policy]


@pytest.mark.parametrize("policy", DECIDES)
def test_named_by_a_verb_or_by_a_run_a_policy_is_the_same(policy: str) -> None:
    gate = validate(GateConfig, gate_values(policy))
    assert gate == config_for([f"gate={policy}"]).gate
    deciding = sorted(rule.metric for rule in gate.rules if rule.role != "info")
    assert deciding == sorted(f"*/{one}" for names in DECIDES[policy].values() for one in names.split())


def test_every_experiment_and_suite_is_in_the_table() -> None:
    assert len(EXPERIMENTS) == 5
    suites = [path.stem for path in (resources.CONF / "suite").glob("*.yaml")]
    named = {task.name for suite in suites for task in config_for([f"suite={suite}"]).tasks}
    assert named <= set(METRICS)
