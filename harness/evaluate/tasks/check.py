"""Finds what is wrong with the YAML files of a user's lm-eval tasks, without running any of their code."""

import ast
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.core import resources
from harness.core.errors import ConfigError, TemplateRefusal
from harness.prompt.limits import require_interruptible

OUTPUT_TYPES = ("loglikelihood", "loglikelihood_rolling", "generate_until", "multiple_choice")
TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice")
SPLITS = ("test_split", "validation_split", "training_split", "fewshot_split")
LOCAL = ("json", "csv", "parquet", "text")
MOST_BYTES = 1 << 20  # of a task's YAML file


class FunctionTag(str):
    """The target of a `!function` tag, such as `utils.answer`."""


def check_suite_files(names: Iterable[str]) -> None:
    """Raises ConfigError with all errors of the user's YAML files that define the named tasks, groups or tags."""
    from harness.evaluate.tasks.index import members

    wanted = set(names)
    errors: list[str] = []
    files: dict[str, Path] = {}
    own = list(_own_files())
    if own:
        wanted |= members(sorted(wanted))
    for path, config in own:
        if isinstance(config, str):
            if wanted & {path.stem, path.parent.name}:
                errors.append(config)
            continue
        try:
            whole = _with_includes(config, path, ())
        except ConfigError:
            whole = config
        if wanted & _names(whole):
            errors += [f"{path}: {error}" for error in _errors(config, path)]
        name = next((whole[key] for key in ("task", "group") if isinstance(whole.get(key), str)), None)
        if name in wanted and (first := files.setdefault(name, path)) != path:
            errors.append(
                f"{path}: task {name} is also defined in {first}; give one of them another name, or remove it"
            )
    if errors:
        raise ConfigError(errors)


def _own_files() -> Iterator[tuple[Path, dict[str, Any] | str]]:
    """The YAML files of the user's tasks: their values, or why they cannot be read."""
    for root in resources.task_roots()[1:]:
        for path in sorted(root.rglob("*.yaml")):
            if path.name not in ("behavior.yaml", "gate.yaml") and path.is_file():
                yield path, _read(path)


def _read(path: Path) -> dict[str, Any] | str:
    """The values of a task's file, or why it cannot be read."""
    from yaml import MarkedYAMLError, SafeLoader, YAMLError, load

    class Plain(SafeLoader):
        """Reads lm-eval's `!function` tags as names."""

    Plain.add_multi_constructor("!", lambda loader, suffix, node: FunctionTag(getattr(node, "value", "")))
    try:
        if path.stat().st_size > MOST_BYTES:
            return f"{path} has {path.stat().st_size} bytes; the YAML file of a task has at most {MOST_BYTES}"
        values = load(path.read_text(encoding="utf-8"), Loader=Plain)  # noqa: S506 - a SafeLoader that knows no tags
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" line {mark.line + 1}" if mark else ""
        return f"{path}{where} is not YAML: {error.problem or error.context}; correct it there"
    except (YAMLError, OSError, ValueError, RecursionError) as error:
        return f"{path} cannot be read: {' '.join(str(error).split())[:300]}; correct it there"
    if not isinstance(values, dict):
        return f"{path} holds no keys; a task's file has lines such as task: NAME"
    return values


def _names(config: Mapping[str, Any]) -> set[str]:
    tags = config.get("tag") or []
    named = [config.get("task"), config.get("group"), *(tags if isinstance(tags, list) else [tags])]
    return {name for name in named if isinstance(name, str)}


def _errors(config: dict[str, Any], path: Path) -> Iterator[str]:
    if isinstance(config.get("group"), str) and isinstance(config.get("task"), str):
        yield (
            f"group: {config['group']} beside task: {config['task']} is lm-eval's old form. Write tag: "
            f"{config['group']} in place of the group, or a file of its own with group: and task: [names]."
        )
        return
    try:
        config = _with_includes(config, path, ())
    except ConfigError as error:
        yield from error.errors
        return
    if isinstance(config.get("task"), list):
        return  # a group
    for key, value in config.items():
        if isinstance(value, FunctionTag):
            yield from _function_errors(key, value, path)
    if isinstance(config.get("class"), FunctionTag):
        return
    kind = config.get("output_type")
    if isinstance(kind, str) and kind not in OUTPUT_TYPES:
        yield f"output_type: {kind} is not known. {_near(kind, OUTPUT_TYPES)}"
    yield from _metric_errors(config)
    yield from _filter_errors(config)
    rows, problem = _first_row(config, path)
    if problem:
        yield problem
    yield from _split_errors(config)
    for key in TEMPLATES:
        if isinstance(config.get(key), str) and not isinstance(config[key], FunctionTag):
            yield from _template_errors(key, config[key], rows)


def _near(name: str, valid: Iterable[str]) -> str:
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(map(repr, close))}?" if close else f"Valid: {', '.join(names[:12])}."


