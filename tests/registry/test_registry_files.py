"""The embedded registry: what is promoted, what is refused and why, and what an edit of its files leaves to see."""

import json
import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import guard, policy
from run_folders import POLICY_OF_TESTS, N, decide, write_run

from harness.checkpoint import history
from harness.checkpoint.alias import registry_folder, resolved
from harness.checkpoint.history import HISTORY, read_history
from harness.config.gate import SequentialConfig
from harness.core.errors import EvidenceFault, HarnessError, PromotionRefused, UsageError
from harness.core.store import MANIFEST, sha256_json, write_json
from harness.lineage.verify import broken_links, verify_evidence
from harness.model.load import weights_sha256
from harness.registry.files import FileRegistry
from harness.registry.promotion import checked_request, promote
from harness.registry.protocol import AuditInfo

ALIAS = "production"
ACT = AuditInfo(ALIAS, "ada@laptop", "looks good")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def registry(runs: Path) -> FileRegistry:
    made = FileRegistry(registry_folder(runs))
    made.create(ACT)
    return made


@pytest.fixture
def two(runs: Path, registry: FileRegistry) -> FileRegistry:
    """A registry whose production was `first`, and is `second`."""
    promote(registry, write_run(runs / "first", 220), None, ACT)
    against_production(write_run(runs / "second", 300), registry)
    promote(registry, runs / "second", None, ACT)
    return registry


def against_production(run: Path, registry: FileRegistry) -> Path:
    current = registry.current(ALIAS)
    assert current is not None
    out = run / "against" / ALIAS
    decide(run, registry.model_folder(current) / "eval" / "candidate", out)
    return out


def refused(registry: FileRegistry, run: Path, decision: Path | None = None) -> PromotionRefused:
    before = registry.history()
    with pytest.raises(PromotionRefused) as caught:
        promote(registry, run, decision, ACT)
    assert registry.history() == before
    return caught.value


