"""`harness ci`: a candidate against what is in production, evaluated where that is not done, and decided."""

from dataclasses import dataclass
from pathlib import Path

from harness import store
from harness.compose import config_for, gate_values
from harness.config import Config, GateConfig, read_yaml, validate
from harness.data.task_files import check_task_files
from harness.decision import compare_folders, unusable, write_verdict
from harness.errors import EvidenceFault, UsageError
from harness.evaluate.checkpoint import CANDIDATE, contract_of, resolve_checkpoint
from harness.evaluate.several import EVALUATE, evaluate_checkpoints, evaluation_inputs
from harness.evaluation import tasks_of
from harness.lineage.chain import EVIDENCE, Places, trained_of
from harness.lineage.write import write_evidence
from harness.prompt.contract import CONTRACT_FILE, Contract
from harness.records import Checkpoint, Verdict
from harness.registry.promotion import AGAINST
from harness.report.write import write_report


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
    check_task_files(task.name for task in config.tasks)
    baseline_model, candidate_model = (resolve_checkpoint(name, config) for name in (against, candidate))
    sides = Sides(against, candidate, (baseline_model, candidate_model))
    try:
        _require_one_contract(sides)
        places = _places(out, sides, *evaluated(sides, config))
        folders, data, runs = (places.baseline, places.candidate), places.data, Path(config.runs_dir)
        comparison = compare_folders(folders, (against, candidate), runs, lambda _: data, gate)
    except EvidenceFault as fault:
        places, comparison = None, unusable(against, candidate, str(fault))
    verdict = write_verdict(gate, comparison, out)
    (out / EVIDENCE).unlink(missing_ok=True)
    if places is not None:
        write_evidence(places, out.resolve().name, command)
    return verdict, write_report(out, _label(candidate), command)


def _places(out: Path, sides: Sides, baseline: Path, candidate: Path) -> Places:
    """Where the decision's evidence lies; data and checkpoint are known of a model that a run here trained."""
    checkpoint = Path(sides.checkpoints[1].path)
    data = checkpoint.parent / "data"
    known = (data / "audit.json").is_file()
    if not known:
        return Places(out, baseline, candidate)
    return Places(out, baseline, candidate, data, checkpoint, trained_of(checkpoint))


def ci_config(candidate: str, overrides: list[str], runs: Path, smoke: bool) -> Config:
    """The configuration of a candidate that is a run, or the composed one where overrides are given."""
    recorded = next(
        (f for f in (Path(candidate) / "config.yaml", runs / candidate / "config.yaml") if f.is_file()), None
    )
    here = {"runs_dir": str(runs)}
    if overrides or recorded is None:
        return config_for([*(["suite=smoke"] if smoke else []), *overrides]).model_copy(update=here)
    config = validate(Config, read_yaml(recorded)).model_copy(update=here)
    return config.model_copy(update={"suite": config_for(["suite=smoke"]).suite}) if smoke else config


def out_folder(candidate: str, against: str, runs: Path) -> Path:
    """Where the decision on a run lies, so that `harness promote` finds it; `ci-report` for any other candidate."""
    run = next((f for f in (Path(candidate), runs / candidate) if (f / "checkpoint").is_dir()), None)
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
    missing = {label: checkpoint for label, checkpoint in named.items() if found[label] is None}
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
    """The evaluation that lies beside a run's (or the registry's) checkpoint, if made under the same settings."""
    folder = Path(checkpoint.path).parent / "eval" / CANDIDATE
    manifest = store.read_manifest(folder)
    if manifest is None:
        return None
    contract = contract_of(Path(holder.path), Path(holder.base_path), config)
    inputs = {**evaluation_inputs(checkpoint, contract, config), "label": CANDIDATE}
    expected = store.sha256_json({"stage": EVALUATE, **inputs})
    return folder if manifest.get("fingerprint") == expected and not store.changed_files(folder) else None
