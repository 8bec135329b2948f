"""Several checkpoints on one suite: one server for a base model and all its adapters, all their requests together.

An evaluation whose inputs are unchanged is taken over; answers to requests that were ever finished come from the
journals; a server is started when something is left to ask.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.checkpoint.resolve import contract_of
from harness.config.experiment import EvaluationConfig
from harness.core.console import say, timed
from harness.core.layout import EVALUATION
from harness.core.store import stage
from harness.evaluate.fingerprint import answer_scope, evaluation_inputs
from harness.evaluate.interim_looks import Looks
from harness.model.load import tokenizer_folder
from harness.prompt.contract import CONTRACT_FILE, Contract
from harness.prompt.saved import check_saved
from harness.prompt.static import require_sound
from harness.records.base import load
from harness.records.stages import Checkpoint, Evaluation
from harness.serve.server import BASE

if TYPE_CHECKING:
    from harness.evaluate.answers import Answers
    from harness.evaluate.journal import Journal
    from harness.evaluate.plan import Plan
    from harness.evaluate.together import Together
    from harness.prompt.render import Renderer
    from harness.serve.session import LiveServer, PersistentServer

EVALUATE = "evaluate"
LoadTasks = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """What to evaluate, under one contract, with where results and logs go. `looks` is None for all items at once."""

    checkpoints: Mapping[str, Checkpoint]
    contract: Contract
    config: EvaluationConfig
    out: Path
    log: Path
    load: LoadTasks
    looks: Looks | None
    kept: "PersistentServer | None" = None

    @property
    def runs(self) -> Path:
        return Path(self.config.runs_dir)

    def inputs(self, label: str) -> dict[str, Any]:
        """What decides the fingerprint of a label's evaluation; with looks, what the others are decides it too."""
        inputs = evaluation_inputs(self.checkpoints[label], self.contract, self.config)
        if self.looks is not None and not self.is_whole(label):
            sides = {name: [found.weights_sha256, found.base_sha256] for name, found in self.checkpoints.items()}
            inputs["looks"] = {**self.looks.identity, "sides": sides}
        if (judge := self.judging(label)) is not None:
            inputs["judge"] = judge.weights_sha256
        return {**inputs, "label": label}

    def judging(self, label: str) -> Checkpoint | None:
        """The model that judges a label's answers, where the server of both has it."""
        judge = self.config.suite.judge
        found = self.checkpoints.get(judge.model) if judge is not None and judge.url is None else None
        return found if found is not None and found.base_path == self.checkpoints[label].base_path else None

    def is_whole(self, label: str) -> bool:
        """Whether a model is asked everything, whatever looks see."""
        return self.looks is None or label in self.looks.whole


def evaluate_checkpoints(
    checkpoints: Mapping[str, Checkpoint],
    config: EvaluationConfig,
    out: Path,
    log: Path,
    load: LoadTasks,
    looks: Looks | None = None,
    known: Mapping[str, Path] = MappingProxyType({}),
    kept: "PersistentServer | None" = None,
) -> dict[str, Path]:
    """Evaluation folders by label; those in `known` are there already.

    All checkpoints are asked under the contract of the last one, so that they can be compared. `looks` see finished
    evaluations of the models that are asked whole: base models with such alone come first. `kept` serves adapters.
    """
    last = list(checkpoints.values())[-1]
    contract = contract_of(Path(last.path), Path(last.base_path), config.template)
    job = Job(checkpoints, contract, config, out, log, load, looks, kept)
    missing = [label for label in checkpoints if label not in known]
    done = {label: found for label in missing if (found := _taken_over(job, label))}
    waiting = [label for label in missing if label not in done]
    sound = cache(lambda: _require_all_saved(checkpoints[label] for label in waiting))
    if done:
        say(f"· evaluation of {', '.join(done)} (unchanged, reused)")
    folders = {**known, **done}
    for group in sorted(_by_base(checkpoints, waiting), key=lambda group: not all(map(job.is_whole, group))):
        folders |= _evaluate(job, group, sound, folders)
    return {label: folders[label] for label in checkpoints}


