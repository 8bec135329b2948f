"""A cache of lm-eval's index of its own tasks, which lm-eval builds by parsing some 14,000 YAML files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.core import resources
from harness.core.installed import version_of
from harness.core.store import sha256_json, write_json
from harness.model.load import cache_dir

Index = dict[str, dict[str, Any]]
NO_DATASET = ""


def task_manager(folders: list[Path]) -> Any:
    """lm-eval's TaskManager with its own tasks and those in `folders`, which replace tasks of the same name."""
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Entry, Kind

    root = lm_eval_tasks()
    stock = {
        name: Entry(name, Kind[row["kind"]], root / row["path"] if row["path"] else None, tags=set(row["tags"]))
        for name, row in stock_index().items()
    }
    manager = TaskManager(include_path=list(folders), include_defaults=False)
    manager._index = {**stock, **manager._index}
    return manager


def datasets_of(names: list[str]) -> set[str] | None:
    """Hub ids of the datasets of tasks and groups, without loading them; None when only their code knows them."""
    datasets = [leaf["dataset"] for leaf in _leaves(names, {**stock_index(), **_own_index()})]
    return None if None in datasets else set(datasets) - {NO_DATASET}


def members(names: list[str]) -> set[str]:
    """The tasks that the named tasks and groups consist of, without loading them, and the names themselves."""
    return {*names, *(str(leaf["name"]) for leaf in _leaves(names, {**stock_index(), **_own_index()}))}


def _leaves(members: list[Any], index: Index, above: str | None = None) -> Iterator[dict[str, Any]]:
    """The tasks below names and inline members of groups. A group may set the dataset of its members."""
    for member in members:
        inline = member if isinstance(member, dict) else {}
        name = inline.get("task") if isinstance(inline.get("task"), str) else inline.get("group", member)
        entry = index.get(str(name), {"dataset": NO_DATASET})  # a task that consists of items and a behaviour
        below = entry.get("members") or (inline.get("task") if isinstance(inline.get("task"), list) else None)
        dataset = above or inline.get("dataset_path") or entry.get("dataset")
        if below or entry.get("kind") == "TAG":
            yield from _leaves(below or entry["tags"], index, dataset)
        else:
            yield {"name": name, "dataset": dataset}


def _own_index() -> Index:
    """The same as `stock_index`, for the tasks under tasks/."""
    from yaml import SafeLoader, YAMLError, load

    class Plain(SafeLoader):
        """Reads lm-eval's `!function` tags as None."""

    Plain.add_multi_constructor("!", lambda loader, suffix, node: None)
    index: Index = {}
    for path in (path for root in resources.task_roots() for path in sorted(root.rglob("*.yaml"))):
        try:
            config = load(path.read_text(encoding="utf-8"), Loader=Plain)  # noqa: S506 - a SafeLoader that knows no tags
        except (YAMLError, OSError, ValueError, RecursionError):
            continue  # named by check.py where it matters
        names = [
            config[key] for key in ("group", "task") if isinstance(config, dict) and isinstance(config.get(key), str)
        ]
        if not names:
            continue
        members = config.get("task") if isinstance(config.get("task"), list) else None
        index[names[0]] = {"kind": "TASK", "dataset": None if members else _dataset(config, path), "members": members}
        tags = config.get("tag") or []
        for tag in tags if isinstance(tags, list) else [tags]:
            index.setdefault(tag, {"kind": "TAG", "tags": []})["tags"].append(names[0])
    return index


def _dataset(config: dict[str, Any], path: Path) -> str | None:
    """The dataset of a task under tasks/; None (unknown) if it includes another file or its code loads a dataset."""
    if named := config.get("dataset_path"):
        return str(named)
    loads = any("load_dataset" in code.read_text() for code in path.parent.glob("*.py"))
    return None if loads or "include" in config else NO_DATASET


def stock_index() -> Index:
    """kind, path (relative to lm-eval's tasks), tags, dataset and members of each task, group and tag, by name.

    It is built again when the version or the place of lm-eval changes.
    """
    root = lm_eval_tasks()
    key = sha256_json([version_of("lm-eval"), str(root), root.stat().st_mtime_ns])
    path = cache_dir() / "lm_eval" / f"index-{key[:16]}.json"
    try:
        index = json.loads(path.read_text())
    except (OSError, ValueError):
        index = None
    if isinstance(index, dict) and index:
        return index
    from lm_eval.tasks._index import TaskIndex

    made = {
        name: {
            "kind": entry.kind.name,
            "path": entry.yaml_path.relative_to(root).as_posix() if entry.yaml_path else None,
            "tags": sorted(entry.tags),
            "dataset": (entry.cfg or {}).get("dataset_path") or None,
            "members": members if isinstance(members := (entry.cfg or {}).get("task"), list) else None,
        }
        for name, entry in TaskIndex.build([root]).items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, made)
    return made


def lm_eval_tasks() -> Path:
    """The folder of lm-eval's tasks, without importing lm-eval."""
    from importlib.util import find_spec

    spec = find_spec("lm_eval")
    if spec is None or spec.origin is None:
        from harness.core.errors import MissingDependency

        raise MissingDependency("lm-eval", "evaluation", "engine")
    return Path(spec.origin).parent / "tasks"
