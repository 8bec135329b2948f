"""The list of stages: data → train → evaluate → compare → gate → report → track. The only file that sees them all."""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from harness.behavior.registry import load_behavior
from harness.behavior.registry import plugins_in_use as behavior_plugins
from harness.checkpoint.resolve import CANDIDATE, checkpoint
from harness.checkpoint.scaling import scale
from harness.config.experiment import Config
from harness.core import store
from harness.core.code_digest import code_digest
from harness.core.console import say, timed
from harness.core.errors import ConfigError, EvidenceFault, LimitsBroken, UsageError
from harness.core.machine import hardware
from harness.core.plugins import plugin_digest
from harness.core.redact import without_secrets
from harness.data.audit import audit
from harness.data.evaluation_items import check_task_files, require_unseen
from harness.data.settings import section
from harness.data.sources import Origin, find_sources, require_usable
from harness.data.tables import read_rows, read_validation_rows
from harness.evaluate.checkpoints import evaluate_checkpoints
from harness.evaluate.judging import require_judge
from harness.lineage.chain import EVIDENCE, POLICY, Places
from harness.lineage.coverage import uncovered
from harness.lineage.write import write_evidence
from harness.model.load import is_adapter, local_model, weights_sha256
from harness.prompt.contract import CONTRACT_FILE
from harness.prompt.make import read_template
from harness.records.base import load
from harness.records.gate import Verdict
from harness.records.stages import Checkpoint, Dataset
from harness.report.model_card import write_model_card
from harness.report.write import write_report
from harness.results.evidence import read_evidence
from harness.serve.server import usable_port
from harness.track.open import check_tracker
from harness.track.run import track_run, watched
from harness.train.launch import accelerate_file
from harness.train.plan import TrainingPlan, plan_training
from harness.train.progress import CURVE
from harness.workflows.checkpoint_selection import BASE, base_checkpoint, examine, kept_server
from harness.workflows.evaluate import evaluation_items, hub_folder, tasks_of
from harness.workflows.gate import baseline_folder, compare_all, unusable, write_verdict
from harness.workflows.interim_looks import looks_of

# What the training stage depends on, and the stage after it that scales the trained change.


def training_inputs(config: Config, base: Path, dataset: Dataset) -> dict[str, Any]:
    """Everything the weights depend on; an unfinished training goes on only where nothing of it changed."""
    installed = store.versions()
    inputs: dict[str, Any] = {
        "base": weights_sha256(base),
        "data": dataset.sha256,
        "template": [config.template.model_dump(), config.template.file and read_template(config.template.file)],
        "train": config.train.model_dump(),
        "launch": [config.launcher, config.num_processes, _accelerate_file(config)],
        "dtype": config.model.dtype,
        "versions": {name: installed.get(name) for name in ("torch", "transformers", "peft", "accelerate")},
        "code": code_digest("harness.train.finetune:finetune"),
    }
    if config.train.kl_to_base:
        inputs["roles"] = {name: source.role for name, source in config.data.sources.items()}
    if config.train.eval_every:
        inputs["examination"] = [config.gate.model_dump(mode="json"), [task.model_dump() for task in config.tasks]]
    return inputs


def _accelerate_file(config: Config) -> str | None:
    return store.sha256_file(accelerate_file(config.accelerate_config)) if config.accelerate_config else None


def scale_stage(config: Config, runs: Path, trained: Path, base: Path) -> Path:
    """checkpoint/ beside trained/, as base + alpha · (trained − base)."""
    alpha, dtype = config.alpha, config.model.dtype
    fingerprint = (store.read_manifest(trained) or {})["fingerprint"]
    inputs = {
        "trained": fingerprint,
        "alpha": alpha,
        "dtype": dtype,
        "code": code_digest("harness.checkpoint.scaling:scale"),
    }
    folder, _ = store.stage(
        runs, trained.parent / "checkpoint", "scale", inputs, lambda out: scale(trained, base, alpha, dtype, out)
    )
    return folder


RUN = "run.json"
RECORDED = ("config.yaml", CONTRACT_FILE, "compare.json", "verdict.json", POLICY, EVIDENCE)
UNFINISHED = ".training"
OPTIONAL = ("conflicts.jsonl", "validation.parquet")


@dataclass(frozen=True)
class Run:
    """A run folder and the configuration that names it: the same configuration always means the same folder."""

    config: Config
    id: str
    folder: Path

    @classmethod
    def of(cls, config: Config) -> "Run":
        digest = store.sha256_json(config.model_dump(exclude={"runs_dir"}))
        run_id = f"{config.name}-{digest[:10]}"
        return cls(config, run_id, Path(config.runs_dir).resolve() / run_id)

    @property
    def runs(self) -> Path:
        return self.folder.parent


