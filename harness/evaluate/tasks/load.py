"""Loads lm-eval tasks by name: lm-eval's own, those of the harness, and the user's.

Datasets come from the local copies in `hub_dir` if it is given.
"""

import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from harness.behavior.registry import behavior_folders, load_behavior
from harness.behavior.rules import without_functions
from harness.config.experiment import TaskConfig
from harness.core import resources
from harness.core.errors import ConfigError, DataError, EnvironmentFault, HarnessError, NetworkFault, nearest
from harness.data.evaluation_items import ITEMS, exchange, read_items
from harness.evaluate.tasks.check import check_suite_files
from harness.evaluate.tasks.hub import Hub, MissingData, content_digest, installed, reason, splits_sentences
from harness.evaluate.tasks.index import datasets_of, lm_eval_tasks, task_manager
from harness.prompt.limits import limited

# The lm-eval task of a folder that holds only a behaviour and items.
TASK_YAML = """\
task: {name}
custom_dataset: !function harness.evaluate.domain.items
dataset_kwargs: {{file: {items}}}
test_split: test
output_type: generate_until
doc_to_text: !function harness.evaluate.domain.user_prompt
doc_to_target: "{{{{topic}}}}"
process_results: !function graded.process_results
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: 256}}
metric_list:
{metrics}
metadata: {{version: 1.0}}
"""
METRIC_YAML = "  - {{metric: {name}, aggregation: mean, higher_is_better: true}}"
TASK_CODE = """\
from harness.evaluate.domain import grader

process_results = grader({name!r})
"""


def write_tasks(names: list[str], out: Path) -> None:
    """Writes a folder below `out` for each named task that has a behaviour and items, but no lm-eval YAML."""
    folders = behavior_folders()
    for name in names:
        if name in folders and not (folders[name] / f"{name}.yaml").is_file():
            items, folder = folders[name] / ITEMS, out / name
            folder.mkdir(parents=True)
            metrics = "\n".join(METRIC_YAML.format(name=metric) for metric in metric_names(name, items))
            yaml = TASK_YAML.format(name=name, items=f'"{items.resolve()}"', metrics=metrics)
            (folder / f"{name}.yaml").write_text(yaml)
            (folder / "graded.py").write_text(TASK_CODE.format(name=name))


def metric_names(name: str, items: Path) -> list[str]:
    """The metrics that a behaviour reports on these items, which are those of an empty answer to each of them."""
    behavior = load_behavior(name)
    checks = [behavior.check(exchange(item)) for item in read_items(items)]
    return list(dict.fromkeys(metric for check in checks for metric in check.metrics))


class CodeNotRun(DataError):
    """A user's task names Python code while its suite is only looked at."""


@dataclass
class TaskErrors:
    """Why tasks cannot be built, one line for each: missing data, missing packages, and other errors.

    `tasks` are the tasks or groups of the suite that are concerned.
    """

    missing: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)

    def raise_any(self, hub: Hub) -> None:
        lines = [*self.missing, *self.packages, *self.broken]
        if not lines:
            return
        message = lines[0]
        if len(lines) > 1:
            message = "\n".join([f"{len(lines)} errors:", *(f"  - {line}" for line in lines)])
        if not self.missing:
            raise EnvironmentFault(message) if self.packages else DataError(message)
        if hub.fetch is not None:
            fix = "The files copied so far are kept. Run the same command again to continue."
        else:
            wanted = " ".join(dict.fromkeys(self.tasks))
            unset = "" if hub.folder else "hub_dir is not set. "
            fix = (
                f"{unset}On a machine with a network: harness mirror {wanted} --to DIR. Copy DIR to this machine and "
                "add hub_dir=DIR. To leave a task out: suite.skip=[TASK]"
            )
        raise NetworkFault(f"{message}\n{fix}")


