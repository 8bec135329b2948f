"""The verbs as a user types them, in a folder with runs and a registry beside them."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from run_folders import POLICY_OF_TESTS, write_run

from harness import cli
from harness.core.store import write_json

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """Calls the command in a folder with two runs and a policy; returns exit code and all that was printed."""
    monkeypatch.chdir(tmp_path)
    for name, right in (("first", 220), ("second", 300), ("worse", 150)):
        write_run(tmp_path / "runs" / name, right)
    write_json(tmp_path / "mine.yaml", POLICY_OF_TESTS.model_dump())
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = cli.main(arguments)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    yield call
    signal.signal(signal.SIGTERM, before)


def test_promote_gate_promote_rollback(harness: Call, tmp_path: Path) -> None:
    assert harness("registry", "init")[0] == 0
    assert harness("promote", "runs/first", "--why", "first")[0] == 0
    code, printed = harness("gate", "production", "second", "policy=mine.yaml", "--out", "decided")
    assert code == 0, printed
    verdict = json.loads((tmp_path / "decided" / "verdict.json").read_text())
    assert (verdict["baseline"]["label"], verdict["candidate"]["label"]) == ("production", "second")
    assert harness("verify", "decided")[0] == 0
    code, printed = harness("promote", "second", "--verdict", "decided", "--who", "ada")
    assert code == 0, printed
    code, printed = harness("registry", "rollback", "--why", "it rhymes")
    assert code == 0
    assert "production → first-" in printed
    code, printed = harness("registry", "list")
    assert [line.split()[2] for line in printed.splitlines()[1:]] == ["init", "promote", "promote", "rollback"]
    assert "by ada" in printed
    assert "it rhymes" in printed


def test_a_refusal_lists_reasons_and_has_the_verdict_s_code(harness: Call) -> None:
    harness("registry", "init")
    code, printed = harness("promote", "worse")
    assert code == 10
    assert "not promoted:\n  - the verdict is FAIL: smoke/quiz/acc fell" in printed
    assert "Traceback" not in printed


def test_other_aliases_stand_for_themselves(harness: Call) -> None:
    for alias in ("staging", "production"):
        assert harness("registry", "init", "--alias", alias)[0] == 0
    assert harness("promote", "first", "--alias", "staging")[0] == 0
    assert harness("promote", "second", "--alias", "production")[0] == 0
    code, printed = harness("registry", "list")
    assert code == 0
    assert "production → second-" in printed
    assert "staging → first-" in printed


def test_verify_against_a_hash_kept_elsewhere(harness: Call, tmp_path: Path) -> None:
    harness("registry", "init")
    printed = harness("promote", "first")[1]
    head = re.search(r"\b[0-9a-f]{64}\b", printed)[0]  # type: ignore[index]
    assert harness("registry", "verify", "--head", head)[0] == 0
    (tmp_path / "registry" / "history.jsonl").unlink()
    (tmp_path / "registry" / "aliases" / "production.json").unlink()
    harness("registry", "init")
    assert harness("promote", "second")[0] == 0, "a history written anew is consistent in itself"
    code, printed = harness("registry", "verify", "--head", head)
    assert code == 12
    assert "cut off or rewritten" in printed


def test_the_policy_of_an_alias(harness: Call) -> None:
    harness("registry", "init")
    assert harness("promote", "first")[0] == 0
    code, printed = harness("registry", "policy", "policy=strict", "--why", "regulator")
    assert code == 0
    assert "production now requires policy strict" in printed
    harness("gate", "production", "second", "policy=mine.yaml", "--out", "decided")
    code, printed = harness("promote", "second", "--verdict", "decided")
    assert code == 12
    assert "policy test: there is no guard rule for '*/general_smoke/acc'" in printed
    assert "policy test: rule '*/disclaimer/recall' has floor 0.9, at least 0.95 is required" in printed


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("promote", "frist"), "Did you mean 'first'?"),
        (("promote", "first", "--alias", "Live"), "cannot be an alias"),
        (("promote", "first", "registry=wandbb"), "Did you mean 'wandb'?"),
        (("promote", "first", "policy=strict"), "Valid: registry="),
        (("registry", "rollback"), "Nothing has been promoted as production"),
        (("registry", "policy"), "there is no policy to set"),
        (("registry", "policy", "policy=strict"), "There is no registry at "),
        (("promote", "first"), "Make it once, on purpose: harness registry init --registry "),
        (("registry", "publish"), "publish needs a W&B registry"),
        (("gate", "production", "first"), "Nothing has been promoted as production (registry: "),
    ],
)
def test_what_cannot_be_done(arguments: tuple[str, ...], told: str, harness: Call, tmp_path: Path) -> None:
    code, printed = harness(*arguments)
    assert code == 2
    assert told in printed
    assert not (tmp_path / "registry" / "history.jsonl").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("gate", "production", "first"),
        ("compare", "production", "first"),
        ("ci", "first", "--policy", "mine.yaml", "suite=smoke"),
        ("evaluate", "production"),
        ("verify", "production"),
        ("template", "verify", "production"),
        ("registry", "rollback"),
    ],
)
def test_every_verb_says_the_first_steps_where_nothing_has_been_promoted(
    arguments: tuple[str, ...], harness: Call, tmp_path: Path
) -> None:
    code, printed = harness(*arguments)
    assert code == 2
    assert (
        f"Nothing has been promoted as production (registry: {tmp_path / 'registry'}). "
        "First: harness registry init, harness ci RUN --against base, then harness promote RUN."
    ) in printed


def test_another_alias_without_a_model_is_named_in_the_first_steps(harness: Call) -> None:
    assert harness("registry", "init", "--alias", "staging")[0] == 0
    assert harness("registry", "policy", "policy=strict", "--alias", "staging")[0] == 0
    code, printed = harness("gate", "staging", "first")
    assert code == 2
    assert "Nothing has been promoted as staging" in printed
    assert "then harness promote RUN --alias staging." in printed


def test_another_place_for_the_registry(harness: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_REGISTRY", str(tmp_path / "shared"))
    assert harness("registry", "init")[0] == 0
    assert harness("promote", "first")[0] == 0
    assert (tmp_path / "shared" / "history.jsonl").is_file()
    assert harness("verify", "production")[0] == 0
    assert harness("verify", "production", "--registry", str(tmp_path / "registry"))[0] == 2


def test_a_registry_and_an_alias_are_made_on_purpose_only(
    harness: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run named by its whole path from another folder belongs to the registry beside its runs."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = str(tmp_path / "runs" / "first")
    code, printed = harness("promote", run)
    assert code == 2
    assert f"There is no registry at {tmp_path / 'registry'}" in printed
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert harness("registry", "init", "--runs-dir", str(tmp_path / "runs"))[0] == 0
    code, printed = harness("promote", run)
    assert code == 0
    assert f"registry: {tmp_path / 'registry'}" in printed
    assert "the first model of production: there was none to compare it with" in printed
    code, printed = harness("promote", run, "--alias", "produktion")
    assert code == 2
    assert "has no alias produktion. Did you mean 'production'?" in printed
    assert harness("registry", "init", "--runs-dir", str(tmp_path / "runs"))[0] == 2
    assert list((tmp_path / "elsewhere").iterdir()) == []
