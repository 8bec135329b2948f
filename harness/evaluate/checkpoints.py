"""Evaluates several checkpoints on one suite; a base model and all its adapters share a server.

An evaluation whose inputs are unchanged is reused. Finished requests are answered from the journals. A server is
started only if requests are left.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.checkpoint.resolve import contract_of
from harness.config.experiment import EvaluationConfig
from harness.core.console import say, timed
from harness.core.layout import CONTRACT, EVALUATION
from harness.core.store import stage
from harness.evaluate.fingerprint import answer_scope, evaluation_inputs
from harness.evaluate.interim_looks import InterimLooks
from harness.model.load import tokenizer_folder
from harness.prompt.contract import Contract
from harness.prompt.saved import check_saved
from harness.prompt.static import require_sound
from harness.records.base import load
from harness.records.stages import Checkpoint, Evaluation
from harness.serve.server import BASE

if TYPE_CHECKING:
    from harness.evaluate.answers import Answers
    from harness.evaluate.journal import Journal
    from harness.evaluate.server_evaluation import ServerEvaluation
    from harness.prompt.render import Renderer
    from harness.serve.session import LiveServer, PersistentServer

EVALUATE = "evaluate"
LoadTasks = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """Checkpoints to evaluate under one contract, and where results and logs go. Without `looks`: all items at once.

    `folders` names the evaluation folder of a label where it is not `out/label`; such an evaluation is recorded under
    the folder's name.
    """

    checkpoints: Mapping[str, Checkpoint]
    contract: Contract
    config: EvaluationConfig
    out: Path
    log: Path
    load: LoadTasks
    looks: InterimLooks | None
    kept: "PersistentServer | None" = None
    folders: Mapping[str, Path] = field(default_factory=dict)

    def folder(self, label: str) -> Path:
        return self.folders.get(label, self.out / label)

    @property
    def runs(self) -> Path:
        return Path(self.config.runs_dir)

    def inputs(self, label: str) -> dict[str, Any]:
        """The inputs of the fingerprint of a label's evaluation; with looks, the other checkpoints are among them."""
        inputs = evaluation_inputs(self.checkpoints[label], self.contract, self.config)
        if self.looks is not None and not self.gets_all_items(label):
            sides = {name: [side.weights_sha256, side.base_sha256] for name, side in self.checkpoints.items()}
            inputs["looks"] = {**self.looks.identity, "sides": sides}
        if (judge := self.judging(label)) is not None:
            inputs["judge"] = judge.weights_sha256
        return {**inputs, "label": self.folder(label).name}

    def judging(self, label: str) -> Checkpoint | None:
        """The evaluated model that judges a label's answers; None when it is not on the same server."""
        judge = self.config.suite.judge
        if judge is None or judge.url is not None or (checkpoint := self.checkpoints.get(judge.model)) is None:
            return None
        return checkpoint if checkpoint.base_path == self.checkpoints[label].base_path else None

    def gets_all_items(self, label: str) -> bool:
        """Whether a model is evaluated on all items, without interim looks."""
        return self.looks is None or label in self.looks.in_full