def _by_base(checkpoints: Mapping[str, Checkpoint], labels: Sequence[str]) -> list[dict[str, Checkpoint]]:
    """The labelled checkpoints in groups that one server can hold: a base model and its adapters."""
    groups: dict[str, dict[str, Checkpoint]] = {}
    for label in labels:
        groups.setdefault(checkpoints[label].base_path, {})[label] = checkpoints[label]
    return list(groups.values())


def _require_all_saved(checkpoints: Iterable[Checkpoint]) -> None:
    for found in checkpoints:
        require_saved(Path(found.path), Path(found.base_path))


def require_saved(folder: Path, base: Path) -> None:
    """Raises EvidenceFault when a folder that carries a contract holds another template, tokenizer or stop ids."""
    if (folder / CONTRACT_FILE).is_file():
        require_sound(check_saved(folder, base, Contract.load(folder)), f"the checkpoint in {folder}")


def _taken_over(job: Job, label: str) -> Path | None:
    """The evaluation of a label where one stands; None where none does, or another run replaced it this moment."""
    try:
        return _finished(job, label, _refuse)
    except _NotThereError:
        return None


class _NotThereError(Exception):
    """An evaluation has to be made."""


def _refuse(folder: Path) -> None:
    raise _NotThereError


def _is_final(folder: Path) -> bool:
    """Whether evaluating again could not add anything: no request and no judge failed that may succeed another time."""
    record = load(Evaluation, folder / EVALUATION)
    return record.failed_requests == 0 and record.judge_fault is None


def _finished(job: Job, label: str, work: Callable[[Path], None], accept: Callable[[Path], bool] = _is_final) -> Path:
    folder, _ = stage(job.runs, job.out / label, EVALUATE, job.inputs(label), work, accept)
    return folder


def _never(folder: Path) -> bool:
    return False


def _evaluate(
    job: Job, group: Mapping[str, Checkpoint], sound: Callable[[], None], done: Mapping[str, Path]
) -> dict[str, Path]:
    """Asks all models of a group everything that no journal knows, and writes their evaluations.

    Those that looks are for come last: the looks see the evaluations of the others, and those in `done`. `sound` raises
    for a checkpoint that is not what it says; the server is on its way meanwhile.
    """
    from harness.evaluate.judging import judge_of
    from harness.evaluate.together import Together
    from harness.serve.session import LiveServer, ServedGroup

    title = f"evaluate {', '.join(group)}: {', '.join(task.name for task in job.config.tasks)}"
    with timed(title), ExitStack() as stack:
        answers = {label: _known(job, label, found, stack) for label, found in group.items()}
        renderer = cache(lambda: _renderer(job.contract, group))
        served = {**group, **_judges(job, group)}
        kept = job.kept if any(one.kind == "adapter" for one in served.values()) else None
        dtype = job.config.model.dtype
        serving = ServedGroup(served, job.contract, renderer, job.config.serve, dtype, job.log, kept is not None)
        alone = LiveServer(serving.start, serving.logs)
        server = stack.enter_context(alone if kept is None else kept.evaluation(serving))
        judge = judge_of(job.config.suite.judge, served, server.endpoint, _remembered(job, group, stack))
        if not all(len(one.journal or ()) for one in answers.values()):
            _begin_early(job, server)
        sound()
        plan = _plan(job, renderer())
        folders: dict[str, Path] = {}
        for whole in (True, False):
            if part := {label: one for label, one in answers.items() if job.is_whole(label) == whole}:
                together = Together(plan, part, server, job.config, judge)
                folders |= _answered(job, together, None if whole else job.looks, {**done, **folders})
        return folders


