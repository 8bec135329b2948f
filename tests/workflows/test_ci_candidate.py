"""What `harness ci` evaluates, what it takes over, and what it refuses before anything is evaluated."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import answers, one_task
from run_folders import BASE_SHA, POLICY_OF_TESTS, N, write_evaluation, write_run

from harness.checkpoint.history import HistoryEntry, write_history
from harness.checkpoint.origin import write_origin
from harness.config.experiment import Config
from harness.config.gate import SequentialConfig
from harness.core.errors import EvidenceFault, UsageError
from harness.core.layout import CONTRACT
from harness.core.store import stage
from harness.evaluate.checkpoints import EVALUATE
from harness.lineage.verify import broken_links, verify_evidence
from harness.lineage.write import evidence_paths, write_evidence
from harness.model.load import weights_sha256
from harness.prompt.contract import Contract
from harness.records.stages import Checkpoint
from harness.registry.files import FileRegistry
from harness.registry.promotion import promote
from harness.registry.protocol import AuditInfo
from harness.workflows import ci
from harness.workflows.compose import config_for
from harness.workflows.gate import compared, write_verdict


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "runs").mkdir()
    return config_for(["experiment=finance_disclaimer"]).model_copy(update={"runs_dir": str(tmp_path / "runs")})


def model(path: Path, contract: str) -> Checkpoint:
    return Checkpoint(
        path=str(path), kind="full", base_path=str(path), weights_sha256=path.name, base_sha256="b",
        contract_sha256=contract,
    )  # fmt: skip


def test_a_further_baseline_without_evaluation_is_refused_first(config: Config, tmp_path: Path) -> None:
    policy = POLICY_OF_TESTS.model_copy(update={"baselines": ["gone", "lost"]})
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(policy.model_dump(mode="json")))
    with pytest.raises(UsageError, match=r"(?s)baseline gone has no evaluation.*baseline lost has no") as caught:
        ci.decide_candidate("no such candidate", "base", str(path), config, tmp_path / "out", "test")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("weights", "contract", "against", "there"),
    [
        ("w", "c", "production", True),
        ("other", "c", "production", False),
        ("w", "other", "production", False),
        ("w", "c", "runs/mine", False),
    ],
)
def test_what_is_in_production_already(
    weights: str, contract: str, against: str, there: bool, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = promoted({"weights": "w", "contract": "c"})
    registry = Path(config.runs_dir).parent / "registry"
    registry.mkdir()
    write_history(registry, [entry])
    monkeypatch.setattr(ci, "resolve_checkpoint", lambda *_: model(Path(weights), contract))
    assert ci.promoted_entry("runs/mine", against, config) == (entry if there else None)


@pytest.mark.parametrize(("base", "there"), [("b", True), ("another", False)])
def test_an_adapter_on_another_base_is_another_model(
    base: str, there: bool, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {"weights": "w", "contract": "c", "base": "b"}
    monkeypatch.setattr(ci, "read_history", lambda _: [])
    monkeypatch.setattr(ci, "current_of", lambda *_: promoted(digests))
    adapter = model(Path("w"), "c").model_copy(update={"kind": "adapter", "base_sha256": base})
    monkeypatch.setattr(ci, "resolve_checkpoint", lambda *_: adapter)
    assert (ci.promoted_entry("runs/mine", "production", config) is not None) == there


def promoted(digests: dict[str, str]) -> HistoryEntry:
    return HistoryEntry(
        number=1, action="promote", alias="production", model="mine-1", run_id="mine", when="", who="", why="",
        digests=digests, policy={}, previous="",
    ).sealed()  # fmt: skip


def test_an_adapter_merged_into_its_base_is_linked_to_the_run_of_the_adapter(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the data over training and merge to the evaluation; promoted, both lie in the registry."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    runs = Path(config.runs_dir)
    run = write_run(runs / "mine", 220)
    whole = merged(run, tmp_path / "cache" / "merged")
    evaluation = evaluated(runs, runs / "evaluate-1" / "eval" / "mine", whole)
    pair = ci.CandidatePair("base", "mine", (model(tmp_path, "c"), model(whole, "c")))
    out = run / "against" / "base"
    places = ci._evidence_paths(out, pair, run / "eval" / "base", evaluation, runs)
    assert places == evidence_paths(out, run / "eval" / "base", evaluation, runs), "`harness gate` finds the same"
    comparison = compared(places, ("base", "mine"))
    write_verdict(POLICY_OF_TESTS, comparison, out)
    write_evidence(places, "base", "test", runs)
    told = [link.line() for link in verify_evidence(out)]
    for link in ("data.dataset → train", "train.weights → merge", "merge.weights → evaluate_candidate"):
        assert any(line.startswith(f"OK      {link}: ") for line in told)
    registry = FileRegistry(tmp_path / "registry")
    registry.create(AuditInfo("production", "ada", ""))
    entry = promote(registry, run, out, AuditInfo("production", "ada", ""))
    assert entry.digests["weights"] == weights_sha256(registry.model_folder(entry) / "checkpoint")
    assert entry.digests["checkpoint"] == weights_sha256(run / "checkpoint")
    assert broken_links(registry.verify()) == []
    copy = registry.model_folder(entry)
    shutil.rmtree(run)
    kept = evidence_paths(copy, copy / "eval" / "baseline", copy / "eval" / "candidate", runs)
    assert (kept.data, kept.training) == (copy / "data", copy / "trained"), "the copy leads to the training it keeps"


def merged(run: Path, cache: Path) -> Path:
    """The whole model of a run's adapter, as the cache holds it."""
    adapter = run / "checkpoint"

    def work(out: Path) -> None:
        (out / "model.safetensors").write_bytes(b"base and adapter")
        shutil.copy(adapter / CONTRACT, out)
        write_origin(out, adapter)

    inputs = {"adapter": weights_sha256(adapter), "base": BASE_SHA, "dtype": "bfloat16"}
    inputs["contract"] = Contract.load(adapter).digest
    return stage(cache, cache / "x" / "model", "merge", inputs, work)[0]


