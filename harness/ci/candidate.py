"""`harness ci`: a candidate against what is in production, evaluated where that is not done, and decided."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import store
from harness.compose import config_for, gate_values
from harness.config import Config, GateConfig, read_yaml, validate
from harness.console import say
from harness.data.task_files import check_task_files
from harness.decision import baseline_folder, compare_folders, unusable, write_verdict
from harness.errors import EvidenceFault, UsageError
from harness.evaluate.checkpoint import CANDIDATE, contract_of, resolve_checkpoint
from harness.evaluate.several import EVALUATE, evaluate_checkpoints, evaluation_inputs
from harness.evaluation import tasks_of
from harness.gate.coverage import data_beside
from harness.lineage.chain import EVIDENCE, Places
from harness.lineage.write import places_of, write_evidence
from harness.origin import origin_of, origins
from harness.prompt.contract import CONTRACT_FILE, Contract
from harness.records import Checkpoint, Evaluation, Verdict, load
from harness.registry.alias import registry_folder, resolved
from harness.registry.history import Entry, current_of, read_history
from harness.registry.promotion import AGAINST
from harness.report.write import write_report
from harness.scaling import split_alpha


@dataclass(frozen=True)
class Sides:
    """What is compared: the name it was given, and its checkpoint."""

    baseline: str
    candidate: str
    checkpoints: tuple[Checkpoint, Checkpoint]


def decide_candidate(
    candidate: str, against: str, policy: str, config: Config, out: Path, command: str
) -> tuple[Verdict, Path]:
    """The verdict on a candidate, with all its files in `out`; returns it and the report's path."""
    gate = validate(GateConfig, gate_values(policy))
    _require_baselines(gate, Path(config.runs_dir))
    check_task_files(task.name for task in config.tasks)
    baseline_model, candidate_model = (resolve_checkpoint(name, config) for name in (against, candidate))
    sides = Sides(against, candidate, (baseline_model, candidate_model))
    runs = Path(config.runs_dir)
    try:
        _require_one_contract(sides)
        places = _places(out, sides, *evaluated(sides, config), runs)
        folders, data = (places.baseline, places.candidate), places.data
        comparison = compare_folders(folders, (against, candidate), runs, lambda _: data, gate)
    except EvidenceFault as fault:
        places, comparison = None, unusable(against, candidate, str(fault))
    verdict = write_verdict(gate, comparison, out)
    (out / EVIDENCE).unlink(missing_ok=True)
    if places is not None:
        write_evidence(places, out.resolve().name, command, runs)
    return verdict, write_report(out, _label(candidate), command)


def already_there(candidate: str, against: str, config: Config) -> Entry | None:
    """The entry that put this very model (weights, an adapter's base too, and prompt contract) where the alias
    `against` points.

    None for another model, and where `against` is no alias: two names of one model are a mistake there.
    """
    current = current_of(read_history(registry_folder(config.runs_dir)), against)
    if current is None:
        return None
    found = resolve_checkpoint(candidate, config)
    same = (found.weights_sha256, found.contract_sha256) == (current.digests["weights"], current.digests["contract"])
    on_its_base = found.kind == "full" or found.base_sha256 == current.digests.get("base")
    return current if same and on_its_base else None


def _require_baselines(policy: GateConfig, runs: Path) -> None:
    """Before anything is evaluated: raises UsageError that lists the policy's further baselines without evaluation."""
    faults = []
    for name in policy.baselines:
        try:
            baseline_folder(name, runs)
        except UsageError as error:
            faults.append(f"  - baseline {name}: {error}")
    if faults:
        raise UsageError("\n".join([f"policy {policy.name} names baselines that have no evaluation:", *faults]))


def _places(out: Path, sides: Sides, baseline: Path, candidate: Path, runs: Path) -> Places:
    """Where the decision's evidence lies; data and checkpoint are known of a model that a run here trained, be it
    named by another folder with the same weights."""
    checkpoint = Path(sides.checkpoints[1].path)
    data = data_beside(checkpoint)
    if (data / "audit.json").is_file():
        return Places(out, baseline, candidate, data, checkpoint, origins(checkpoint))
    return places_of(out, baseline, candidate, runs)


def ci_config(candidate: str, overrides: list[str], runs: Path, smoke: bool) -> Config:
    """The configuration of the run that a candidate comes from, or the composed one where overrides are given.

    A model that no run here made is judged under the defaults, and that is said.
    """
    recorded = None if overrides else _recorded_config(candidate, runs)
    here = {"runs_dir": str(runs)}
    if recorded is None:
        if not overrides:
            say(f"· {candidate} comes from no run with a config.yaml: it is judged under the default configuration")
        return config_for([*(["suite=smoke"] if smoke else []), *overrides]).model_copy(update=here)
    config = validate(Config, read_yaml(recorded)).model_copy(update=here)
    return config.model_copy(update={"suite": config_for(["suite=smoke"]).suite}) if smoke else config