def evaluate_checkpoints(
    checkpoints: Mapping[str, Checkpoint],
    config: EvaluationConfig,
    out: Path,
    log: Path,
    load: LoadTasks,
    looks: InterimLooks | None = None,
    known: Mapping[str, Path] = MappingProxyType({}),
    kept: "PersistentServer | None" = None,
    folders: Mapping[str, Path] = MappingProxyType({}),
) -> dict[str, Path]:
    """Evaluation folders by label: `out/label`, or that in `folders`; those in `known` already exist.

    All checkpoints are evaluated under the contract of the last one, so that they can be compared. `looks` need the
    finished evaluations of the models in `looks.in_full`: groups of such models come first. `kept` serves adapters.

    Raises EvidenceFault when a checkpoint's files do not match its contract.
    """
    last = list(checkpoints.values())[-1]
    contract = contract_of(Path(last.path), Path(last.base_path), config.template)
    job = Job(checkpoints, contract, config, out, log, load, looks, kept, folders)
    missing = [label for label in checkpoints if label not in known]
    done: dict[str, Path] = {}
    for label in missing:
        with suppress(_NotEvaluatedError):  # there is no finished evaluation, or another run is replacing it
            done[label] = _finished(job, label, _refuse)
    waiting = {label: checkpoints[label] for label in missing if label not in done}
    by_base: dict[str, dict[str, Checkpoint]] = {}  # groups that share a server: a base model and its adapters
    for label, checkpoint in waiting.items():
        by_base.setdefault(checkpoint.base_path, {})[label] = checkpoint

    @cache
    def sound() -> None:
        for checkpoint in waiting.values():
            require_saved(Path(checkpoint.path), Path(checkpoint.base_path))

    if done:
        say(f"· evaluation of {', '.join(done)} (unchanged, reused)")
    done = {**known, **done}
    for group in sorted(by_base.values(), key=lambda group: not all(map(job.gets_all_items, group))):
        done |= _evaluate(job, group, sound, done)
    return {label: done[label] for label in checkpoints}


def require_saved(folder: Path, base: Path) -> None:
    """Raises EvidenceFault when the template, tokenizer or stop ids in a folder differ from the contract in it."""
    if (folder / CONTRACT).is_file():
        require_sound(check_saved(folder, base, Contract.load(folder)), f"the checkpoint in {folder}")


class _NotEvaluatedError(Exception):
    """There is no finished evaluation."""


def _refuse(folder: Path) -> None:
    raise _NotEvaluatedError


def _is_final(folder: Path) -> bool:
    """Whether evaluating again could add nothing: no request failed, and no judge, that may succeed next time."""
    record = load(Evaluation, folder / EVALUATION)
    return record.failed_requests == 0 and record.judge_fault is None


def _finished(job: Job, label: str, work: Callable[[Path], None], accept: Callable[[Path], bool] = _is_final) -> Path:
    folder, _ = stage(job.runs, job.folder(label), EVALUATE, job.inputs(label), work, accept)
    return folder


def _evaluate(
    job: Job, group: Mapping[str, Checkpoint], sound: Callable[[], None], done: Mapping[str, Path]
) -> dict[str, Path]:
    """Evaluates all models of a group on one server.

    Models that are subject to looks come last: the looks see the evaluations of the others, and those in `done`.
    `sound` checks the checkpoints' files while the server starts, and raises when they do not match their contract.
    """
    from harness.evaluate.judging import sample_judge
    from harness.evaluate.plan import RequestPlan
    from harness.evaluate.server_evaluation import ServerEvaluation
    from harness.evaluate.tasks.load import seeded_samples
    from harness.evaluate.tasks.suite import suite_statement
    from harness.serve.session import LiveServer, ServedGroup

    title = f"evaluate {', '.join(group)}: {', '.join(task.name for task in job.config.tasks)}"
    with timed(title), ExitStack() as stack:
        answers = {label: _open_answers(job, label, found, stack) for label, found in group.items()}
        renderer = cache(lambda: _renderer(job.contract, group))
        served = {**group, **_judges(job, group)}
        kept = job.kept if any(one.kind == "adapter" for one in served.values()) else None
        dtype = job.config.model.dtype
        serving = ServedGroup(served, job.contract, renderer, job.config.serve, dtype, job.log, kept is not None)
        alone = LiveServer(serving.start, serving.logs)
        server = stack.enter_context(alone if kept is None else kept.evaluation(serving))
        judge = sample_judge(job.config.suite.judge, served, server.endpoint, _judge_journal(job, group, stack))
        if not all(len(one.journal or ()) for one in answers.values()):
            _start_early(job, server)
        sound()
        loaded = job.load()
        say(f"  {suite_statement(job.config, loaded)}")
        samples = seeded_samples(loaded, job.config.tasks, job.config.suite.seed)
        plan = RequestPlan(loaded, samples, renderer())
        names = {label: job.folder(label).name for label in group}
        folders: dict[str, Path] = {}
        for whole in (True, False):
            if part := {label: one for label, one in answers.items() if job.gets_all_items(label) == whole}:
                evaluation = ServerEvaluation(plan, part, server, job.config, judge, names)
                folders |= _write_all(job, evaluation, None if whole else job.looks, {**done, **folders})
        return folders


