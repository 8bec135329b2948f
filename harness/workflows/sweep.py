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
from threading import Event, Lock
from typing import Annotated, Any

from pydantic import Field

from harness.checkpoint.resolve import checkpoint
from harness.config.experiment import Config, validate
from harness.config.group import Group
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
KILLED = (*range(-64, 0), ExitCode.INTERRUPTED)  # exit codes of processes that a signal ended


class LaunchConfig(Group):
    """How the members of a sweep are trained (`launch.KEY=VALUE`). No result depends on it, so no run records it."""

    devices: Annotated[list[int | str], Field(max_length=1024)] = []
    """GPUs that train one member each, as CUDA_VISIBLE_DEVICES names them; empty: one member after another."""

    retries: Annotated[int, Field(ge=0, le=10)] = 0
    """How often a member is tried again after a fault of its machine (exit code 3, or a process that was killed)."""


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
    found = members_of(overrides)
    members = [_member(typed, config, len(found)) for typed, config in found]
    if len({one.run.id for one in members}) < len(members):
        raise ConfigError(["two members of the sweep are the same run: give every value once"])
    for one in members:
        require_decidable(one.run.config)
    runs = members[0].run.runs
    progress = _Progress(runs / f"sweep-{store.sha256_json([one.run.id for one in members])[:10]}", command, members)
    with store.locked(progress.folder):
        say(f"sweep {progress.folder.name}: {plural(len(members), 'member')}")
        progress.save()
        train_members(members, launch, progress)
        for group in same_evaluation(members):
            evaluate_together(group, RunFolder(progress.folder).log)
            progress.save()
        for member in members:
            if member.trained is not None and member.record.state != "failed":
                _attempt(member, lambda one: _decide(one, command))
                progress.save()
    return progress.save(), progress.folder / SWEEP


def _member(typed: Sequence[str], config: Config, count: int) -> _Member:
    """A member of a sweep of `count`, which is decided on as the best of so many candidates at least."""
    if config.gate.candidates < count:
        config = config.model_copy(update={"gate": config.gate.model_copy(update={"candidates": count})})
        typed = [*typed, f"gate.candidates={count}"]
    run = Run.of(config)
    return _Member(run, SweepMember(overrides=list(typed), run=run.id))


def _attempt(member: _Member, work: Callable[[_Member], None]) -> None:
    """Does the work; an error ends this member only."""
    try:
        work(member)
    except KeyboardInterrupt:
        raise
    except Exception as error:
        member.fail(error)


def train_members(members: Sequence[_Member], launch: LaunchConfig, progress: _Progress) -> None:
    """Trains every member: one after another in this process, or one per device at a time in processes of their own.

    An interruption starts no further member, and ends the processes as it ends this one: they save what they have.
    """
    devices = _Devices(launch.devices)

    def one_member(member: _Member) -> None:
        try:
            for left in range(launch.retries, -1, -1):
                member.note(attempts=member.record.attempts + 1)
                try:
                    member.trained = devices.train(member) if launch.devices else _trained_here(member)
                except EnvironmentFault as fault:
                    if devices.stopping.is_set():  # the sweep was interrupted, and the member goes on with it later
                        return
                    if not left:
                        raise
                    say(f"· {member.run.id}: {fault}; it is tried again ({left} left)")
                else:
                    member.note(state="trained")
                    return
        finally:
            progress.save()

    if not launch.devices:
        for number, member in enumerate(members, 1):
            say(f"member {number} of {len(members)}: {' '.join(member.record.overrides)}")
            _attempt(member, one_member)
        return
    with ThreadPoolExecutor(len(launch.devices)) as pool:
        try:
            list(pool.map(lambda member: _attempt(member, one_member), members))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            devices.stop()
            raise


def _trained_here(member: _Member) -> Checkpoint:
    with store.locked(member.run.folder.path):
        return train(member.run)