def run_experiment(config: Config, command: str) -> tuple[Verdict, Path]:
    """Everything from data to verdict; returns the verdict and the report's path. Unchanged stages are reused.

    `command` is what the user typed; the report repeats it.
    """
    run = Run.of(config)
    started = time.time()
    with store.locked(run.folder):
        say(f"run {run.id}")
        candidate = train(run)
        verdict = judge(run, candidate)
        write_evidence(Places.of_run(run.folder), run.id, command, run.runs)
        report = write_report(run.folder, config.name, command)
        write_model_card(run.folder, config)
        finished = _record(run, verdict, command, started)
        if not _is_recorded(run.folder, finished):
            track_run(run.folder, config, verdict)
            store.write_json(run.folder / RUN, finished)
    return verdict, report


def train(run: Run) -> Checkpoint:
    """The stages up to a checkpoint."""
    check(run.config)
    _write_config(run)
    dataset = audit_stage(run)
    if dataset.broken_limits:
        raise LimitsBroken(dataset.broken_limits)
    return train_stage(run, dataset)


def check(config: Config) -> None:
    """Every fault that can be known before work starts: files, behaviours, template, tracker, port."""
    faults: list[str] = []
    if config.hub_dir is not None and not Path(config.hub_dir).is_dir():
        faults.append(f"hub_dir: {config.hub_dir} is no folder")
    probes: list[Callable[[], object]] = [
        lambda: usable_sources(config),
        *(lambda rule=rule: load_behavior(rule.name) for rule in config.audit.rules),
        lambda: check_task_files(task.name for task in config.tasks),
        lambda: config.template.file and read_template(config.template.file),
        lambda: config.accelerate_config and accelerate_file(config.accelerate_config),
        *(lambda name=name: baseline_folder(name, Path(config.runs_dir)) for name in config.gate.baselines),
        partial(require_judge, config.suite.judge, (BASE, CANDIDATE)),
    ]
    for probe in probes:
        try:
            probe()
        except ConfigError as error:
            faults += error.faults
        except UsageError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError(faults)
    check_tracker(config.tracker)
    usable_port(config.serve)


def audit_stage(run: Run) -> Dataset:
    """data/: audited and mixed rows."""
    config = run.config
    items = evaluation_items(config)
    sources = usable_sources(config)
    inputs = {
        "sources": {source.name: source.digest() for source in sources},
        "data": config.data.model_dump(),
        "audit": config.audit.model_dump(exclude={"engine", "workers", "batch_rows"}),
        "items": store.sha256_json(items),
        "code": code_digest("harness.data.audit:audit"),
        "behaviors": _behavior_digest(),
        "plugins": plugin_digest("filters", config.audit.filters) | behavior_plugins(),
    }

    def work(folder: Path) -> None:
        with timed("audit and mix the data"):
            audit(config.data, config.audit, items, folder, hub_folder(config))

    folder, reused = store.stage(run.runs, run.folder / "data", "data", inputs, work)
    dataset = load(Dataset, folder / "audit.json")
    require_unseen(items, read_rows(folder), str(folder))
    _told(reused, f"data: {dataset.rows} rows")
    return dataset


def audit_alone(config: Config, out: Path) -> Dataset:
    """The audit of the configured sources into `out`, with kept.jsonl and quarantine.jsonl."""
    out.mkdir(parents=True, exist_ok=True)
    with store.disk_full_is_told(out), tempfile.TemporaryDirectory(prefix=".audit-", dir=out) as folder:
        made = Path(folder)
        dataset = audit(config.data, config.audit, evaluation_items(config), made, hub_folder(config), json_lines=True)
        for name in OPTIONAL:  # of an earlier audit into the same folder
            (out / name).unlink(missing_ok=True)
        for path in made.iterdir():
            path.replace(out / path.name)
    return dataset


def usable_sources(config: Config) -> list[Origin]:
    """The sources with their files found and their licences accepted; raises DataError that lists what is wrong."""
    origins = find_sources(config.data, hub_folder(config))
    require_usable(origins, section("licences", config.audit.licences))
    return origins


def train_stage(run: Run, dataset: Dataset) -> Checkpoint:
    """checkpoint/: the weights with tokenizer, template and contract; with alpha below 1 made from those in trained/.

    An unfinished training lies in .training/ until it is done.
    """
    config = run.config
    base = local_model(config.model)
    inputs = training_inputs(config, base, dataset)
    unfinished = run.folder / UNFINISHED

    def work(folder: Path) -> None:
        from harness.train.finetune import finetune

        tasks_of(config)()
        fingerprint = store.sha256_json({"stage": "train", **inputs})
        with (
            timed(f"train on {dataset.rows} rows"),
            watched(run.folder, config, fingerprint, unfinished / CURVE),
            kept_server(config) as kept,
        ):
            data = run.folder / "data"
            examined = partial(examine, config, base, work=unfinished, kept=kept)
            finetune(config, base, read_rows(data), folder, unfinished, inputs, examined, read_validation_rows(data))

    target = run.folder / ("checkpoint" if config.alpha == 1 else "trained")
    folder, reused = store.stage(run.runs, target, "train", inputs, work)
    shutil.rmtree(unfinished, ignore_errors=True)
    _told(reused, target.name)
    if config.alpha < 1:
        folder = scale_stage(config, run.runs, folder, base)
    shutil.copy(folder / CONTRACT_FILE, run.folder / CONTRACT_FILE)
    return checkpoint(folder, config, base if is_adapter(folder) else None)


