"""`harness evaluate`: evaluates named checkpoints; and the evaluation items of a configuration."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from harness.checkpoint.resolve import resolve_checkpoint
from harness.config.experiment import Config, TaskConfig
from harness.core import store
from harness.core.console import say, timed
from harness.core.errors import DataError, EvidenceFault, HarnessError, UsageError
from harness.core.layout import CHECKPOINT, RunFolder
from harness.data.evaluation_items import check_task_files, domain_items, require_unseen, suite_items
from harness.data.tables import TRAIN, read_rows
from harness.evaluate.checkpoints import evaluate_checkpoints
from harness.evaluate.tasks.check import check_suite_files
from harness.lineage.coverage import data_beside

SMOKE = TaskConfig(name="general_smoke")


def evaluation_items(config: Config) -> list[dict[str, Any]]:
    """Every evaluation item of a run: from the files of the folders under tasks/, and from stock tasks as lm-eval loads
    them.

    The items of the smoke suite are always included, since `harness ci --smoke` may evaluate the model on them later.
    """
    found = {task.name: domain_items([task]) for task in [*config.tasks, SMOKE]}
    items = [{**item, "task": name} for name, own in found.items() for item in own]
    stock = [name for name, own in found.items() if not own]
    if stock:
        from harness.evaluate.tasks.load import leaves

        loaded = tasks_of(config)()
        wanted = {leaf: loaded["tasks"][leaf] for name in stock for leaf in leaves(loaded, name)}
        items += suite_items({**loaded, "tasks": wanted})
    return items


@cache
def _loaded_tasks(tasks: tuple[Any, ...], hub_dir: str | None) -> dict[str, Any]:
    from harness.evaluate.tasks.load import load_tasks

    with timed("load the evaluation tasks"):
        return load_tasks(tasks, Path(hub_dir) if hub_dir else None)


def tasks_of(config: Config) -> Callable[[], dict[str, Any]]:
    """A function that loads the configuration's tasks, once per process.

    It is also called before training, so that an unknown task costs no training.
    """
    return lambda: _loaded_tasks(tuple(config.tasks), config.hub_dir)


def hub_folder(config: Config) -> Path | None:
    """The mirror of datasets that the configuration names; None for the hub itself."""
    return Path(config.hub_dir) if config.hub_dir else None


def evaluate_alone(names: Sequence[str], config: Config, refused: dict[str, HarnessError] | None = None) -> list[Path]:
    """Evaluates checkpoints from anywhere; returns their folders under runs/evaluate-<digest>/eval, in order.

    A checkpoint that cannot be served (a damaged one, an adapter that does not fit) is named before a server starts,
    and the others are evaluated; it is put into `refused` by name, or raised at the end where that is None.

    Raises UsageError when two checkpoints share a name, and EvidenceFault when a checkpoint was trained on an item.
    """
    check_task_files(task.name for task in config.tasks)
    check_suite_files(task.name for task in config.tasks)
    if config.suite.judge is not None:
        from harness.evaluate.judging import require_judge

        require_judge(config.suite.judge, [label_of(name) for name in names])
    runs = Path(config.runs_dir)
    unfit: dict[str, HarnessError] = {}
    checkpoints = {}
    for name in names:
        try:
            checkpoints[label_of(name)] = resolve_checkpoint(name, config.model, config.template, runs)
        except (DataError, EvidenceFault) as fault:
            unfit[name] = fault
    if len(checkpoints) + len(unfit) < len(names):
        raise UsageError(f"two checkpoints share a name: {', '.join(names)}. Rename one of the folders")
    if not checkpoints:
        raise next(iter(unfit.values()))
    for name, why in unfit.items():
        say(f"· {name} is not evaluated: {why}")
    if "base" in checkpoints and checkpoints["base"].kind == "adapter":
        raise UsageError("the server uses the name 'base' for the pretrained model; rename the adapter's folder")
    items = domain_items(config.tasks)
    for found in checkpoints.values():
        data = data_beside(Path(found.path))
        if (data / TRAIN).is_file():
            require_unseen(items, read_rows(data), str(data))
    digest = store.sha256_json(
        [config.model_dump(exclude={"runs_dir"}), [c.model_dump() for c in checkpoints.values()]]
    )
    folder = runs.resolve() / f"evaluate-{digest[:10]}"
    with store.locked(folder):
        place = RunFolder(folder)
        done = evaluate_checkpoints(checkpoints, config.evaluation, place.evaluations, place.log, tasks_of(config))
    if refused is not None:
        refused |= unfit
    elif unfit:
        raise next(iter(unfit.values()))
    return list(done.values())


def label_of(name: str) -> str:
    """A short name for a checkpoint: that of its run or folder."""
    path = Path(name).resolve() if Path(name).exists() else Path(name)
    return path.parent.name if path.name == CHECKPOINT else path.name
