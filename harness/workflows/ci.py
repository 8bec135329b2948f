"""`harness ci`: a candidate against what is in production, evaluated where that is not done, and decided."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from harness.checkpoint.alias import registry_folder, resolved
from harness.checkpoint.history import HistoryEntry, current_of, read_history
from harness.checkpoint.origin import origin_of, origins
from harness.checkpoint.resolve import contract_of, resolve_checkpoint
from harness.checkpoint.scaling import split_alpha
from harness.config.experiment import Config, read_yaml, validate
from harness.config.gate import GateConfig
from harness.core import store
from harness.core.console import say
from harness.core.errors import EvidenceFault, UsageError
from harness.core.layout import AUDIT, CANDIDATE, CHECKPOINT, CONTRACT, EVALUATION, RunFolder
from harness.data.evaluation_items import check_task_files
from harness.evaluate.checkpoints import EVALUATE, evaluate_checkpoints
from harness.evaluate.fingerprint import evaluation_inputs
from harness.evaluate.interim_looks import InterimLooks
from harness.lineage.chain import EvidencePaths
from harness.lineage.coverage import data_beside
from harness.lineage.write import evidence_paths
from harness.prompt.contract import Contract
from harness.records.base import load
from harness.records.gate import Verdict
from harness.records.stages import Checkpoint, Evaluation
from harness.workflows.compose import config_for
from harness.workflows.evaluate import label_of, tasks_of
from harness.workflows.gate import further_baselines, policy_named, reach_decision, with_further, write_decision
from harness.workflows.interim_looks import looks_of


@dataclass(frozen=True)
class CandidatePair:
    """What is compared: the name it was given, and its checkpoint. `further` are the policy's further baselines that
    can be served, by the policy's names."""

    baseline: str
    candidate: str
    checkpoints: tuple[Checkpoint, Checkpoint]
    further: Mapping[str, Checkpoint] = field(default_factory=dict)

    @property
    def by_label(self) -> dict[str, Checkpoint]:
        """The models by their names on the server and in the report: the baseline first, the candidate last. A model
        that is several baselines is there once."""
        baseline, candidate = self.checkpoints
        baselines = {self.baseline: baseline}
        for name, found in self.further.items():
            if not any(_same_model(found, other) for other in baselines.values()):
                baselines[name] = found
        labels = [label_of(name) for name in (*baselines, self.candidate)]
        if labels[0] == labels[-1]:
            raise UsageError(f"candidate and baseline are both {labels[0]}: name two models")
        if len(set(labels)) < len(labels):
            raise UsageError(f"two of these models have one name: {', '.join(labels)}")
        return dict(zip(labels, [*baselines.values(), candidate], strict=True))

    @property
    def further_labels(self) -> dict[str, str]:
        """The label of each further baseline, by the policy's name for it."""
        named = list(self.by_label.items())[:-1]
        return {
            name: next(label for label, one in named if _same_model(one, found)) for name, found in self.further.items()
        }


def decide_candidate(
    candidate: str, against: str, policy: str, config: Config, out: Path, command: str
) -> tuple[Verdict, Path]:
    """The verdict on a candidate, with all its files in `out`; returns it and the report's path."""
    rules = policy_named(policy)
    runs = Path(config.runs_dir)
    further = further_baselines(rules, runs)
    check_task_files(task.name for task in config.tasks)
    baseline_model, candidate_model = (_resolved_checkpoint(name, config) for name in (against, candidate))
    served = {name: _resolved_checkpoint(str(model), config) for name, model in _servable_baselines(further).items()}
    pair = CandidatePair(against, candidate, (baseline_model, candidate_model), served)

    def evaluations() -> EvidencePaths:
        _require_one_contract(pair)
        _require_other_baselines(pair)
        baseline, own, others = evaluated(pair, config, rules, further)
        return with_further(_evidence_paths(out, pair, baseline, own, runs), others)

    decision = reach_decision(rules, (against, candidate), evaluations)
    return decision.verdict, write_decision(decision, out, command, runs, label_of(candidate))


def _resolved_checkpoint(name: str, config: Config) -> Checkpoint:
    return resolve_checkpoint(name, config.model, config.template, Path(config.runs_dir))


def promoted_entry(candidate: str, against: str, config: Config) -> HistoryEntry | None:
    """The entry that put this very model (weights, an adapter's base too, and prompt contract) where the alias
    `against` points.

    None for another model, and where `against` is no alias: two names of one model are a mistake there.
    """
    current = current_of(read_history(registry_folder(config.runs_dir)), against)
    if current is None:
        return None
    found = _resolved_checkpoint(candidate, config)
    same = (found.weights_sha256, found.contract_sha256) == (current.digests["weights"], current.digests["contract"])
    on_its_base = found.kind == "full" or found.base_sha256 == current.digests.get("base")
    return current if same and on_its_base else None


def _servable_baselines(further: Mapping[str, Path]) -> dict[str, Path]:
    """The checkpoints beside evaluations of runs and promoted models; an evaluation named as such stays what it is."""
    named = {name: at for name, at in further.items() if at.name == CANDIDATE != Path(name).name}
    runs = {name: RunFolder.of_evaluation(at) for name, at in named.items()}
    return {name: run.checkpoint for name, run in runs.items() if run is not None and run.is_run}