def evaluated(runs: Path, folder: Path, checkpoint: Path) -> Path:
    asked = Contract.load(checkpoint).digest
    write_evaluation(runs, folder, answers(220, N), folder.name, weights_sha256(checkpoint), asked)
    return folder


def test_a_folder_with_the_weights_of_a_run_is_linked_to_it(config: Config, tmp_path: Path) -> None:
    """As where a team keeps its adapters in a repository of their own."""
    runs = Path(config.runs_dir)
    run = write_run(runs / "mine", 220)
    shutil.copytree(run / "checkpoint", tmp_path / "adapters" / "support")
    pair = ci.CandidatePair(
        "base", "adapters/support", (model(tmp_path, "c"), model(tmp_path / "adapters" / "support", "c"))
    )
    evaluation = evaluated(runs, runs / "evaluate-1" / "eval" / "support", run / "checkpoint")
    places = ci._evidence_paths(tmp_path / "out", pair, run / "eval" / "base", evaluation, runs)
    assert (places.data, places.checkpoint) == (run / "data", run / "checkpoint")


@pytest.mark.parametrize("failed", [0, 2])
def test_an_evaluation_with_failed_requests_is_made_again(
    failed: int, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ci, "contract_of", lambda *_: None)
    monkeypatch.setattr(ci, "evaluation_inputs", lambda *_: {"settings": "same"})
    run = tmp_path / "runs" / "mine"
    checkpoint = model(run / "checkpoint", "c")

    def work(out: Path) -> None:
        record = one_task(answers(3, 4)).write(out / "made") / "evaluation.json"
        (out / "evaluation.json").write_text(json.dumps(json.loads(record.read_text()) | {"failed_requests": failed}))

    inputs = {"settings": "same", "label": "candidate"}
    folder, _ = stage(run.parent, run / "eval" / "candidate", EVALUATE, inputs, work)
    assert ci._own_evaluation(checkpoint, checkpoint, config) == (None if failed else folder)