def load_tasks(
    tasks: Sequence[TaskConfig], hub_dir: Path | None, hub: Hub | None = None, *, run_code: bool = True
) -> dict[str, Any]:
    """lm-eval's task dictionary ({"tasks", "groups", "group_map"}) with the configured overrides applied.

    `run_code` false runs no Python code that the user's tasks name: CodeNotRun is raised in its place. Templates run in
    Jinja's sandbox in either case.
    Raises ConfigError for unknown tasks and a hub_dir that is not a folder; NetworkFault, listing all tasks concerned,
    for datasets that are neither local nor downloadable; EnvironmentFault for missing Python packages that a task's
    code needs; DataError for damaged copies.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if hub_dir is not None and not hub_dir.is_dir():
        names = " ".join(task.name for task in tasks)
        raise ConfigError([f"hub_dir: {hub_dir} is not a folder. To make it: harness mirror {names} --to {hub_dir}"])
    check_suite_files(task.name for task in tasks)
    with TemporaryDirectory(prefix="harness-tasks-") as generated, nullcontext() if run_code else without_functions():
        write_tasks([task.name for task in tasks], Path(generated))
        manager = task_manager([*resources.task_roots(), Path(generated)])
        unknown = [task.name for task in tasks if task.name not in manager.task_index]
        if unknown:
            raise ConfigError(
                f"task {name}: there is no such task. {nearest(name, manager.task_index)}" for name in unknown
            )
        hub = hub or Hub(hub_dir)
        sandbox_templates()
        with installed(hub), nullcontext() if run_code else _no_code_but(ours(Path(generated))):
            return _load_all(manager, tasks, hub, None if run_code else ours(Path(generated)))


def ours(generated: Path) -> list[Path]:
    """Folders whose tasks may run code while a suite is only looked at: the harness's, lm-eval's, the generated one."""
    return [folder.resolve() for folder in (resources.task_roots()[0], lm_eval_tasks(), generated)]


def sandbox_templates() -> None:
    """Lets tasks' templates run in Jinja's sandbox, within limits; lm-eval lets them reach all of Python."""
    from jinja2 import BaseLoader, StrictUndefined, Template
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    if isinstance(utils.env, SandboxedEnvironment):
        return

    class Limited(Template):
        def render(self, *args: Any, **values: Any) -> str:
            with limited():
                return super().render(*args, **values)

    sandbox = SandboxedEnvironment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
    sandbox.template_class = Limited
    sandbox.filters |= utils.env.filters
    utils.env = sandbox


@contextmanager
def _no_code_but(trusted: Sequence[Path]) -> Iterator[None]:
    """Within the context, `!function` in a YAML file outside `trusted` raises CodeNotRun."""
    from lm_eval.tasks import _yaml_loader

    stock = _yaml_loader._import_func_in_yml

    def imported(name: str, folder: Path) -> Any:
        if not _below(folder, trusted):
            raise CodeNotRun(f"{folder} names the code {name}, which is not run here")
        return stock(name, folder)

    _yaml_loader._import_func_in_yml = imported
    try:
        yield
    finally:
        _yaml_loader._import_func_in_yml = stock


def _below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.resolve().is_relative_to(folder) for folder in folders)


def _foreign_metric(config: Any) -> str | None:
    """A metric in a task's or group's values that is not lm-eval's: its code comes from a file or the hub."""
    from lm_eval.api.registry import METRIC_REGISTRY

    parts = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    given = config.get("metric") if isinstance(config, dict) else None
    if isinstance(given, str) and (given not in METRIC_REGISTRY or config.get("hf_evaluate")):
        return given
    return next((name for part in parts if (name := _foreign_metric(part)) is not None), None)


def _load_all(manager: Any, tasks: Sequence[TaskConfig], hub: Hub, trusted: Sequence[Path] | None) -> dict[str, Any]:
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    errors = TaskErrors()
    for task in tasks:
        manager._factory = _factory(task, hub, errors, trusted)
        part: dict[str, Any] = {}
        with _collecting(task.name, task.name, hub, errors):
            part = manager.load([task.name])
        for key in loaded:
            loaded[key] |= part.get(key, {})
    errors.raise_any(hub)
    for name, built in loaded["tasks"].items():
        if built.get_config("num_fewshot") is None:
            built.set_config(key="num_fewshot", value=0)
        built.set_fewshot_seed(seed=1234)
        try:
            items = len(built.eval_docs)
        except KeyError as error:
            raise DataError(f"task {name}: its dataset has no split {error}") from None
        if items == 0:
            raise DataError(f"task {name} has no items")
    return loaded


def sample(name: str, size: int, limit: int | None, seed: int) -> list[int]:
    """Indices of the items of a task that a limit takes, drawn with the seed; all of them without a limit."""
    if limit is None or limit >= size:
        return list(range(size))
    return sorted(random.Random(f"{seed}:{name}").sample(range(size), limit))


def seeded_samples(loaded: dict[str, Any], tasks: Sequence[TaskConfig], seed: int) -> dict[str, list[int]]:
    """Item indices by leaf task, for tasks with a limit: a seeded sample of the items, not the first rows."""
    samples = {}
    for task in tasks:
        for leaf in leaves(loaded, task.name):
            size = len(loaded["tasks"][leaf].eval_docs)
            if task.limit is not None and task.limit < size:
                samples[leaf] = sample(leaf, size, task.limit, seed)
    return samples


