"""`harness run`: data → train → evaluate → compare → gate → report → track. The only module that uses every stage."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from harness.behavior.registry import load_behavior
from harness.behavior.registry import plugins_in_use as behavior_plugins
from harness.checkpoint.resolve import checkpoint
from harness.checkpoint.scaling import scale
from harness.config.experiment import Config
from harness.core import store
from harness.core.code_digest import code_digest
from harness.core.console import say, timed
from harness.core.errors import ConfigError, LimitsBroken, UsageError
from harness.core.layout import (
    AUDIT,
    BASE,
    CANDIDATE,
    COMPARISON,
    CONFIG,
    CONTRACT,
    CURVE,
    EVIDENCE,
    POLICY,
    VERDICT,
    RunFolder,
)
from harness.core.leftovers import abandoned_in, remove, temporary_name
from harness.core.machine import hardware
from harness.core.plugins import plugin_digest
from harness.core.redact import without_secrets
from harness.core.resources import task_roots
from harness.data.audit import audit, usable_sources
from harness.data.evaluation_items import check_task_files, require_unseen
from harness.data.semantic import semantic_digest
from harness.data.sources import Origin
from harness.data.tables import read_rows, read_validation_rows
from harness.evaluate.checkpoints import evaluate_checkpoints
from harness.evaluate.judging import require_judge
from harness.lineage.chain import EvidencePaths
from harness.model.load import is_adapter, local_model, weights_sha256
from harness.prompt.make import read_template
from harness.records.base import load
from harness.records.gate import Verdict
from harness.records.stages import Checkpoint, Dataset
from harness.report.model_card import write_model_card
from harness.serve.server import usable_port
from harness.track.open import check_tracker
from harness.track.run import live_tracking, track_run
from harness.train.launch import accelerate_file
from harness.train.plan import TrainingPlan, plan_training
from harness.workflows.checkpoint_selection import base_checkpoint, judge_checkpoint, server_between_checkpoints
from harness.workflows.evaluate import evaluation_items, hub_folder, tasks_of
from harness.workflows.gate import baseline_folder, further_baselines, reach_decision, with_further, write_decision
from harness.workflows.interim_looks import looks_of

RECORDED = (CONFIG, CONTRACT, COMPARISON, VERDICT, POLICY, EVIDENCE)
OPTIONAL = ("conflicts.jsonl", "validation.parquet")


@dataclass(frozen=True)
class Run:
    """A run: its configuration, and the id and folder that follow from it; equal configurations share a folder."""

    config: Config
    id: str
    folder: RunFolder

    @classmethod
    def of(cls, config: Config) -> "Run":
        digest = store.sha256_json(config.model_dump(exclude={"runs_dir"}))
        run_id = f"{config.name}-{digest[:10]}"
        return cls(config, run_id, RunFolder(Path(config.runs_dir).resolve() / run_id))

    @property
    def runs(self) -> Path:
        return self.folder.path.parent


def run_experiment(config: Config, command: str) -> tuple[Verdict, Path]:
    """Runs everything from data to verdict; returns the verdict and the report's path. Unchanged stages are reused.

    `command` is what the user typed; the report repeats it.
    """
    require_decidable(config)
    run = Run.of(config)
    started = time.time()
    with store.locked(run.folder.path):
        say(f"run {run.id}")
        candidate = train(run)
        verdict, report = decision_stage(run, candidate, command)
        write_model_card(run.folder.path, config)
        finished = _run_record(run, verdict, command, started)
        if not _already_recorded(run.folder, finished):
            track_run(run.folder.path, config.tracking, verdict)
            store.write_json(run.folder.record, finished)
        elif (
            finished["outputs"] != json.loads(run.folder.record.read_text())["outputs"]
        ):  # only the report was rewritten
            store.write_json(run.folder.record, finished)
    return verdict, report


def require_decidable(config: Config) -> None:
    """Raises ConfigError where the verdict can only be INVALID, since the suite lacks what the policy demands."""
    from harness.evaluate.tasks.index import members
    from harness.gate.power_plan import only_invalid

    policy, suite = config.gate, config.suite.name
    reasons = only_invalid(policy, suite, members([task.name for task in config.tasks]))
    if reasons:
        raise ConfigError(
            f"gate={policy.name}: the verdict could only be INVALID, so nothing was started: {why}. "
            "Choose another suite or policy: suite=NAME, gate=NAME"
            for why in reasons
        )


def train(run: Run) -> Checkpoint:
    """Runs the stages up to a checkpoint. Raises LimitsBroken when the data break the audit's limits."""
    sources = check(run.config)
    _write_config(run)
    return train_stage(run, _within_limits(audit_stage(run, sources)))


def dry_run(run: Run) -> TrainingPlan:
    """`harness train --dry-run`: audits the data, which a later training reuses, and plans the training.

    Raises LimitsBroken when the data break the audit's limits.
    """
    sources = check(run.config)
    _within_limits(audit_stage(run, sources))
    return plan_training(run.config.training, local_model(run.config.model), read_rows(run.folder.data))


