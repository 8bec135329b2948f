"""lm-eval's tasks by name: stock ones, shipped ones, the user's own; datasets from the local hub copy if given."""

import logging
import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import resources
from harness.config import TaskConfig
from harness.errors import ConfigError, DataError, NetworkFault, nearest
from harness.evaluate.generated import write_tasks


def load_tasks(tasks: Sequence[TaskConfig], hub_dir: Path | None) -> dict[str, Any]:
    """lm-eval's task dictionary ({"tasks", "groups", "group_map"}) with the configured overrides applied.

    Raises ConfigError for unknown names, NetworkFault when a dataset is neither local nor downloadable.
    """
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with TemporaryDirectory(prefix="harness-tasks-") as generated:
        write_tasks([task.name for task in tasks], Path(generated))
        manager = TaskManager(include_path=[*map(str, resources.task_roots()), generated])
        return _load_all(manager, tasks, hub_dir)


def _load_all(manager: Any, tasks: Sequence[TaskConfig], hub_dir: Path | None) -> dict[str, Any]:
    unknown = [task.name for task in tasks if task.name not in manager.task_index]
    if unknown:
        raise ConfigError(f"task {name}: unknown. {nearest(name, manager.all_tasks)}" for name in unknown)
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    for task in tasks:
        manager._factory = _factory(task, hub_dir)
        part = _load(manager, task, hub_dir)
        for key in loaded:
            loaded[key] |= part[key]
    for name, built in loaded["tasks"].items():
        if built.get_config("num_fewshot") is None:
            built.set_config(key="num_fewshot", value=0)
        built.set_fewshot_seed(seed=1234)
        if len(built.eval_docs) == 0:
            raise DataError(f"task {name} has no items")
    return loaded


def seeded_samples(loaded: dict[str, Any], tasks: Sequence[TaskConfig], seed: int) -> dict[str, list[int]]:
    """Item indices per leaf task where a limit is set: a seeded sample, not the first rows."""
    samples = {}
    for task in tasks:
        for leaf in leaves(loaded, task.name):
            size = len(loaded["tasks"][leaf].eval_docs)
            if task.limit is not None and task.limit < size:
                samples[leaf] = sorted(random.Random(f"{seed}:{leaf}").sample(range(size), task.limit))
    return samples


def leaves(loaded: dict[str, Any], name: str) -> list[str]:
    """The tasks below a name, in order: itself, or all of a group's."""
    if name in loaded["tasks"]:
        return [name]
    return [leaf for child in loaded["group_map"].get(name, []) for leaf in leaves(loaded, child)]


def hub_digest(hub_dir: Path | None) -> Any:
    """Names, sizes and times of the local hub copy's files: what decides whether results can be reused."""
    if hub_dir is None:
        return None
    files = sorted(path for path in hub_dir.rglob("*") if path.is_file())
    return [(path.relative_to(hub_dir).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _factory(task: TaskConfig, hub_dir: Path | None) -> Any:
    """lm-eval's task factory that also applies our overrides to every registry entry it reads."""
    from lm_eval.tasks._factory import TaskFactory

    class LocalFactory(TaskFactory):
        def _load_full_config(self, entry: Any, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
            config: dict[str, Any] = super()._load_full_config(entry, overrides)
            dataset = config.get("dataset_path")
            if hub_dir is not None and isinstance(dataset, str) and (hub_dir / dataset).is_dir():
                config["dataset_path"] = str((hub_dir / dataset).resolve())
            if task.num_fewshot is not None and "output_type" in config:
                config["num_fewshot"] = task.num_fewshot
            if task.max_new_tokens is not None and "generation_kwargs" in config:
                config["generation_kwargs"] = {**config["generation_kwargs"], "max_gen_toks": task.max_new_tokens}
            return config

    return LocalFactory(meta=None)


def _load(manager: Any, task: TaskConfig, hub_dir: Path | None) -> dict[str, Any]:
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DatasetNotFoundError

    try:
        loaded: dict[str, Any] = manager.load([task.name])
    except (ConnectionError, DatasetNotFoundError) as error:
        where = f"nor under hub_dir={hub_dir}" if hub_dir else "and no hub_dir is given"
        raise NetworkFault(
            f"task {task.name}: its dataset cannot be fetched from the hub {where} ({' '.join(str(error).split())}). "
            "Copy the dataset's repository to <hub_dir>/<owner>/<dataset> and pass hub_dir=<folder>."
        ) from None
    except (EmptyDatasetError, FileNotFoundError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"task {task.name}: its dataset cannot be read (hub_dir={hub_dir}): {reason}") from None
    return loaded