def _judges(job: Job, group: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """The evaluated model that judges a group, by its label."""
    judge = job.config.suite.judge
    found = next(filter(None, map(job.judging, group)), None)
    return {} if judge is None or found is None else {judge.model: found}


def _remembered(job: Job, group: Mapping[str, Checkpoint], stack: ExitStack) -> "Journal | None":
    """The journal of the judge's replies."""
    from harness.evaluate.journal import Journal, journal_path

    if (scope := judge_scope(job, group)) is None:
        return None
    journal = Journal(journal_path(job.runs, scope), scope)
    stack.callback(journal.close)
    return journal


def judge_scope(job: Job, group: Mapping[str, Checkpoint]) -> dict[str, Any] | None:
    """Everything but the request that decides a judge's reply: of a model on the server what decides its answers.

    Nobody knows the weights behind a URL: its replies count for these very evaluations alone.
    """
    if (judge := job.config.suite.judge) is None:
        return None
    if judge.url is not None:
        return {"judge": judge.model_dump(), "evaluations": {label: job.inputs(label) for label in group}}
    judging, member = next(iter(_judges(job, group).values()), None), next(iter(group.values()))
    scope = answer_scope(judging or member, job.contract, job.config)
    return scope if judging else {**scope, "weights": member.base_sha256}


def _answered(job: Job, together: "Together", looks: Looks | None, done: Mapping[str, Path]) -> dict[str, Path]:
    """The evaluations of models that are asked everything, or what the looks demand."""
    extent = together.ask_all(looks, done)
    flips = together.ask_again(extent) if job.config.suite.aa else {}
    accept = _is_final if looks is None else _never  # what looks decided belongs to what they looked at
    folders = {}
    for label in together.answers:
        weights = job.checkpoints[label].weights_sha256
        write = partial(together.write, label, weights, extent, flips.get(label))
        folders[label] = _finished(job, label, write, accept)
    return folders


def _begin_early(job: Job, server: "LiveServer") -> None:
    """Starts the server before the requests are known: a model was never asked anything. Tasks that may turn out not
    to be loadable are loaded first."""
    if not _surely_loads(job.config):
        job.load()
    server.begin()


def _surely_loads(config: EvaluationConfig) -> bool:
    """Whether nothing is known that could keep the tasks from being loaded: names are, and data are here."""
    from harness.behavior.registry import behavior_folders
    from harness.evaluate.tasks.index import datasets_of, stock_index

    names = [task.name for task in config.tasks]
    datasets = datasets_of(names)
    known = all(name in behavior_folders() or name in stock_index() for name in names)
    return known and datasets is not None and all(Path(config.hub_dir or "", found).is_dir() for found in datasets)


def _plan(job: Job, renderer: "Renderer") -> "Plan":
    from harness.evaluate.plan import Plan
    from harness.evaluate.tasks.load import seeded_samples
    from harness.evaluate.tasks.suite import told

    loaded = job.load()
    say(f"  {told(job.config, loaded)}")
    return Plan(loaded, seeded_samples(loaded, job.config.tasks, job.config.suite.seed), renderer)


def _renderer(contract: Contract, group: Mapping[str, Checkpoint]) -> "Renderer":
    """The contract's renderer, found sound on every tokenizer of the group."""
    from harness.evaluate.write import renderer_for

    folders = dict.fromkeys(tokenizer_folder(Path(c.path), Path(c.base_path)) for c in group.values())
    return [renderer_for(contract, folder) for folder in folders][-1]


def _known(job: Job, label: str, checkpoint: Checkpoint, stack: ExitStack) -> "Answers":
    """A model's answers, still without any, and the journal that is kept of them."""
    from harness.evaluate.answers import Answers
    from harness.evaluate.journal import Journal, journal_path

    scope = answer_scope(checkpoint, job.contract, job.config)
    journal = Journal(journal_path(job.runs, scope), scope)
    stack.callback(journal.close)
    return Answers(BASE if checkpoint.kind == "full" else label, label, journal)