def _within_limits(dataset: Dataset) -> Dataset:
    if dataset.broken_limits:
        raise LimitsBroken(dataset.broken_limits)
    return dataset


def check(config: Config) -> list[Origin]:
    """Finds every error that can be found before work starts: files, behaviours, template, tracker, port.

    Returns the sources with their files. Raises ConfigError that lists every error.
    """
    errors: list[str] = []
    sources: list[Origin] = []
    if config.hub_dir is not None and not Path(config.hub_dir).is_dir():
        errors.append(f"hub_dir: {config.hub_dir} is not a folder; make it with: harness mirror NAME… --to DIR")
    probes: list[Callable[[], object]] = [
        lambda: sources.extend(usable_sources(config.data, config.audit, hub_folder(config))),
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
            errors += error.errors
        except UsageError as error:
            errors.append(str(error))
    if errors:
        raise ConfigError(errors)
    check_tracker(config.tracker)
    usable_port(config.serve)
    return sources


def audit_stage(run: Run, sources: Sequence[Origin] | None = None) -> Dataset:
    """Writes data/: audited and mixed rows. `sources` are those that `check` returned."""
    config = run.config
    items = evaluation_items(config)
    origins = sources or usable_sources(config.data, config.audit, hub_folder(config))
    inputs = {
        "sources": {origin.name: origin.digest() for origin in origins},
        "data": config.data.model_dump(),
        "audit": config.audit.model_dump(exclude={"engine", "workers", "batch_rows"}),
        "items": store.sha256_json(items),
        "code": code_digest("harness.data.audit:audit"),
        "behaviors": [store.sha256_file(p) for root in task_roots() for p in sorted(root.glob("*/behavior.yaml"))],
        "plugins": plugin_digest("filters", config.audit.filters) | behavior_plugins(),
    }
    if (semantic := semantic_digest(config.audit.semantic)) is not None:
        inputs["semantic"] = semantic

    def work(folder: Path) -> None:
        with timed("audit and mix the data"):
            audit(config.data, config.audit, items, folder, origins=origins)

    folder, reused = store.stage(run.runs, run.folder.data, "data", inputs, work)
    dataset = load(Dataset, folder / AUDIT)
    require_unseen(items, read_rows(folder), str(folder))
    if reused:
        say(f"· data: {dataset.rows} rows (unchanged, reused)")
    return dataset


def audit_alone(config: Config, out: Path) -> Dataset:
    """`harness audit`: audits the configured sources into `out`, with kept.jsonl and quarantine.jsonl."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder, such as --out checked")
    out.mkdir(parents=True, exist_ok=True)
    for left in abandoned_in(out):
        remove(left)
    with (
        store.disk_full_translated(out),
        tempfile.TemporaryDirectory(prefix=temporary_name("audit"), dir=out) as folder,
    ):
        made = Path(folder)
        dataset = audit(config.data, config.audit, evaluation_items(config), made, hub_folder(config), json_lines=True)
        for name in OPTIONAL:  # left by an earlier audit into the same folder
            (out / name).unlink(missing_ok=True)
        for path in made.iterdir():
            path.replace(out / path.name)
    return dataset


def train_stage(run: Run, dataset: Dataset) -> Checkpoint:
    """Writes checkpoint/: weights, tokenizer, template and contract. With alpha below 1 it is scaled from trained/.

    An unfinished training stays in .training/ until it is done.
    """
    config, place = run.config, run.folder
    base = local_model(config.model)
    inputs = training_inputs(config, base, dataset)

    def work(folder: Path) -> None:
        from harness.train.finetune import finetune

        tasks_of(config)()
        fingerprint = store.sha256_json({"stage": "train", **inputs})
        with (
            timed(f"train on {dataset.rows} rows"),
            live_tracking(place.path, config.tracking, fingerprint, place.unfinished / CURVE),
            server_between_checkpoints(config) as kept,
        ):
            rows, validation = read_rows(place.data), read_validation_rows(place.data)
            examined = partial(judge_checkpoint, config, base, work=place.unfinished, kept=kept)
            finetune(config.training, base, rows, folder, place.unfinished, inputs, examined, validation)

    target = place.checkpoint if config.alpha == 1 else place.trained
    folder, reused = store.stage(run.runs, target, "train", inputs, work)
    shutil.rmtree(place.unfinished, ignore_errors=True)
    if reused:
        say(f"· {target.name} (unchanged, reused)")
    if config.alpha < 1:
        folder = scale_stage(run, folder, base)
    shutil.copy(folder / CONTRACT, place.contract)
    return checkpoint(folder, config.model, config.template, base if is_adapter(folder) else None)


def training_inputs(config: Config, base: Path, dataset: Dataset) -> dict[str, Any]:
    """Everything the weights depend on. An unfinished training resumes only where none of it changed."""
    installed = store.versions()
    accelerate = config.accelerate_config and store.sha256_file(accelerate_file(config.accelerate_config))
    inputs: dict[str, Any] = {
        "base": weights_sha256(base),
        "data": dataset.sha256,
        "template": [config.template.model_dump(), config.template.file and read_template(config.template.file)],
        "train": config.train.model_dump(),
        "launch": [config.launcher, config.num_processes, accelerate or None],
        "dtype": config.model.dtype,
        "versions": {name: installed.get(name) for name in ("torch", "transformers", "peft", "accelerate")},
        "code": code_digest("harness.train.finetune:finetune"),
    }
    if config.train.kl_to_base:
        inputs["roles"] = {name: source.role for name, source in config.data.sources.items()}
    if config.train.eval_every:
        inputs["examination"] = [config.gate.model_dump(mode="json"), [task.model_dump() for task in config.tasks]]
    return inputs


def scale_stage(run: Run, trained: Path, base: Path) -> Path:
    """Writes checkpoint/ from the weights in trained/, as base + alpha · (trained − base)."""
    alpha, dtype = run.config.alpha, run.config.model.dtype
    fingerprint = (store.read_manifest(trained) or {})["fingerprint"]
    code = code_digest("harness.checkpoint.scaling:scale")
    inputs = {"trained": fingerprint, "alpha": alpha, "dtype": dtype, "code": code}
    make = partial(scale, trained, base, alpha, dtype)
    return store.stage(run.runs, run.folder.checkpoint, "scale", inputs, make)[0]


def decision_stage(run: Run, candidate: Checkpoint, command: str) -> tuple[Verdict, Path]:
    """Writes eval/, then the decision with its files and report; returns the verdict and the report's path.

    Evidence that cannot be trusted gives an INVALID verdict.
    """
    place, policy = run.folder, run.config.gate
    # An earlier verdict is removed first: it must not outlive the checkpoint and evaluations it rests on.
    decided = (place.verdict, place.comparison, place.policy)
    earlier = [(path, path.read_bytes(), path.stat()) for path in decided if path.is_file() and not path.is_symlink()]
    for path in decided:
        path.unlink(missing_ok=True)
    shutil.rmtree(place.report, ignore_errors=True)
    further = further_baselines(policy, run.runs)

    def evaluations() -> EvidencePaths:
        evaluate_stage(run, candidate, further)
        return with_further(EvidencePaths.of_run(place.path), further)

    decision = reach_decision(policy, (BASE, CANDIDATE), evaluations, store.sha256_json(evaluation_items(run.config)))
    if decision.paths is None:  # the stages before a failed evaluation are evidence too
        decision = replace(decision, paths=EvidencePaths.of_run(place.path))
    for path, content, state in earlier:  # the same verdict keeps the time of its decision
        path.write_bytes(content)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    return decision.verdict, write_decision(decision, place.path, command, run.runs, run.config.name)


def evaluate_stage(run: Run, candidate: Checkpoint, further: dict[str, Path]) -> dict[str, Path]:
    """Writes eval/base and eval/candidate, on one server where they share a base model; returns their folders."""
    config, place = run.config, run.folder
    sides = {BASE: base_checkpoint(local_model(config.model), candidate.contract_sha256), CANDIDATE: candidate}
    looks = looks_of(config.gate, config.suite, BASE, CANDIDATE, further)
    return evaluate_checkpoints(sides, config.evaluation, place.evaluations, place.log, tasks_of(config), looks)


def _run_record(run: Run, verdict: Verdict, command: str, started: float) -> dict[str, Any]:
    """The content of run.json: the configuration, stage fingerprints, and digests of everything written."""
    folder = run.folder.path
    stages = {path.parent.relative_to(folder).as_posix(): path.parent for path in folder.rglob(store.MANIFEST)}
    manifests = {name: store.read_manifest(path) or {} for name, path in stages.items()}
    outputs = {f"{name}/{file}": sha for name, found in manifests.items() for file, sha in found["outputs"].items()}
    written = [*(folder / name for name in RECORDED), run.folder.report_page, run.folder.model_card]
    outputs |= {path.relative_to(folder).as_posix(): store.sha256_file(path) for path in written if path.is_file()}
    return {
        "schema": store.SCHEMA,
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


def _already_recorded(folder: RunFolder, finished: dict[str, Any]) -> bool:
    """Whether run.json exists with the same stages, outputs and verdict: the run was then tracked already.

    The report repeats the command and may differ.
    """
    try:
        earlier = json.loads(folder.record.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(earlier, dict) and _outcome(earlier) == _outcome(finished)


def _outcome(record: dict[str, Any]) -> list[Any]:
    outputs = record.get("outputs") or {}
    return [
        record.get("stages"),
        record.get("verdict"),
        {k: v for k, v in outputs.items() if k.split("/")[0] != "report"},
    ]


def _write_config(run: Run) -> None:
    from omegaconf import OmegaConf

    OmegaConf.save(OmegaConf.create(without_secrets(run.config.model_dump())), run.folder.config)