def _evidence_paths(out: Path, pair: CandidatePair, baseline: Path, candidate: Path, runs: Path) -> EvidencePaths:
    """Where the decision's evidence lies; data and checkpoint are known of a model that a run here trained, be it
    named by another folder with the same weights."""
    checkpoint = Path(pair.checkpoints[1].path)
    data = data_beside(checkpoint)
    if (data / AUDIT).is_file():
        return EvidencePaths(out, baseline, candidate, data, checkpoint, origins(checkpoint))
    return evidence_paths(out, baseline, candidate, runs)


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
    found = [RunFolder(home) for home in homes]
    return next((run.config for run in found if run.config.is_file() and run.is_run), None)


def out_folder(candidate: str, against: str, runs: Path) -> Path:
    """Where the decision on a run lies, so that `harness promote` finds it; `ci-report` for any other candidate."""
    named = Path(candidate).parent if Path(candidate).name == CHECKPOINT else Path(candidate)
    run = next((run for run in (RunFolder(named), RunFolder(runs / named)) if run.is_run), None)
    return Path("ci-report") if run is None or "/" in against else run.against(against).path


def _require_one_contract(pair: CandidatePair) -> None:
    """Models that carry contracts must carry the same: none is judged under a prompt it was not made for."""
    named = {pair.baseline: pair.checkpoints[0], **pair.further}
    candidate = pair.checkpoints[1]
    for name, other in named.items():
        carried = [c for c in (other, candidate) if (Path(c.path) / CONTRACT).is_file()]
        if len({Contract.load(Path(c.path)).digest for c in carried}) > 1:
            first, second = (c.contract_sha256[:12] for c in (other, candidate))
            raise EvidenceFault(
                f"the prompt contracts differ: {name} was trained and is served under {first}, "
                f"{pair.candidate} under {second}; one cannot replace the other behind the same clients"
            )


def _require_other_baselines(pair: CandidatePair) -> None:
    """A further baseline that is the candidate itself is a fault, since no test against it can fail."""
    for name, found in pair.further.items():
        if _same_model(found, pair.checkpoints[1]):
            raise EvidenceFault(f"the further baseline {name} is the candidate itself; name another candidate")


def _same_model(one: Checkpoint, other: Checkpoint) -> bool:
    return (one.weights_sha256, one.base_sha256) == (other.weights_sha256, other.base_sha256)


def evaluated(
    pair: CandidatePair, config: Config, policy: GateConfig, further: Mapping[str, Path] = MappingProxyType({})
) -> tuple[Path, Path, dict[str, Path]]:
    """The evaluation folders of baseline, candidate and `further` baselines; what was evaluated under these settings
    is not done again.

    Where the policy has looks, the candidate's answers are looked at in their order, however many are known: a decision
    never depends on what was answered before.
    """
    named, beside = pair.by_label, pair.further_labels
    baseline, *_, candidate = named
    fixed = {name: folder for name, folder in further.items() if name not in beside}
    looks = looks_of(policy, config.suite, baseline, candidate, fixed, beside)
    own = {label: _own_evaluation(checkpoint, named[candidate], config) for label, checkpoint in named.items()}
    known = {label: found for label, found in own.items() if found and (looks is None or label != candidate)}
    folders = known if len(known) == len(named) else _evaluate_missing(named, config, looks, known)
    return folders[baseline], folders[candidate], {**fixed, **{name: folders[label] for name, label in beside.items()}}


def _evaluate_missing(
    named: Mapping[str, Checkpoint], config: Config, looks: InterimLooks | None, known: Mapping[str, Path]
) -> dict[str, Path]:
    """Evaluations in a folder of their own for these models and looks: those of another decision stay as they are."""
    asked = [config.model_dump(exclude={"runs_dir"}), [found.model_dump() for found in named.values()]]
    digest = store.sha256_json([*asked, looks.identity] if looks else asked)
    folder = Path(config.runs_dir).resolve() / f"evaluate-{digest[:10]}"
    with store.locked(folder):
        place = RunFolder(folder)
        load = tasks_of(config)
        return evaluate_checkpoints(named, config.evaluation, place.evaluations, place.log, load, looks, known)


def _own_evaluation(checkpoint: Checkpoint, holder: Checkpoint, config: Config) -> Path | None:
    """The evaluation that lies beside a run's (or the registry's) checkpoint, if made under the same settings and
    without requests that failed and may succeed another time."""
    folder = RunFolder.of_checkpoint(Path(checkpoint.path)).candidate
    manifest = store.read_manifest(folder)
    if manifest is None:
        return None
    contract = contract_of(Path(holder.path), Path(holder.base_path), config.template)
    inputs = {**evaluation_inputs(checkpoint, contract, config.evaluation), "label": CANDIDATE}
    expected = store.sha256_json({"stage": EVALUATE, **inputs})
    if manifest.get("fingerprint") != expected or store.changed_files(folder):
        return None
    return None if load(Evaluation, folder / EVALUATION).failed_requests else folder