def _with_includes(config: dict[str, Any], path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a file and of those that it includes, as lm-eval merges them: later files, then its own, win."""
    named = config.get("include")
    merged: dict[str, Any] = {}
    for name in named if isinstance(named, list) else [named]:
        if not isinstance(name, str):
            continue
        included = (path.parent / name).resolve()
        if included in (path.resolve(), *above):
            raise ConfigError([f"include: {name} leads back to this file; remove one of the includes"])
        if not included.is_file():
            near = [other.name for other in included.parent.glob("*.y*ml")] if included.parent.is_dir() else []
            raise ConfigError(
                [f"include: {included} does not exist. {_near(Path(name).name, near) if near else 'Add it.'}"]
            )
        base = _read(included)
        if isinstance(base, str):
            raise ConfigError([base])
        merged |= _with_includes(base, included, (*above, path.resolve()))
    return merged | {key: value for key, value in config.items() if key != "include"}


def _function_errors(key: str, target: str, path: Path) -> Iterator[str]:
    """`!function module.name` must name a function or class of a Python file beside the YAML file."""
    module, _, name = target.rpartition(".")
    file = path.parent.joinpath(*module.split(".")).with_suffix(".py") if module else None
    if file is None or not file.is_file():
        yield f"{key}: !function {target}: {file or 'module.function'} does not exist; add it, or correct the name"
        return
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, RecursionError, OSError) as error:
        yield f"{key}: !function {target}: {file} cannot be read ({error}); correct it there"
        return
    defined = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)}
    assigned = {a.id for n in tree.body if isinstance(n, ast.Assign) for a in n.targets if isinstance(a, ast.Name)}
    imported = {a.asname or a.name for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names}
    if (defined or assigned) and name not in {*defined, *assigned, *imported, *(["*"] if "*" in imported else [])}:
        yield f"{key}: !function {target}: {file} has no {name}. {_near(name, {*defined, *assigned})}"
    elif key == "class" and isinstance(found := defined.get(name), ast.ClassDef) and not found.bases:
        yield (
            f"class: !function {target}: {name} in {file} is not a task of lm-eval. Write: class {name}"
            "(ConfigurableTask), from lm_eval.api.task"
        )


def _metric_errors(config: Mapping[str, Any]) -> Iterator[str]:
    import lm_eval.api.metrics  # noqa: F401 - registers the metrics
    from lm_eval.api.registry import METRIC_REGISTRY

    for entry in _items(config.get("metric_list")):
        metric = entry.get("metric") if isinstance(entry, Mapping) else entry
        if isinstance(metric, str) and not isinstance(metric, FunctionTag) and metric not in METRIC_REGISTRY:
            known = set(METRIC_REGISTRY)
            if not difflib.get_close_matches(metric, known, n=1, cutoff=0.75) and entry.get("aggregation"):
                continue  # a metric of the Hugging Face library `evaluate`
            yield f"metric_list: there is no metric {metric}. {_near(metric, known)}"


def _filter_errors(config: Mapping[str, Any]) -> Iterator[str]:
    import lm_eval.filters  # noqa: F401 - registers the filters
    from lm_eval.api.registry import FILTER_REGISTRY

    for pipeline in _items(config.get("filter_list")):
        for step in _items(pipeline.get("filter") if isinstance(pipeline, Mapping) else None):
            name = step.get("function") if isinstance(step, Mapping) else None
            if isinstance(name, str) and not isinstance(name, FunctionTag) and name not in FILTER_REGISTRY:
                yield f"filter_list: there is no filter {name}. {_near(name, FILTER_REGISTRY)}"


def _items(values: Any) -> list[Any]:
    return values if isinstance(values, list) else []


def _data_files(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if config.get("dataset_path") not in LOCAL or not files:
        return None
    return files if isinstance(files, Mapping) else {"train": files}


def _first_row(config: Mapping[str, Any], path: Path) -> tuple[set[str] | None, str]:
    """(columns of the first local row, what is wrong with the files); columns are None where they are unknown."""
    for name in [
        n for value in (_data_files(config) or {}).values() for n in (value if isinstance(value, list) else [value])
    ]:
        if not isinstance(name, str) or "://" in name or "*" in name:
            return None, ""
        places = (path.parent / name, Path(name))
        file = next((one for one in places if one.is_file()), None)
        if file is None:
            wanted = next((one for one in places if one.exists()), places[0])
            if wanted.exists() and not wanted.is_dir():
                return None, f"data_files: {wanted} is a pipe or a device; name a file with rows"
            return None, f"data_files: {wanted} does not exist. Add it, or correct the path (relative to the YAML file)"
        if file.suffix in (".jsonl", ".ndjson", ".json"):
            try:
                with file.open(encoding="utf-8-sig") as lines:
                    row = json.loads(lines.readline())
            except (ValueError, OSError, RecursionError):
                return None, ""
            return (set(row), "") if isinstance(row, dict) else (None, "")
    return None, ""


def _split_errors(config: Mapping[str, Any]) -> Iterator[str]:
    files = _data_files(config)
    for key in SPLITS:
        split = config.get(key)
        if files and isinstance(split, str) and split.split("[")[0] not in files:
            yield f"{key}: data_files has no split {split}. {_near(split, map(str, files))}"


def _template_errors(key: str, text: str, columns: set[str] | None) -> Iterator[str]:
    from jinja2 import TemplateError, meta
    from jinja2.sandbox import SandboxedEnvironment

    if columns and text in columns:
        return
    try:
        require_interruptible(text)
        tree = SandboxedEnvironment().parse(text)
    except TemplateError as error:
        yield f"{key}: {text[:80]!r} is not a template: {error.message}; correct it there"
        return
    except TemplateRefusal as error:
        yield f"{key}: {error}; write it another way"
        return
    if columns is None:
        return
    usable = ", ".join(sorted(columns)[:12])
    for name in sorted(meta.find_undeclared_variables(tree) - columns):
        yield f"{key}: the rows have no column {name}. Use one of them: {usable}. {_near(name, columns)}"
