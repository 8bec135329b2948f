"""What a policy can decide on a suite, told before anything is evaluated."""

from pathlib import Path

import pytest
from evaluation_folders import answers, guard, one_task, policy

from harness.cli import main
from harness.config.gate import RuleConfig, SequentialConfig
from harness.core.errors import HarnessError
from harness.gate.power_plan import Expected, earlier, plan
from harness.report.terminal import print_plan

KNOWN = Expected(task="quiz", metric="acc", n=300, baseline=0.6, discordance=0.1, design=1.0)


def test_the_planned_sizes_of_a_guard() -> None:
    """1.1 n of the sample size formula: at psi = .10 and delta = .02, n = 2,142."""
    (line,) = plan(policy(guard(margin="2 points")), "smoke", {"quiz": 2200})
    assert line.needed[0.10] == pytest.approx(1.1 * 2142, abs=2)
    assert line.detectable[0.10] == pytest.approx(0.0197, abs=5e-4)
    assert line.detectable[0.20] > line.detectable[0.10]
    assert "chance" in line.outlook


def test_a_guard_on_too_few_items_can_never_pass() -> None:
    (line,) = plan(policy(guard(margin="2 points")), "smoke", {"quiz": 100})
    assert line.min_items == 149
    assert line.outlook.startswith("cannot pass: too few items")


def test_an_earlier_comparison_gives_the_discordance_and_the_baseline() -> None:
    gate = policy(guard(margin=["5 points", "5% of baseline"]))
    (line,) = plan(gate, "smoke", {"quiz": None}, [KNOWN])
    assert (line.name, line.n) == ("smoke/quiz/acc", 300)
    assert list(line.needed) == [0.1]
    assert line.needed[0.1] == pytest.approx(1.1 * 952, abs=2)  # a margin of 0.03


def test_clustered_items_need_more() -> None:
    clustered = Expected(**(vars(KNOWN) | {"design": 2.0}))
    gate = policy(guard())
    (alone,), (together,) = (plan(gate, "smoke", {}, [one]) for one in (KNOWN, clustered))
    assert together.needed[0.1] == pytest.approx(2 * alone.needed[0.1], abs=2)


@pytest.mark.parametrize(("n", "outlook"), [(290, "cannot pass"), (600, "chance")])
def test_a_plan_like_a_run_with_clusters_counts_clusters(n: int, outlook: str) -> None:
    """Clusters of 5 that share one draw; 59 of them must be there, even if none changes."""
    clustered = Expected(**(vars(KNOWN) | {"design": 5.0, "bounded": True, "size": 5.0, "discordance": 0.02, "n": 600}))
    (line,) = plan(policy(guard()), "smoke", {"quiz": n}, [clustered])
    assert line.min_items == 5 * 59
    assert line.needed[0.02] > 5 * 59
    assert outlook in line.outlook


@pytest.mark.parametrize(
    ("n", "outlook"), [(58, "cannot pass"), (59, "passes with at most 0 errors"), (200, "at most 4")]
)
def test_a_floor_needs_items_without_an_error(n: int, outlook: str) -> None:
    gate = policy(RuleConfig(metric="*/quiz/acc", role="target", floor=0.95), require=["target"])
    (line,) = plan(gate, "smoke", {"quiz": n})
    assert line.min_items == 59
    assert outlook in line.outlook


def test_what_cannot_be_known_is_told() -> None:
    gate = policy(guard(), guard("*/other/acc", margin="5% of baseline"))
    lines = plan(gate, "smoke", {"quiz": None, "other": 100})
    assert ["size is unknown" in lines[0].outlook, "--like" in lines[1].outlook] == [True, True]


def test_what_will_be_invalid_is_told_beforehand() -> None:
    gate = policy(guard(), guard("*/absent/acc"), guard("*/gone/acc", optional=True), require=["guard", "target"])
    lines = plan(gate, "smoke", {"quiz": 200})
    assert [line.name for line in lines] == ["smoke/quiz/acc", "*/absent/acc", "*/*/*"]
    assert ["INVALID" in line.outlook for line in lines] == [False, True, True]


@pytest.mark.parametrize("pattern", ["*", "*/acc", "smoke/q*/acc", "*/quiz/*"])
def test_any_pattern_that_matches_a_task_is_planned(pattern: str) -> None:
    assert [line.n for line in plan(policy(guard(pattern)), "smoke", {"quiz": 200})] == [200]


def test_a_share_of_an_unknown_baseline_is_told_to_be_left_out() -> None:
    gate = policy(guard(margin=["5 points", "2% of baseline"]))
    (without,), (measured,) = (plan(gate, "smoke", {"quiz": 300}, like) for like in (None, [KNOWN]))
    assert "2% of baseline may be stricter, and is not planned without --like RUN" in without.outlook
    assert "not planned" not in measured.outlook


def test_gated_slices_are_planned_with_what_each_of_them_needs() -> None:
    (line,) = plan(policy(guard(slices=["rare*"])), "smoke", {"quiz": 2200})
    assert line.outlook.endswith("; each slice of rare* needs at least 59 items")


def test_looks_need_more_items() -> None:
    (once,), (looks,) = (
        plan(policy(guard(), sequential=rule), "smoke", {"quiz": 400}) for rule in (None, SequentialConfig(looks=4))
    )
    assert looks.needed[0.1] > once.needed[0.1]
    assert (looks.power or 1) < (once.power or 0)


def test_the_verb_needs_no_evaluation(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["gate", "--plan", "policy=strict", "suite=general"]) == 0
    out = capsys.readouterr().out
    assert "guard general/arc_easy/acc (margin 2.5 points): 350 items" in out
    assert any("general/gsm8k" in line for line in out.splitlines())
    assert "guard general/gsm8k/exact_match,flexible-extract (margin 2.5 points): 200 items" in out
    assert "\nINVALID: policy strict requires a target, and suite=general measures none" in out
    assert "use suite=full" in out


def test_the_verb_takes_an_earlier_comparison(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, first in (("a", 0), ("b", 20)):
        one_task(answers(280, 300, first), task="arc_easy").write(tmp_path / name)
    assert main(["compare", "a", "b", "--out", "out"]) == 0
    assert earlier("out", tmp_path)[0].discordance == pytest.approx(40 / 300)
    capsys.readouterr()
    assert main(["gate", "--plan", "suite=general", "--like", "out"]) == 0
    assert "discordance 0.13 (as measured)" in capsys.readouterr().out


def test_the_plan_ends_with_what_can_be_decided(capsys: pytest.CaptureFixture[str]) -> None:
    gate = policy(guard(margin="2 points"), guard("*/small/acc"), guard("*/absent/acc"), require=["target"])
    print_plan(plan(gate, "smoke", {"quiz": 1000, "small": 20}), measured=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4:] == [
        "2 deciding rules can be tested on this suite, 2 cannot",
        "1 rule may stay undecided with this many items",
        "1 rule cannot pass with this many items:",
        "- smoke/small/acc",
    ]
    (missing,) = [line for line in lines if "requires a target" in line]
    assert missing.endswith("INVALID: policy test requires a target, and suite=smoke measures none; use suite=full")


def test_nothing_to_take_discordances_from(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"has no compare\.json"):
        earlier("nowhere", tmp_path)
