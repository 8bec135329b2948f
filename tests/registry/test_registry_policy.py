"""'At least as strict' is a partial order: no policy slips through that lets more pass."""

from typing import Any

import pytest
from evaluation_folders import guard, policy
from hypothesis import given
from hypothesis import strategies as st

from harness.config.experiment import validate
from harness.config.gate import GateConfig, RuleConfig
from harness.registry.policy import at_least_as_strict
from harness.workflows.compose import gate_values

TARGET = RuleConfig(metric="*/quiz/recall", role="target", floor=0.9)
INFO = RuleConfig(metric="*/quiz/other", role="info", optional=True)
DEMANDED = policy(guard(margin="5 points"), TARGET, INFO, require=["guard", "target"], alpha_pass=0.05)


def changed(*rules: RuleConfig, **changes: Any) -> GateConfig:
    return policy(*(rules or DEMANDED.rules), **({"require": ["guard", "target"], "alpha_pass": 0.05} | changes))


STRICTER = [
    changed(),
    changed(guard(margin="1 points"), TARGET),
    changed(guard(), TARGET.model_copy(update={"floor": 0.99})),
    changed(TARGET, guard(), INFO),
    changed(alpha_pass=0.01),
    changed(guard(), TARGET, guard("*/more/acc"), INFO),
]
LAXER = [
    (changed(guard(margin="6 points"), TARGET), "margin 6 points, at most 5 points"),
    (changed(guard(), TARGET.model_copy(update={"floor": 0.8})), "floor 0.8, at least 0.9"),
    (changed(guard(), INFO), "no target rule for '*/quiz/recall'"),
    (changed(guard(optional=True), TARGET), "is optional"),
    (changed(RuleConfig(metric="*/quiz/acc", role="info"), TARGET), "is info, guard is required"),
    (changed(alpha_pass=0.1), "alpha_pass is 0.1"),
    (changed(require=["guard"]), "does not require a target"),
    (changed(RuleConfig(metric="smoke/quiz/acc", role="info", optional=True), guard(), TARGET), "comes before"),
    (changed(RuleConfig(metric="smoke/*/acc", role="info", optional=True), guard(), TARGET), "comes before"),
]


@pytest.mark.parametrize("candidate", STRICTER)
def test_as_strict_or_stricter(candidate: GateConfig) -> None:
    assert at_least_as_strict(candidate, DEMANDED) == []


@pytest.mark.parametrize(("candidate", "reason"), LAXER)
def test_laxer_is_told(candidate: GateConfig, reason: str) -> None:
    told = at_least_as_strict(candidate, DEMANDED)
    assert any(reason in text for text in told), told


def test_the_shipped_policies_are_ordered() -> None:
    default, strict = (validate(GateConfig, gate_values(name)) for name in ("default", "strict"))
    assert at_least_as_strict(strict, default) == []
    assert at_least_as_strict(default, default) == []
    assert len(at_least_as_strict(default, strict)) == sum(rule.role != "info" for rule in strict.rules)


margins = st.integers(1, 50)
pairs = st.lists(margins, min_size=1, max_size=4)


@given(pairs, st.data())
def test_a_wider_margin_anywhere_is_never_as_strict(found: list[int], data: st.DataObject) -> None:
    demanded = policy(*(guard(f"*/task{i}/acc", f"{margin} points") for i, margin in enumerate(found)))
    place = data.draw(st.integers(0, len(found) - 1))
    other = data.draw(margins)
    rules = list(demanded.rules)
    rules[place] = rules[place].model_copy(update={"margin": f"{other} points"})
    candidate = policy(*data.draw(st.permutations(rules)))
    assert bool(at_least_as_strict(candidate, demanded)) == (other > found[place])
