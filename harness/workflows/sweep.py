"""`harness sweep`: every combination of values is validated, trained, evaluated together, and decided on.

    members    compose.members_of: all validated before the first one starts
    train      one after another here, or one per device in processes of their own
    evaluate   all members of a base model on one server, with the base model itself asked once
    decide     each as a single run, at the stricter level that the number of members demands

Stages are reused, so the same command continues an interrupted sweep. A member that fails leaves the others alone.
"""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from statistics import fmean
from threading import Lock
from typing import Any

from harness.checkpoint.resolve import checkpoint
from harness.config.experiment import validate
from harness.config.launch import LaunchConfig
from harness.core import store
from harness.core.console import plural, say, timed
from harness.core.errors import ConfigError, EnvironmentFault, EvidenceFault, ExitCode, HarnessError
from harness.core.layout import BASE, RunFolder
from harness.evaluate.checkpoints import evaluate_checkpoints
from harness.model.load import is_adapter, local_model
from harness.records.stages import Checkpoint
from harness.records.sweep import Sweep, SweepMember
from harness.workflows.checkpoint_selection import base_checkpoint
from harness.workflows.compose import members_of
from harness.workflows.evaluate import tasks_of
from harness.workflows.run import Run, require_decidable, run_experiment, train

SWEEP = "sweep.json"
KILLED = range(-64, 0)  # exit codes of processes that a signal ended


@dataclass
class _Member:
    """A member while the sweep runs: its run, what is known of it, and its trained checkpoint."""

    run: Run
    record: SweepMember
    trained: Checkpoint | None = None

    def note(self, **values: Any) -> None:
        self.record = self.record.model_copy(update=values)

    def fail(self, error: BaseException) -> None:
        """Records why the member ended; anything but a known error is a defect, and its traceback is shown."""
        code = error.exit_code if isinstance(error, HarnessError) else ExitCode.DEFECT
        if not isinstance(error, HarnessError):
            traceback.print_exception(error)
        say(f"harness: {self.run.id}: {error}")
        self.note(state="failed", exit_code=int(code), reason=str(error).splitlines()[0] if str(error) else repr(error))


@dataclass
class _Progress:
    """sweep.json, written again whenever a member gets further."""

    folder: Path
    command: str
    members: list[_Member]
    lock: Lock = field(default_factory=Lock)

    def save(self) -> Sweep:
        with self.lock:
            found = with_choice(Sweep(command=self.command, members=[one.record for one in self.members]))
            self.folder.mkdir(parents=True, exist_ok=True)
            found.save(self.folder / SWEEP)
            return found


def split_launch(overrides: Sequence[str]) -> tuple[list[str], LaunchConfig]:
    """(the members' overrides, the settings of the sweep itself, given as `launch.KEY=VALUE`).

    Raises ConfigError that lists every error.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    own = [override.lstrip("+") for override in overrides if override.lstrip("+").startswith("launch.")]
    try:
        values: Any = OmegaConf.to_container(OmegaConf.from_dotlist(own))
    except OmegaConfBaseException as error:
        raise ConfigError([f"{' '.join(own)}: {error}"]) from None
    rest = [override for override in overrides if override.lstrip("+") not in own]
    return rest, validate(LaunchConfig, (values or {}).get("launch") or {})


def run_sweep(overrides: Sequence[str], command: str) -> tuple[Sweep, Path]:
    """Runs every member of the grid up to its verdict; returns the sweep's record and its file.

    `command` is what the user typed. Raises ConfigError that lists the errors of all members before any work starts.
    """
    overrides, launch = split_launch(overrides)
    count = len(members_of(overrides))
    if count > 1:
        overrides = [*overrides, f"gate.candidates={count}"]
    members = [
        _Member(run := Run.of(config), SweepMember(overrides=list(typed), run=run.id))
        for typed, config in members_of(overrides)
    ]
    if len({one.run.id for one in members}) < count:
        raise ConfigError(["two members of the sweep are the same run: give every value once"])
    for one in members:
        require_decidable(one.run.config)
    runs = members[0].run.runs
    progress = _Progress(runs / f"sweep-{store.sha256_json([one.run.id for one in members])[:10]}", command, members)
    with store.locked(progress.folder):
        say(f"sweep {progress.folder.name}: {plural(count, 'member')}")
        progress.save()
        train_members(members, launch, progress)
        for group in same_evaluation([one for one in members if one.trained is not None]):
            evaluate_together(group, RunFolder(progress.folder).log)
            progress.save()
        for member in members:
            if member.trained is not None and member.record.state != "failed":
                _attempt(member, lambda one: _decide(one, command))
                progress.save()
    return progress.save(), progress.folder / SWEEP


def _attempt(member: _Member, work: Callable[[_Member], None]) -> None:
    """Does the work; an error ends this member only."""
    try:
        work(member)
    except KeyboardInterrupt:
        raise
    except Exception as error:
        member.fail(error)


def train_members(members: Sequence[_Member], launch: LaunchConfig, progress: _Progress) -> None:
    """Trains every member: one after another in this process, or one per device at a time in processes of their own."""
    free: SimpleQueue[str | None] = SimpleQueue()
    for device in launch.devices:
        free.put(str(device))
    if not launch.devices:
        free.put(None)

    def one_member(member: _Member) -> None:
        device = free.get()
        try:
            for left in range(launch.retries, -1, -1):
                member.note(attempts=member.record.attempts + 1)
                try:
                    member.trained = _trained_here(member) if device is None else _trained_on(device, member)
                except EnvironmentFault as fault:
                    if not left:
                        raise
                    say(f"· {member.run.id}: {fault}; it is tried again ({left} left)")
                else:
                    member.note(state="trained")
                    return
        finally:
            free.put(device)
            progress.save()

    if not launch.devices:
        for number, member in enumerate(members, 1):
            say(f"member {number} of {len(members)}: {' '.join(member.record.overrides)}")
            _attempt(member, one_member)
        return
    with ThreadPoolExecutor(len(launch.devices)) as pool:
        list(pool.map(lambda member: _attempt(member, one_member), members))


def _trained_here(member: _Member) -> Checkpoint:
    with store.locked(member.run.folder.path):
        return train(member.run)


def _trained_on(device: str, member: _Member) -> Checkpoint:
    """Trains in a process that sees one device. Raises the process's own message under its exit code."""
    run, config = member.run, member.run.config
    log = run.folder.path / "logs" / "train.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    say(f"· {run.id}: training on device {device} ({log})")
    with log.open("w") as output:
        code = subprocess.run(  # noqa: S603 — this harness's own command, without a shell
            [sys.executable, "-m", "harness.cli", "train", *member.record.overrides],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": device},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False,
        ).returncode  # fmt: skip
    if code:
        last = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1].removeprefix("harness: ")
        if code in KILLED:
            raise EnvironmentFault(f"its training was killed by signal {-code} on device {device}: {last} (see {log})")
        error = EnvironmentFault if code == ExitCode.ENVIRONMENT else HarnessError
        fault = error(f"{last} (see {log})")
        fault.exit_code = code
        raise fault
    base = local_model(config.model)
    folder = run.folder.checkpoint
    return checkpoint(folder, config.model, config.template, base if is_adapter(folder) else None)