def evaluate_stage(run: Run, candidate: Checkpoint) -> dict[str, Path]:
    """eval/base and eval/candidate, on one server where they share a base model."""
    base = base_checkpoint(local_model(run.config.model), candidate.contract_sha256)
    sides = {BASE: base, CANDIDATE: candidate}
    log = run.folder / "logs" / "vllm.log"
    further = {name: baseline_folder(name, run.runs) for name in run.config.gate.baselines}
    looks = looks_of(run.config.gate, run.config.suite, BASE, CANDIDATE, further)
    return evaluate_checkpoints(sides, run.config, run.folder / "eval", log, tasks_of(run.config), looks)


def judge(run: Run, candidate: Checkpoint) -> Verdict:
    """eval/, compare.json and verdict.json. Evidence that cannot be trusted gives an INVALID verdict, not none."""
    _drop_old_verdict(run.folder)
    try:
        folders = evaluate_stage(run, candidate)
        gate = run.config.gate
        evidence = read_evidence(folders[CANDIDATE], gate.fields)
        comparison = compare_all(read_evidence(folders[BASE], gate.fields), evidence, run.runs, gate)
        faults = uncovered(run.folder / "data", evidence, store.sha256_json(evaluation_items(run.config)))
        comparison = comparison.model_copy(update={"faults": [*comparison.faults, *faults]})
    except EvidenceFault as fault:
        comparison = unusable(BASE, CANDIDATE, str(fault))
    return write_verdict(run.config.gate, comparison, run.folder)


def _drop_old_verdict(folder: Path) -> None:
    """A verdict never outlives the checkpoint and the evaluations it was reached on."""
    for name in ("verdict.json", "compare.json", POLICY):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "report", ignore_errors=True)


def _record(run: Run, verdict: Verdict, command: str, started: float) -> dict[str, Any]:
    """What run.json holds: what was asked, stage fingerprints, digests of everything written."""
    stages = {path.parent.relative_to(run.folder).as_posix(): path.parent for path in run.folder.rglob(store.MANIFEST)}
    manifests = {name: store.read_manifest(folder) or {} for name, folder in stages.items()}
    outputs = {f"{name}/{file}": sha for name, found in manifests.items() for file, sha in found["outputs"].items()}
    outputs |= {n: store.sha256_file(run.folder / n) for n in RECORDED if (run.folder / n).is_file()}
    return {
        "run_id": run.id,
        "command": command,
        "asked": without_secrets(run.config.model_dump()),
        "stages": {name: found["fingerprint"] for name, found in manifests.items()},
        "outputs": outputs,
        "verdict": verdict.verdict,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "versions": store.versions(),
        "git_commit": store.git_commit(),
        "hardware": hardware(),
    }


def _is_recorded(folder: Path, finished: dict[str, Any]) -> bool:
    """Whether the run stands there already with the same stages, outputs and verdict, and was tracked."""
    earlier = _read_run(folder) or {}
    return all(earlier.get(key) == finished[key] for key in ("stages", "outputs", "verdict"))


def _read_run(folder: Path) -> dict[str, Any] | None:
    import json

    try:
        found = json.loads((folder / RUN).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write_config(run: Run) -> None:
    from omegaconf import OmegaConf

    OmegaConf.save(OmegaConf.create(run.config.model_dump()), run.folder / "config.yaml")


def _behavior_digest() -> list[str]:
    from harness.core import resources

    return [store.sha256_file(p) for root in resources.task_roots() for p in sorted(root.glob("*/behavior.yaml"))]


def _told(reused: bool, what: str) -> None:
    if reused:
        say(f"· {what} (unchanged, reused)")


# `harness train --dry-run`: what a training would be, from its real rows, before anything is trained.


def dry_run(run: Run) -> TrainingPlan:
    """Audits the data (which a training after it reuses) and plans the training on them.

    Raises LimitsBroken where training would.
    """
    check(run.config)
    dataset = audit_stage(run)
    if dataset.broken_limits:
        raise LimitsBroken(dataset.broken_limits)
    return plan_training(run.config, local_model(run.config.model), read_rows(run.folder / "data"))