def _recorded_config(candidate: str, runs: Path) -> Path | None:
    """config.yaml of the run or promoted model that RUN, ALIAS, RUN/checkpoint, any of them @ALPHA, or a scaled copy
    means."""
    name = resolved(split_alpha(candidate)[0], registry_folder(runs))
    named = [folder.resolve() for folder in (Path(name), runs / name) if folder.is_dir()]
    homes = [home for folder in named for home in (folder, folder.parent, origin_of(folder).parent)]
    return next((f for home in homes if (f := home / "config.yaml").is_file() and _is_run(home)), None)


def _is_run(folder: Path) -> bool:
    return (folder / "checkpoint").is_dir()


def out_folder(candidate: str, against: str, runs: Path) -> Path:
    """Where the decision on a run lies, so that `harness promote` finds it; `ci-report` for any other candidate."""
    named = Path(candidate).parent if Path(candidate).name == "checkpoint" else Path(candidate)
    run = next((folder for folder in (named, runs / named) if _is_run(folder)), None)
    return Path("ci-report") if run is None or "/" in against else run / AGAINST / against


def _require_one_contract(sides: Sides) -> None:
    """Two models that carry contracts must carry the same: neither is judged under a prompt it was not made for."""
    carried = [c for c in sides.checkpoints if (Path(c.path) / CONTRACT_FILE).is_file()]
    if len({Contract.load(Path(c.path)).digest for c in carried}) > 1:
        first, second = (c.contract_sha256[:12] for c in sides.checkpoints)
        raise EvidenceFault(
            f"the prompt contracts differ: {sides.baseline} was trained and is served under {first}, "
            f"{sides.candidate} under {second}; one cannot replace the other behind the same clients"
        )


def evaluated(sides: Sides, config: Config) -> tuple[Path, Path]:
    """The evaluation folders of baseline and candidate; what was evaluated under these settings is not done again."""
    contract_holder = sides.checkpoints[1]
    named = dict(zip(_labels(sides), sides.checkpoints, strict=True))
    found = {label: _own_evaluation(checkpoint, contract_holder, config) for label, checkpoint in named.items()}
    missing = _to_evaluate(sides, found)
    if missing:
        digest = store.sha256_json(
            [config.model_dump(exclude={"runs_dir"}), [c.model_dump() for c in missing.values()]]
        )
        folder = Path(config.runs_dir).resolve() / f"evaluate-{digest[:10]}"
        with store.locked(folder):
            log = folder / "logs" / "vllm.log"
            found |= evaluate_checkpoints(missing, config, folder / "eval", log, tasks_of(config))
    baseline, candidate = (folder for folder in found.values() if folder is not None)
    return baseline, candidate


def _to_evaluate(sides: Sides, found: Mapping[str, Path | None]) -> dict[str, Checkpoint]:
    """What has no evaluation yet, the candidate last: all are asked under the contract of the last.

    The candidate is among them, its answers known, where the baseline alone would be asked under another contract.
    """
    named = dict(zip(found, sides.checkpoints, strict=True))
    baseline, candidate = sides.checkpoints
    missing = {label: checkpoint for label, checkpoint in named.items() if found[label] is None}
    alone = list(missing.values()) == [baseline] and baseline.contract_sha256 != candidate.contract_sha256
    return named if alone else missing


def _labels(sides: Sides) -> tuple[str, str]:
    """Names of the two on the server and in the report."""
    baseline, candidate = (_label(name) for name in (sides.baseline, sides.candidate))
    if baseline == candidate:
        raise UsageError(f"candidate and baseline are both {candidate}: name two models")
    return baseline, candidate


def _label(name: str) -> str:
    path = Path(name).resolve() if Path(name).exists() else Path(name)
    return path.parent.name if path.name == "checkpoint" else path.name


def _own_evaluation(checkpoint: Checkpoint, holder: Checkpoint, config: Config) -> Path | None:
    """The evaluation that lies beside a run's (or the registry's) checkpoint, if made under the same settings and
    without requests that failed and may succeed another time."""
    folder = Path(checkpoint.path).parent / "eval" / CANDIDATE
    manifest = store.read_manifest(folder)
    if manifest is None:
        return None
    contract = contract_of(Path(holder.path), Path(holder.base_path), config)
    inputs = {**evaluation_inputs(checkpoint, contract, config), "label": CANDIDATE}
    expected = store.sha256_json({"stage": EVALUATE, **inputs})
    if manifest.get("fingerprint") != expected or store.changed_files(folder):
        return None
    return None if load(Evaluation, folder / "evaluation.json").failed_requests else folder