def _judges(job: Job, group: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """The evaluated model that judges a group, by its label; empty without one."""
    judge = job.config.suite.judge
    checkpoint = next(filter(None, map(job.judging, group)), None)
    return {} if judge is None or checkpoint is None else {judge.model: checkpoint}


def _judge_journal(job: Job, group: Mapping[str, Checkpoint], stack: ExitStack) -> "Journal | None":
    """The journal of the judge's replies; None without a judge."""
    from harness.evaluate.journal import Journal, journal_path

    if (scope := judge_scope(job, group)) is None:
        return None
    journal = Journal(journal_path(job.runs, scope), scope)
    stack.callback(journal.close)
    return journal


def judge_scope(job: Job, group: Mapping[str, Checkpoint]) -> dict[str, Any] | None:
    """Everything except the request that decides a judge's reply; None without a judge.

    For a judge on the server this is what decides any of its answers. The weights behind a URL are unknown, so such
    replies count only for exactly these evaluations.
    """
    if (judge := job.config.suite.judge) is None:
        return None
    if judge.url is not None:
        return {"judge": judge.model_dump(), "evaluations": {label: job.inputs(label) for label in group}}
    judging, member = next(iter(_judges(job, group).values()), None), next(iter(group.values()))
    scope = answer_scope(judging or member, job.contract, job.config)
    return scope if judging else {**scope, "weights": member.base_sha256}


def _write_all(
    job: Job, evaluation: "ServerEvaluation", looks: InterimLooks | None, done: Mapping[str, Path]
) -> dict[str, Path]:
    """Evaluates models on all items, or on those that the looks need; their evaluation folders by label."""
    asked_items = evaluation.ask_all(looks, done)
    repeats = evaluation.repeat_check(asked_items) if job.config.suite.aa else {}
    # A stopped evaluation is valid only for the evaluations that the looks saw.
    accept: Callable[[Path], bool] = _is_final if looks is None else lambda _: False
    folders = {}
    for label in evaluation.answers:
        weights = job.checkpoints[label].weights_sha256
        write = partial(evaluation.write, label, weights, asked_items, repeats.get(label))
        folders[label] = _finished(job, label, write, accept)
    return folders


def _start_early(job: Job, server: "LiveServer") -> None:
    """Starts the server before the requests are known, as the journal of a model is empty and some are sure to be left.

    Tasks that may fail to load are loaded first: those that are not known by name, or have no local data.
    """
    from harness.behavior.registry import behavior_folders
    from harness.evaluate.tasks.index import datasets_of, stock_index

    names = [task.name for task in job.config.tasks]
    hub_dir = job.config.hub_dir or ""
    datasets = datasets_of(names)
    known = all(name in behavior_folders() or name in stock_index() for name in names)
    if not known or datasets is None or not all(Path(hub_dir, dataset).is_dir() for dataset in datasets):
        job.load()
    server.begin()


def _renderer(contract: Contract, group: Mapping[str, Checkpoint]) -> "Renderer":
    """The contract's renderer, after the static checks on every tokenizer of the group."""
    from harness.evaluate.write import renderer_for

    folders = dict.fromkeys(tokenizer_folder(Path(c.path), Path(c.base_path)) for c in group.values())
    return [renderer_for(contract, folder) for folder in folders][-1]


def _open_answers(job: Job, label: str, checkpoint: Checkpoint, stack: ExitStack) -> "Answers":
    """A model's answers, still empty, with their journal."""
    from harness.evaluate.answers import Answers
    from harness.evaluate.journal import Journal, journal_path

    scope = answer_scope(checkpoint, job.contract, job.config)
    journal = Journal(journal_path(job.runs, scope), scope)
    stack.callback(journal.close)
    return Answers(BASE if checkpoint.kind == "full" else label, label, journal)
