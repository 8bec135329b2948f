"""A sweep's recommendation and front, its own settings, and the level at which the best of several passes."""

from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import guard, policy
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import ConfigError, EvidenceFault
from harness.lineage.chain import EvidencePaths
from harness.records.sweep import Sweep, SweepMember
from harness.workflows.gate import as_one_of_a_sweep
from harness.workflows.sweep import split_launch, with_choice


def member(run: str, **values: Any) -> SweepMember:
    return SweepMember(overrides=[], run=run, exit_code=0, **values)


def chosen(*members: SweepMember) -> Sweep:
    return with_choice(Sweep(command="harness sweep", members=list(members)))


def test_the_passing_run_with_the_largest_gain_is_recommended() -> None:
    found = chosen(
        member("fails", verdict="FAIL", gain=0.9, general=-0.5),
        member("good", verdict="PASS", gain=0.5, general=-0.01),
        member("less", verdict="PASS", gain=0.4, general=0.0),
        member("worst", verdict="PASS", gain=0.3, general=-0.2),
    )
    assert found.recommended == "good"
    assert found.front == ["fails", "good", "less"]
    assert "2 passing" not in found.why
    assert "3 passing runs" in found.why


def test_nothing_is_recommended_where_nothing_passes() -> None:
    assert chosen(member("a", verdict="FAIL", gain=0.1, general=0.0)).why == "no member passed"
    assert chosen(SweepMember(overrides=[], run="a")).why == "not every member has a verdict yet"


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=12))
def test_no_run_beats_one_on_the_front(points: list[tuple[float, float]]) -> None:
    found = chosen(*(member(str(i), verdict="PASS", gain=g, general=a) for i, (g, a) in enumerate(points)))
    assert found.recommended in found.front
    for run in range(len(points)):
        gain, general = points[run]
        beaten = any(g >= gain and a >= general and (g, a) != (gain, general) for g, a in points)
        assert (str(run) in found.front) == (not beaten)


def test_settings_of_the_sweep_are_not_the_members() -> None:
    rest, launch = split_launch(["experiment=x", "launch.devices=[0,1]", "+launch.retries=2", "train.seed=1,2"])
    assert rest == ["experiment=x", "train.seed=1,2"]
    assert (launch.devices, launch.retries) == ([0, 1], 2)
    with pytest.raises(ConfigError, match=r"device: unknown key\. Did you mean 'devices'\?"):
        split_launch(["launch.device=[0]"])


def test_the_level_of_a_pass_is_shared_by_all_candidates(tmp_path: Path) -> None:
    rules = policy(guard("*/*/acc"))
    paths = EvidencePaths(tmp_path, tmp_path, tmp_path, tmp_path / "data")
    assert as_one_of_a_sweep(rules, paths) == rules  # no configuration: not from a sweep of ours
    (tmp_path / "config.yaml").write_text("gate: {candidates: 8}\n")
    corrected = as_one_of_a_sweep(rules, paths)
    assert corrected.pass_level() == rules.alpha_pass / 8
    assert corrected.alpha_fail == rules.alpha_fail
    stricter = rules.model_copy(update={"candidates": 20})
    assert as_one_of_a_sweep(stricter, paths) == stricter
    (tmp_path / "config.yaml").write_text("gate: {candidates: many}\n")
    with pytest.raises(EvidenceFault, match="from how many candidates"):
        as_one_of_a_sweep(rules, paths)