def leaves(loaded: dict[str, Any], name: str) -> list[str]:
    """The tasks that a name stands for, in order: the task itself, those of the group, or those with the tag."""
    if name in loaded["tasks"]:
        return [name]
    if name in loaded["group_map"]:
        return [leaf for child in loaded["group_map"][name] for leaf in leaves(loaded, child)]
    return [leaf for leaf, task in loaded["tasks"].items() if getattr(task, "named_by", None) == name]


def hub_digest(hub_dir: Path | None, tasks: Sequence[TaskConfig]) -> str | None:
    """Digest of the local copies that these tasks read, which decides whether results can be reused.

    It covers the whole folder when only a task's own code knows its datasets. None without `hub_dir`.
    """
    return content_digest(hub_dir, datasets_of([task.name for task in tasks])) if hub_dir is not None else None


def _beside(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """A task's or group's values; data files that exist beside its YAML file are named by their whole paths."""

    def placed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: placed(one) for key, one in value.items()}
        if isinstance(value, list):
            return [placed(one) for one in value]
        relative = isinstance(value, str) and value and "://" not in value and not Path(value).is_absolute()
        return str((folder / value).resolve()) if relative and next(folder.glob(value), None) is not None else value

    found = dict(config)
    if isinstance(given := found.get("dataset_kwargs"), dict):
        of_files = ("data_files", "data_dir")
        found["dataset_kwargs"] = {key: placed(one) if key in of_files else one for key, one in given.items()}
    if str(found.get("dataset_path", "")).startswith(("./", "../")):
        found["dataset_path"] = placed(found["dataset_path"])
    if isinstance(members := found.get("task"), list):
        found["task"] = [_beside(folder, one) if isinstance(one, dict) else one for one in members]
    return found


def _factory(task: TaskConfig, hub: Hub, errors: TaskErrors, trusted: Sequence[Path] | None) -> Any:
    """A task factory of lm-eval that applies our overrides to every entry it reads, and collects errors.

    With `trusted` folders, a metric of another folder whose code is not lm-eval's raises CodeNotRun.
    """
    from lm_eval.tasks._factory import TaskFactory

    class LocalFactory(TaskFactory):
        def _load_full_config(self, entry: Any, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
            config: dict[str, Any] = super()._load_full_config(entry, overrides)
            foreign = trusted is not None and entry.yaml_path and not _below(Path(entry.yaml_path), trusted)
            if foreign and (metric := _foreign_metric(config)):
                raise CodeNotRun(f"{entry.yaml_path} names the metric {metric}, whose code is not run here")
            if entry.yaml_path:
                config = _beside(Path(entry.yaml_path).parent, config)
            if task.num_fewshot is not None and "output_type" in config:
                config["num_fewshot"] = task.num_fewshot
            if task.max_new_tokens is not None and "generation_kwargs" in config:
                config["generation_kwargs"] = {**config["generation_kwargs"], "max_gen_toks": task.max_new_tokens}
            return config

        def _build_task(self, entry: Any, overrides: dict[str, Any] | None) -> Any:
            with _collecting(entry.name, task.name, hub, errors):
                if splits_sentences(entry.yaml_path):
                    hub.require_nltk()
                return super()._build_task(entry, overrides)
            return SimpleNamespace(task_name=entry.name)  # a stand-in: loading goes on, to report all errors

        def _build_tag(self, entry: Any, overrides: dict[str, Any] | None, registry: Any) -> list[Any]:
            built: list[Any] = super()._build_tag(entry, overrides, registry)
            for tagged in built:
                tagged.named_by = entry.name
            return built

    return LocalFactory(meta=None)


@contextmanager
def _collecting(name: str, wanted: str, hub: Hub, errors: TaskErrors) -> Iterator[None]:
    """Collects the exceptions of a task's dataset or code in `errors`; `wanted` is the suite's task or group."""
    from datasets.exceptions import DatasetsError

    try:
        yield
    except CodeNotRun:
        raise
    except MissingData as error:
        errors.missing.append(f"task {name}: {error}")
    except HarnessError as error:
        errors.broken.append(f"task {name}: {error}")
    except ImportError as error:
        errors.packages.append(f"task {name}: its code needs a package that is not installed: {reason(error)}")
    except MemoryError:
        raise
    except (Exception, DatasetsError) as error:  # a task's code may fail in any way
        why = f"{type(error).__name__}: {reason(error)[:600]}; see its files under tasks/"
        errors.broken.append(f"task {name}: it cannot be built (hub_dir={hub.folder}): {why}")
    else:
        return
    errors.tasks.append(wanted)