class TestPromotion:
    def test_the_alias_points_to_a_copy_that_outlives_the_run(self, runs: Path, registry: FileRegistry) -> None:
        run = write_run(runs / "first", 220)
        weights = (run / "checkpoint" / "adapter_model.safetensors").read_bytes()
        entry = promote(registry, run, None, ACT)
        shutil.rmtree(run)
        folder = Path(resolved(ALIAS, registry.folder))
        assert (folder / "checkpoint" / "adapter_model.safetensors").read_bytes() == weights
        assert broken_links(verify_evidence(folder)) == []
        assert (entry.number, entry.who, entry.why, entry.run_id) == (2, "ada@laptop", "looks good", "first")

    def test_a_scaled_run_is_kept_with_what_it_was_scaled_from(self, runs: Path, registry: FileRegistry) -> None:
        run = write_run(runs / "half", 220, alpha=0.5)
        entry = promote(registry, run, None, ACT)
        assert entry.digests["weights"] == weights_sha256(run / "checkpoint")
        shutil.rmtree(run)
        assert broken_links(registry.verify()) == []

    def test_a_model_whose_evaluation_can_be_no_baseline(
        self, runs: Path, registry: FileRegistry, capsys: pytest.CaptureFixture[str]
    ) -> None:
        looks = POLICY_OF_TESTS.model_copy(update={"sequential": SequentialConfig(looks=4)})
        promote(registry, write_run(runs / "first", 300, stopped_at=N, demands=looks), None, ACT)
        told = capsys.readouterr().err
        assert "the evaluation of first stopped early (quiz)" in told
        assert "harness ci RUN --against production" in told

    def test_editing_the_run_does_not_reach_production(self, runs: Path, registry: FileRegistry) -> None:
        run = write_run(runs / "first", 220)
        promote(registry, run, None, ACT)
        (run / "checkpoint" / "adapter_model.safetensors").write_bytes(b"others")
        assert broken_links(registry.verify()) == []

    def test_an_entry_names_every_digest(self, runs: Path, registry: FileRegistry) -> None:
        entry = promote(registry, write_run(runs / "first", 220), None, ACT)
        names = {"weights", "base", "contract", "data", "decontamination", "evaluation", "verdict", "policy"}
        assert names <= set(entry.digests)
        assert all(entry.digests.values())

    def test_a_name_that_is_no_alias_stays_a_name(self, registry: FileRegistry) -> None:
        assert resolved("runs/first", registry.folder) == "runs/first"

    def test_the_model_that_is_there_moves_nothing(
        self, two: FileRegistry, runs: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A job that runs again; the run of the model before is another matter."""
        before = two.history()
        assert promote(two, runs / "second", None, ACT) == before[-1]
        assert two.history() == before
        assert "production already points to this model" in capsys.readouterr().err
        with pytest.raises(PromotionRefused):
            promote(two, runs / "first", None, ACT)

    def test_the_same_adapter_on_another_base_is_not_there(self, two: FileRegistry, runs: Path) -> None:
        manifest = runs / "second" / "checkpoint" / MANIFEST
        told = json.loads(manifest.read_text())
        told["inputs"]["base"] = "another"
        manifest.write_text(json.dumps(told))
        assert refused(two, runs / "second").exit_code == 12

    def test_a_better_candidate_replaces_production(self, two: FileRegistry) -> None:
        current = two.current(ALIAS)
        assert current is not None
        assert (current.run_id, current.number) == ("second", 3)
        assert broken_links(two.verify()) == []

    def test_a_run_that_was_only_trained_is_promoted_by_the_decision_on_it(
        self, runs: Path, registry: FileRegistry
    ) -> None:
        run = write_run(runs / "first", 220)
        decide(run, run / "eval" / "base", run / "against" / ALIAS)
        for name in ("run.json", "evidence.json", "verdict.json", "compare.json", "policy.json"):
            (run / name).unlink()
        assert promote(registry, run, None, ACT).run_id == "first"
        assert broken_links(registry.verify()) == []


class TestRefusals:
    def test_a_failed_verdict(self, runs: Path, registry: FileRegistry) -> None:
        error = refused(registry, write_run(runs / "worse", 150))
        assert error.exit_code == 10
        assert "fell by 12.5 points" in str(error)

    @pytest.mark.parametrize("lost", ["data", "base"])
    def test_a_training_that_nothing_links_to_its_data_or_its_base(
        self, runs: Path, registry: FileRegistry, lost: str
    ) -> None:
        run = write_run(runs / "first", 220)
        path = run / "checkpoint" / MANIFEST
        manifest = json.loads(path.read_text())
        del manifest["inputs"][lost]
        fingerprint = sha256_json({"stage": manifest["stage"], **manifest["inputs"]})
        write_json(path, manifest | {"fingerprint": fingerprint})
        decide(run, run / "eval" / "base", run / "against" / ALIAS)
        (run / "run.json").unlink()
        assert "→ train" in str(refused(registry, run))

    def test_an_undecided_verdict(self, runs: Path, registry: FileRegistry) -> None:
        error = refused(registry, write_run(runs / "few", 9, baseline=9, of=20))
        assert error.exit_code == 11
        assert "items in all" in str(error)

    def test_a_verdict_against_something_else(self, two: FileRegistry, runs: Path) -> None:
        error = refused(two, write_run(runs / "third", 320))
        assert error.exit_code == 12
        assert "the verdict's baseline is base, not production" in str(error)

    def test_another_prompt_contract(self, two: FileRegistry, runs: Path) -> None:
        run = write_run(runs / "third", 320, template="{{ other }}")
        error = refused(two, run, against_production(run, two))
        assert error.exit_code == 12
        assert "the prompt contracts differ" in str(error)

    def test_a_laxer_policy(self, two: FileRegistry, runs: Path) -> None:
        run = write_run(runs / "third", 320)
        current = two.current(ALIAS)
        assert current is not None
        baseline = two.model_folder(current) / "eval" / "candidate"
        decide(run, baseline, run / "against" / ALIAS, policy(guard(margin="20 points")))
        error = refused(two, run)
        assert error.exit_code == 12
        assert "margin 20 points, at most 5 points is required" in str(error)

    def test_the_policy_of_the_alias_can_be_raised(self, two: FileRegistry, runs: Path) -> None:
        two.set_policy(ACT, policy(guard(margin="1 points")).model_dump(mode="json"))
        run = write_run(runs / "third", 320)
        against_production(run, two)
        assert "at most 1 points is required" in str(refused(two, run))

    def test_the_verdict_of_another_run(self, two: FileRegistry, runs: Path) -> None:
        third, fourth = (write_run(runs / name, 320) for name in ("third", "fourth"))
        error = refused(two, fourth, against_production(third, two))
        assert error.exit_code == 12
        assert "third" in str(error)

    def test_all_reasons_are_told_at_once(self, two: FileRegistry, runs: Path) -> None:
        run = write_run(runs / "third", 150)
        (run / "checkpoint" / "adapter_model.safetensors").write_bytes(b"others")
        told = str(refused(two, run))
        assert "the verdict is FAIL" in told
        assert "adapter_model.safetensors changed" in told
        assert "not production" in told

    def test_no_verdict_at_all(self, runs: Path, registry: FileRegistry) -> None:
        run = write_run(runs / "first", 220)
        (run / "verdict.json").unlink()
        with pytest.raises(UsageError, match=r"has no verdict\.json"):
            promote(registry, run, None, ACT)

    def test_training_data_that_nobody_checked(self, runs: Path, registry: FileRegistry) -> None:
        run = write_run(runs / "first", 220)
        shutil.rmtree(run / "data")
        error = refused(registry, run)
        assert error.exit_code == 12

    @pytest.mark.parametrize(
        "name",
        [
            "data/train.parquet",
            "data/audit.json",
            "checkpoint/adapter_model.safetensors",
            "checkpoint/adapter_config.json",
            "checkpoint/prompt_contract.json",
            "checkpoint/stage.json",
            "eval/base/samples_quiz.jsonl",
            "eval/candidate/samples_quiz.jsonl",
            "eval/candidate/evaluation.json",
            "compare.json",
            "verdict.json",
            "policy.json",
            "evidence.json",
            "config.yaml",
            "prompt_contract.json",
        ],
    )
    def test_one_changed_byte_in(self, name: str, runs: Path, registry: FileRegistry) -> None:
        run = write_run(runs / "first", 220)
        path = run / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        error = refused(registry, run)
        assert error.exit_code == 12
        assert path.name in str(error)

    def test_a_forged_verdict_with_matching_digests(self, runs: Path, registry: FileRegistry) -> None:
        """Whoever rewrites verdict and digests must also rewrite the samples: the decision is made again from them."""
        run = write_run(runs / "worse", 150)
        forged = (
            (run / "verdict.json").read_text().replace('"FAIL"', '"PASS"').replace('"exit_code": 10', '"exit_code": 0')
        )
        _rewrite(run, "verdict.json", forged, "gate.verdict")
        error = refused(registry, run)
        assert error.exit_code == 12
        assert "verdict recomputed: verdict: 'PASS' is recorded, but 'FAIL' follows" in str(error)


def _rewrite(run: Path, name: str, text: str, output: str) -> None:
    """Changes a file, and every digest of it in evidence.json and run.json."""
    from harness.core.store import sha256_file, write_json

    before = sha256_file(run / name)
    (run / name).write_text(text)
    after = sha256_file(run / name)
    for record in ("evidence.json", "run.json"):
        (run / record).write_text((run / record).read_text().replace(before, after))
    recorded = json.loads((run / "run.json").read_text())
    recorded["outputs"]["evidence.json"] = sha256_file(run / "evidence.json")
    write_json(run / "run.json", recorded)


class TestTwoAtOnce:
    def test_the_one_that_was_checked_against_an_older_production_is_told(self, two: FileRegistry, runs: Path) -> None:
        late, early = (write_run(runs / name, 320) for name in ("late", "early"))
        current = two.current(ALIAS)
        checked = checked_request(late, against_production(late, two), current, POLICY_OF_TESTS)
        against_production(early, two)
        promote(two, early, None, AuditInfo(ALIAS, "grace", ""))
        with pytest.raises(PromotionRefused, match=r"moved while .* by grace moved it to early") as caught:
            two.promote(checked, ACT)
        assert caught.value.exit_code == 12
        assert [entry.run_id for entry in two.history() if entry.model] == ["first", "second", "early"]

    @pytest.mark.parametrize("promoted", [True, False])
    def test_a_policy_that_is_raised_during_the_checks(
        self, runs: Path, registry: FileRegistry, promoted: bool
    ) -> None:
        if promoted:
            promote(registry, write_run(runs / "first", 220), None, ACT)
        late, current = write_run(runs / "late", 320), registry.current(ALIAS)
        decision = against_production(late, registry) if promoted else late
        checked = checked_request(late, decision, current, None)
        raised = policy(guard(metric="*/quiz/acc", margin="2 points"))
        registry.set_policy(AuditInfo(ALIAS, "grace", "stricter"), raised.model_dump(mode="json"))
        with pytest.raises(PromotionRefused, match="at most 2 points is required") as caught:
            registry.promote(checked, ACT)
        assert caught.value.exit_code == 12
        assert "late" not in [entry.run_id for entry in registry.history()]

    def test_verified_while_somebody_promotes_the_history_is_no_shorter_than_an_alias(
        self, two: FileRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = history.read_lines

        def meanwhile(lines: list[str], where: str) -> Any:
            found = read(lines, where)
            monkeypatch.setattr(history, "read_lines", read)
            two.rollback(ACT)
            return found

        monkeypatch.setattr(history, "read_lines", meanwhile)
        assert broken_links(two.verify()) == []
        assert len(two.history()) == 4

    def test_processes_that_start_together(self, runs: Path, registry: FileRegistry) -> None:
        names = [f"run{number}" for number in range(4)]
        for name in names:
            write_run(runs / name, 220)
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            outcomes = list(pool.map(_promoted, [(str(runs), name) for name in names]))
        assert sorted(outcomes) == [0, 12, 12, 12]
        assert len(registry.history()) == 2
        assert broken_links(registry.verify()) == []
        assert [path for path in registry.folder.rglob("*") if ".tmp" in path.name] == []


def _promoted(asked: tuple[str, str]) -> int:
    runs, name = Path(asked[0]), asked[1]
    try:
        promote(FileRegistry(registry_folder(runs)), runs / name, None, ACT)
    except HarnessError as error:
        return error.exit_code
    return 0


class TestRollback:
    def test_to_the_model_before(self, two: FileRegistry) -> None:
        entry = two.rollback(ACT)
        assert (entry.run_id, entry.action, entry.number) == ("first", "rollback", 4)
        assert Path(resolved(ALIAS, two.folder)).name == entry.model
        assert broken_links(two.verify()) == []

    def test_there_is_nothing_before_the_first(self, two: FileRegistry) -> None:
        two.rollback(ACT)
        with pytest.raises(UsageError, match="only ever pointed to one model"):
            two.rollback(ACT)

    def test_forward_again_by_name(self, two: FileRegistry) -> None:
        two.rollback(ACT)
        assert two.rollback(ACT, to="second").run_id == "second"

    def test_a_candidate_after_a_rollback_is_held_against_the_model_that_is_back(
        self, two: FileRegistry, runs: Path
    ) -> None:
        two.rollback(ACT)
        against_production(write_run(runs / "third", 320), two)
        assert promote(two, runs / "third", None, ACT).number == 5
        assert two.rollback(ACT).run_id == "first"

    def test_damaged_weights_do_not_come_back(self, two: FileRegistry) -> None:
        first = two.history()[1]
        path = two.model_folder(first) / "checkpoint" / "adapter_model.safetensors"
        path.chmod(0o644)
        path.write_bytes(b"others")
        with pytest.raises(EvidenceFault, match=r"adapter_model\.safetensors changed"):
            two.rollback(ACT)
        assert len(two.history()) == 3

    def test_an_unknown_alias(self, two: FileRegistry) -> None:
        with pytest.raises(UsageError, match="Did you mean 'production'"):
            two.rollback(AuditInfo("producton", "ada", ""))


class TestTampering:
    """Whatever somebody does to the history, `registry verify` and every later use of it say so."""

    @pytest.mark.parametrize(
        "edit",
        [
            lambda lines: [lines[0].replace("looks good", "looks bad."), *lines[1:]],
            lambda lines: lines[1:],
            lambda lines: lines[::-1],
            lambda lines: [lines[0], lines[0], *lines[1:]],
            lambda lines: [*lines, "{}"],
            lambda lines: [*lines, lines[-1][:40]],
        ],
        ids=["changed", "first removed", "order", "repeated", "added", "cut off"],
    )
    def test_an_edited_line(self, edit: Callable[[list[str]], list[str]], two: FileRegistry) -> None:
        path = two.folder / HISTORY
        path.write_text("".join(f"{line}\n" for line in edit(path.read_text().splitlines())))
        assert any("history" in told for told in broken_links(two.verify()))
        with pytest.raises(EvidenceFault, match="history was edited"):
            read_history(two.folder)
        with pytest.raises(EvidenceFault, match="history was edited"):
            two.rollback(ACT)

    def test_a_history_whose_end_was_cut_off(self, two: FileRegistry) -> None:
        path = two.folder / HISTORY
        path.write_text(path.read_text().splitlines()[0] + "\n")
        assert any("cut off" in told for told in broken_links(two.verify()))

    def test_a_changed_model_file(self, two: FileRegistry) -> None:
        path = two.model_folder(two.history()[1]) / "eval" / "candidate" / "samples_quiz.jsonl"
        path.chmod(0o644)
        path.write_text(path.read_text().replace("answer 1", "answer 2"))
        assert any(path.name in told for told in broken_links(two.verify()))

    def test_a_model_that_is_gone(self, two: FileRegistry) -> None:
        shutil.rmtree(two.model_folder(two.history()[1]))
        assert any("is missing" in told for told in broken_links(two.verify()))


@pytest.mark.parametrize("alias", ["", "Production", "../x", "a b", "-x", "x" * 64, "base"])
def test_no_such_alias(alias: str, runs: Path, registry: FileRegistry) -> None:
    with pytest.raises(UsageError, match="cannot be an alias"):
        promote(registry, write_run(runs / "first", 220), None, AuditInfo(alias, "ada", ""))