class _Devices:
    """Devices that train a member each, in processes that see that device alone."""

    def __init__(self, names: Sequence[int | str]) -> None:
        self._free: SimpleQueue[str] = SimpleQueue()
        for name in names:
            self._free.put(str(name))
        self._running: set[subprocess.Popen[bytes]] = set()
        self.stopping = Event()

    def train(self, member: _Member) -> Checkpoint:
        """The member's checkpoint, trained on the next device that is free.

        Raises the process's own message under its exit code; EnvironmentFault where a signal ended the process.
        """
        device = self._free.get()
        try:
            return self._train(member, device)
        finally:
            self._free.put(device)

    def stop(self) -> None:
        """Ends all processes as Ctrl-C does; what they trained so far is kept."""
        self.stopping.set()
        for process in list(self._running):
            process.terminate()

    def _train(self, member: _Member, device: str) -> Checkpoint:
        run, config = member.run, member.run.config
        log = run.folder.path / "logs" / "train.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        say(f"· {run.id}: training on device {device} ({log})")
        with log.open("w") as output:
            process = subprocess.Popen(  # noqa: S603 — this harness's own command, without a shell
                [sys.executable, "-m", "harness.cli", "train", *member.record.overrides],
                env={**os.environ, "CUDA_VISIBLE_DEVICES": device},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            self._running.add(process)
            if self.stopping.is_set():
                process.terminate()
            code = process.wait()
            self._running.discard(process)
        if code:
            lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
            last = f"{lines[-1].removeprefix('harness: ')} (see {log})"
            if code in KILLED:
                raise EnvironmentFault(f"its training on device {device} was ended by a signal: {last}")
            fault = (EnvironmentFault if code == ExitCode.ENVIRONMENT else HarnessError)(last)
            fault.exit_code = code
            raise fault
        base, folder = local_model(config.model), run.folder.checkpoint
        return checkpoint(folder, config.model, config.template, base if is_adapter(folder) else None)


Trained = tuple[_Member, Checkpoint]


def same_evaluation(members: Sequence[_Member]) -> list[list[Trained]]:
    """Groups of two or more adapters that one server can evaluate: one base model, prompt contract and evaluation.

    A member is left out where its evaluation depends on the other model: interim looks, or a judge that is evaluated.
    """
    groups: dict[str, list[Trained]] = {}
    for member in members:
        config, trained = member.run.config, member.trained
        judge = config.suite.judge
        alone = config.gate.sequential is not None or (judge is not None and judge.url is None)
        if trained is None or trained.kind != "adapter" or alone:
            continue
        settings = config.evaluation.model_dump(mode="json")
        key = store.sha256_json([trained.base_sha256, trained.contract_sha256, settings])
        groups.setdefault(key, []).append((member, trained))
    return [group for group in groups.values() if len(group) > 1]


def evaluate_together(group: Sequence[Trained], log: Path) -> None:
    """Writes eval/candidate of every member, and eval/base of the first, which the others take over.

    Evidence that does not hold for one member stops this step only: each is then evaluated by itself, and its verdict
    says what is wrong. A fault of the machine is recorded for all of them.
    """
    first, contract = group[0][0].run, group[0][1].contract_sha256
    config, load = first.config, tasks_of(first.config)
    sides = {BASE: base_checkpoint(local_model(config.model), contract)}
    sides |= {f"member-{number}": trained for number, (_, trained) in enumerate(group, 1)}
    folders = {BASE: first.folder.base}
    folders |= {f"member-{number}": member.run.folder.candidate for number, (member, _) in enumerate(group, 1)}
    try:
        with ExitStack() as stack, timed(f"evaluate {plural(len(group), 'member')} and their base model together"):
            for member, _ in group:
                stack.enter_context(store.locked(member.run.folder.path))
            evaluate_checkpoints(sides, config.evaluation, first.folder.evaluations, log, load, folders=folders)
    except EvidenceFault as fault:
        say(f"· not evaluated together: {fault}. Each member is evaluated by itself")
        return
    except HarnessError as error:
        for member, _ in group:
            member.fail(error)
        return
    for member, _ in group:
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
