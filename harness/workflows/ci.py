"""`harness ci`: compares a candidate with the model in production, evaluates what is missing, and decides."""

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
    """The two models of a comparison: their names as typed, and their checkpoints, the baseline first.

    `further` holds the policy's further baselines that can be served, by the policy's names.
    """

    baseline: str
    candidate: str
    checkpoints: tuple[Checkpoint, Checkpoint]
    further: Mapping[str, Checkpoint] = field(default_factory=dict)

    @property
    def by_label(self) -> dict[str, Checkpoint]:
        """The models by their names on the server and in the report: the baseline first, the candidate last.

        A model that serves as several baselines appears once. Raises UsageError when two models share a name.
        """
        baseline, candidate = self.checkpoints
        baselines = {self.baseline: baseline}
        for name, found in self.further.items():
            if not any(_same_model(found, other) for other in baselines.values()):
                baselines[name] = found
        labels = [label_of(name) for name in (*baselines, self.candidate)]
        if labels[0] == labels[-1]:
            raise UsageError(f"candidate and baseline are both {labels[0]}; name two different models")
        if len(set(labels)) < len(labels):
            raise UsageError(f"two of these models share a name: {', '.join(labels)}. Rename one of the folders")
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
    """Decides on a candidate and writes all files to `out`; returns the verdict and the report's path."""
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
    """The entry of the alias `against` where it already points to the candidate: same weights, base and contract.

    None for another model, and where `against` is not an alias: naming one model twice is a mistake there.
    """
    current = current_of(read_history(registry_folder(config.runs_dir)), against)
    if current is None:
        return None
    found = _resolved_checkpoint(candidate, config)
    base = None if found.kind == "full" else found.base_sha256
    return current if current.names(found.weights_sha256, found.contract_sha256, base) else None


def _servable_baselines(further: Mapping[str, Path]) -> dict[str, Path]:
    """The checkpoints of the further baselines that are runs or promoted models; evaluation folders are left out."""
    named = {name: at for name, at in further.items() if at.name == CANDIDATE != Path(name).name}
    runs = {name: RunFolder.of_evaluation(at) for name, at in named.items()}
    return {name: run.checkpoint for name, run in runs.items() if run is not None and run.is_run}


def _evidence_paths(out: Path, pair: CandidatePair, baseline: Path, candidate: Path, runs: Path) -> EvidencePaths:
    """The folders of the decision's evidence.

    Data and checkpoint are known for a model that a run on this machine trained, even where another folder with the
    same weights was named.
    """
    checkpoint = Path(pair.checkpoints[1].path)
    data = data_beside(checkpoint)
    if (data / AUDIT).is_file():
        return EvidencePaths(out, baseline, candidate, data, checkpoint, origins(checkpoint))
    return evidence_paths(out, baseline, candidate, runs)


def ci_config(candidate: str, overrides: list[str], runs: Path, smoke: bool) -> Config:
    """The configuration of the candidate's run; the composed one where overrides are given.

    A model from elsewhere is evaluated under the default configuration, and a line says so.
    """
    recorded = None if overrides else _recorded_config(candidate, runs)
    here = {"runs_dir": str(runs)}
    if recorded is None:
        if not overrides:
            say(f"· {candidate} does not come from a run with a config.yaml, so the default configuration applies")
        return config_for([*(["suite=smoke"] if smoke else []), *overrides]).model_copy(update=here)
    config = validate(Config, read_yaml(recorded)).model_copy(update=here)
    return config.model_copy(update={"suite": config_for(["suite=smoke"]).suite}) if smoke else config


def _recorded_config(candidate: str, runs: Path) -> Path | None:
    """config.yaml of the run or promoted model behind RUN, ALIAS, RUN/checkpoint, a scaled copy, or any @ALPHA."""
    name = resolved(split_alpha(candidate)[0], registry_folder(runs))
    named = [folder.resolve() for folder in (Path(name), runs / name) if folder.is_dir()]
    homes = [home for folder in named for home in (folder, folder.parent, origin_of(folder).parent)]
    found = [RunFolder(home) for home in homes]
    return next((run.config for run in found if run.config.is_file() and run.is_run), None)


def out_folder(candidate: str, against: str, runs: Path) -> Path:
    """The folder for the decision: for a run, where `harness promote` looks for it; else `ci-report`."""
    named = Path(candidate).parent if Path(candidate).name == CHECKPOINT else Path(candidate)
    run = next((run for run in (RunFolder(named), RunFolder(runs / named)) if run.is_run), None)
    return Path("ci-report") if run is None or "/" in against else run.against(against).path


def _require_one_contract(pair: CandidatePair) -> None:
    """Raises EvidenceFault when prompt contracts differ: a model is only evaluated under the prompt it was made for."""
    named = {pair.baseline: pair.checkpoints[0], **pair.further}
    candidate = pair.checkpoints[1]
    for name, other in named.items():
        carried = [c for c in (other, candidate) if (Path(c.path) / CONTRACT).is_file()]
        if len({Contract.load(Path(c.path)).digest for c in carried}) > 1:
            first, second = (c.contract_sha256[:12] for c in (other, candidate))
            raise EvidenceFault(
                f"the prompt contracts differ: {name} was trained and is served under {first}, {pair.candidate} under "
                f"{second}, so one cannot replace the other for the same clients. Train {pair.candidate} with the "
                f"template of {name}"
            )


def _require_other_baselines(pair: CandidatePair) -> None:
    """Raises EvidenceFault when a further baseline is the candidate itself: no test against it could fail."""
    for name, found in pair.further.items():
        if _same_model(found, pair.checkpoints[1]):
            raise EvidenceFault(f"the further baseline {name} is the candidate itself; name another candidate")


def _same_model(one: Checkpoint, other: Checkpoint) -> bool:
    return (one.weights_sha256, one.base_sha256) == (other.weights_sha256, other.base_sha256)


def evaluated(
    pair: CandidatePair, config: Config, policy: GateConfig, further: Mapping[str, Path] = MappingProxyType({})
) -> tuple[Path, Path, dict[str, Path]]:
    """The evaluation folders of baseline, candidate and `further` baselines. Existing evaluations under the same
    settings are reused.

    Where the policy has interim looks, the candidate is never reused as a whole: its answers are examined look by look,
    so the decision does not depend on how many were cached.
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
    """Evaluates the models without a `known` evaluation, in a folder that only this set of models and looks uses."""
    inputs = [config.model_dump(exclude={"runs_dir"}), [found.model_dump() for found in named.values()]]
    digest = store.sha256_json([*inputs, looks.identity] if looks else inputs)
    folder = Path(config.runs_dir).resolve() / f"evaluate-{digest[:10]}"
    with store.locked(folder):
        place = RunFolder(folder)
        load = tasks_of(config)
        return evaluate_checkpoints(named, config.evaluation, place.evaluations, place.log, load, looks, known)


def _own_evaluation(checkpoint: Checkpoint, holder: Checkpoint, config: Config) -> Path | None:
    """The evaluation beside the checkpoint of a run or of the registry; None unless it was made under the same settings
    and every request succeeded."""
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