def same_evaluation(members: Sequence[_Member]) -> list[list[_Member]]:
    """Groups of two or more adapters that one server can evaluate: one base model, prompt contract and evaluation.

    A member is left out where its evaluation depends on the other model: interim looks, or a judge that is evaluated.
    """
    groups: dict[str, list[_Member]] = {}
    for member in members:
        config, trained = member.run.config, member.trained
        judge = config.suite.judge
        alone = config.gate.sequential is not None or (judge is not None and judge.url is None)
        if trained is None or trained.kind != "adapter" or alone:
            continue
        settings = config.evaluation.model_dump(mode="json")
        key = store.sha256_json([trained.base_sha256, trained.contract_sha256, settings])
        groups.setdefault(key, []).append(member)
    return [group for group in groups.values() if len(group) > 1]


def evaluate_together(group: Sequence[_Member], log: Path) -> None:
    """Writes eval/candidate of every member, and eval/base of the first, which the others take over.

    Evidence that does not hold for one member stops this step only: each is then evaluated by itself, and its verdict
    says what is wrong. A fault of the machine is recorded for all of them.
    """
    first = group[0].run
    config, contract = first.config, group[0].trained and group[0].trained.contract_sha256
    sides = {BASE: base_checkpoint(local_model(config.model), contract or "")}
    folders = {BASE: first.folder.base}
    for number, member in enumerate(group, 1):
        if member.trained is not None:
            sides[f"member-{number}"] = member.trained
            folders[f"member-{number}"] = member.run.folder.candidate
    try:
        with ExitStack() as stack, timed(f"evaluate {plural(len(group), 'member')} and their base model together"):
            for member in group:
                stack.enter_context(store.locked(member.run.folder.path))
            evaluate_checkpoints(
                sides, config.evaluation, first.folder.evaluations, log, tasks_of(config), folders=folders
            )
    except EvidenceFault as fault:
        say(f"· not evaluated together: {fault}. Each member is evaluated by itself")
        return
    except HarnessError as error:
        for member in group:
            member.fail(error)
        return
    for member in group:
        member.note(state="evaluated")


def _decide(member: _Member, command: str) -> None:
    """The verdict of a single run; its stages exist and are reused."""
    verdict, _ = run_experiment(member.run.config, command)
    changes = {
        role: [metric.delta for metric in verdict.metrics if metric.role == role and metric.against is None]
        for role in ("target", "guard")
    }
    gain, general = (fmean(changes[role]) if changes[role] else None for role in ("target", "guard"))
    member.note(
        state="decided",
        exit_code=verdict.exit_code,
        verdict=verdict.verdict,
        reason="" if verdict.verdict == "PASS" else (verdict.reasons or [""])[0],
        gain=gain,
        general=general,
    )


def with_choice(sweep: Sweep) -> Sweep:
    """The sweep with its front and its recommendation.

    A run is on the front if no other run has at least its gain and its general ability, and more of one. Recommended is
    the passing run with the largest gain; of equal ones, the one that kept more general ability.
    """
    measured = [(one.gain, one.general or 0.0, one) for one in sweep.members if one.gain is not None]
    front = [
        one.run
        for gain, general, one in sorted(measured, key=lambda found: found[:2], reverse=True)
        if not any(g >= gain and a >= general and (g, a) != (gain, general) for g, a, _ in measured)
    ]
    passed = [found for found in measured if found[2].verdict == "PASS"]
    if passed:
        gain, general, best = max(passed, key=lambda found: found[:2])
        why = (
            f"the largest gain of {plural(len(passed), 'passing run')}: {100 * gain:+.1f} points on the targets, "
            f"{100 * general:+.1f} points on the guards"
        )
        return sweep.model_copy(update={"front": front, "recommended": best.run, "why": why})
    ended = all(one.exit_code is not None for one in sweep.members)
    why = "no member passed" if ended else "not every member has a verdict yet"
    return sweep.model_copy(update={"front": front, "recommended": None, "why": why})