def test_a_lone_baseline_is_asked_under_the_candidate_s_contract(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the last checkpoint counts; the candidate's own evaluation stands."""
    given = asked_of(monkeypatch, tmp_path, {"c": tmp_path / "own"})
    pair = ci.CandidatePair("production", "note", (model(tmp_path / "b", "other"), model(tmp_path / "c", "mine")))
    assert ci.evaluated(pair, config, POLICY_OF_TESTS) == (tmp_path / "made/production", tmp_path / "own", {})
    assert (list(given["checkpoints"]), given["known"]) == (["production", "note"], {"note": tmp_path / "own"})
    assert given["looks"] is None


def asked_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: dict[str, Path]) -> dict[str, Any]:
    """What evaluations are asked for; `own` are those that lie beside a model already, by its weights."""
    given: dict[str, Any] = {}

    def evaluate(checkpoints: Any, config: Any, out: Path, log: Any, load: Any, looks: Any, known: Any) -> Any:
        given.update(checkpoints=checkpoints, out=out, looks=looks, known=known)
        return {label: tmp_path / "made" / label for label in checkpoints} | known

    monkeypatch.setattr(ci, "evaluate_checkpoints", evaluate)
    monkeypatch.setattr(ci, "_own_evaluation", lambda found, *_: own.get(found.weights_sha256))
    return given


def test_looks_decide_whatever_was_evaluated_before(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole evaluation of the candidate would be judged at the last look; that of the baseline is what looks need."""
    policy = POLICY_OF_TESTS.model_copy(update={"sequential": SequentialConfig(looks=4)})
    own = {"b": tmp_path / "baseline", "c": tmp_path / "candidate"}
    given = asked_of(monkeypatch, tmp_path, own)
    pair = ci.CandidatePair("production", "note", (model(tmp_path / "b", "mine"), model(tmp_path / "c", "mine")))
    folders = ci.evaluated(pair, config, policy)
    assert folders == (tmp_path / "baseline", tmp_path / "made/note", {})
    assert given["known"] == {"production": tmp_path / "baseline"}
    assert given["looks"].in_full == {"production"}
    first = given["out"]
    ci.evaluated(pair, config, policy.model_copy(update={"alpha_fail": 0.01}))
    assert given["out"] != first, "another rule leaves the evidence of the first decision alone"


def test_further_baselines_are_evaluated_with_the_rest(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each model once; an evaluation that is named as such is taken as it is."""
    policy = POLICY_OF_TESTS.model_copy(update={"sequential": SequentialConfig(looks=4)})
    policy = policy.model_copy(update={"baselines": ["production", "anchor", "fixed"]})
    given = asked_of(monkeypatch, tmp_path, {})
    production, anchor, note = (model(tmp_path / name, "mine") for name in ("p", "a", "n"))
    fixed = one_task(answers(3, 4)).write(tmp_path / "fixed")
    further = {"production": production, "anchor": anchor}
    pair = ci.CandidatePair("runs/mine", "note", (production, note), further)
    folders = ci.evaluated(pair, config, policy, {**dict.fromkeys(further, tmp_path), "fixed": fixed})
    assert list(given["checkpoints"]) == ["mine", "anchor", "note"]
    assert given["looks"].in_full == {"mine", "anchor"}
    made = tmp_path / "made"
    assert folders[2] == {"fixed": fixed, "production": made / "mine", "anchor": made / "anchor"}


def test_a_further_baseline_that_is_the_candidate_is_a_fault(tmp_path: Path) -> None:
    models = (model(tmp_path / "b", "mine"), model(tmp_path / "c", "mine"))
    with pytest.raises(EvidenceFault, match="the further baseline anchor is the candidate itself"):
        ci._require_other_baselines(ci.CandidatePair("base", "note", models, {"anchor": models[1]}))


def test_which_further_baselines_can_be_served(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "first"
    (run / "checkpoint").mkdir(parents=True)
    named = {"first": run / "eval/candidate", "first/eval/base": run / "eval/base"}
    named |= {str(run / "eval/candidate"): run / "eval/candidate", "elsewhere": tmp_path / "results"}
    assert ci._servable_baselines(named) == {"first": run / "checkpoint"}
