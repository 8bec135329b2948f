"""Computes which code a result depends on, from the imports of the functions that make it.

The package is read, never imported. Starting at the module of an entry, these are followed:

    import harness.a.b, from harness.a import b, from . import b      anywhere in the module, functions included
    "harness.a.b:Name"                                                a string in a table of lazily loaded classes
    "harness.a.b"                                                     a string that names what another process runs

The body of `if TYPE_CHECKING:` does not count. Neither does the root `harness/__init__.py`: it is a lazy facade, and
the package itself must not import from it. Module names that are built at run time, and plugins loaded through an entry
point, are not found: pass such modules as entries.

A module counts by its syntax tree: comments, formatting, docstrings and line numbers do not count.

Nothing is cached on disk: the first call in a process takes 0.1 to 0.4 s for a stage, later ones about 5 ms.
"""

import ast
import hashlib
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from harness.core.errors import nearest

_PACKAGE = Path(__file__).parents[1]
_DATA = (".jinja", ".json", ".yaml")
_REFERENCE = re.compile(r"(\w+(?:\.\w+)+)(?::\w+)?")


class _Parsed(NamedTuple):
    """One parsed module. A mention is a number of leading dots and a dotted name, which may not be a module."""

    digest: str
    mentions: frozenset[tuple[int, str]]
    definitions: frozenset[str]
    empty: bool


def code_digest(*entries: str, root: Path | None = None) -> str:
    """SHA-256 (hex) of all code of the package that the entries depend on: modules by name, data files by path.

    An entry is a dotted module, or `module:function` with a function or class that the module defines; the whole module
    counts in both cases. `root` is the folder of the package, by default this one. A module brings in the packages
    above it, unless their `__init__.py` is empty, and the data files (.jinja, .json, .yaml) of its folder and of the
    folders below it that have no modules of their own.

    Raises ValueError for an unknown entry (with the nearest valid name) or a package without code, and SyntaxError,
    with the path, for a module that cannot be parsed.
    """
    code = _closure(entries, root or _PACKAGE)
    digests = {
        name: _parsed(path).digest if path.suffix == ".py" else hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in code.items()
    }
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def code_files(*entries: str, root: Path | None = None) -> list[Path]:
    """The files that `code_digest` covers, sorted. Raises the same errors."""
    return sorted(_closure(entries, root or _PACKAGE).values())


def _closure(entries: tuple[str, ...], root: Path) -> dict[str, Path]:
    """The files that the entries depend on: modules by dotted name, data files by path relative to the package."""
    modules, data = _contents(root)
    pending = [_module_of(entry, modules) for entry in entries]
    reached: set[str] = set()
    while pending:
        name = pending.pop()
        if name in modules and name not in reached:
            reached.add(name)
            pending += [name.rpartition(".")[0], *_absolute(name, modules[name])]
    code = {name: modules[name] for name in reached if not _is_bare_package(modules[name])}
    rooms = {path.parent for path in modules.values()} - {root}
    used = {path.parent for path in code.values()}
    for path in data:
        if next((folder for folder in path.parents if folder in rooms), None) in used:
            code[path.relative_to(root).as_posix()] = path
    return code


def _contents(root: Path) -> tuple[dict[str, Path], list[Path]]:
    """All modules of the package by dotted name, without its root, and all its data files."""
    modules, data = {}, []
    for folder, _, names in os.walk(root):
        package = ".".join((root.name, *Path(folder).relative_to(root).parts))
        for name in names:
            path = Path(folder, name)
            if name == "__init__.py":
                modules[package] = path
            elif path.suffix == ".py":
                modules[f"{package}.{path.stem}"] = path
            elif path.suffix in _DATA:
                data.append(path)
    modules.pop(root.name, None)
    return modules, data


def _module_of(entry: str, modules: dict[str, Path]) -> str:
    module, _, attribute = entry.partition(":")
    if module not in modules:
        raise ValueError(f"{entry}: the package has no module '{module}'. {nearest(module, modules)}")
    if _is_bare_package(modules[module]):
        raise ValueError(f"{entry}: the package '{module}' has no code of its own; name a module of it.")
    definitions = _parsed(modules[module]).definitions
    if attribute and attribute not in definitions:
        raise ValueError(f"{entry}: {module} does not define '{attribute}'. {nearest(attribute, definitions)}")
    return module


def _is_bare_package(path: Path) -> bool:
    return path.name == "__init__.py" and _parsed(path).empty


def _absolute(name: str, path: Path) -> Iterator[str]:
    """The mentions of a module, as absolute names."""
    parts = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for dots, mention in _parsed(path).mentions:
        above = parts[: len(parts) + 1 - dots] if dots else []
        yield ".".join([*above, mention])


def _parsed(path: Path) -> _Parsed:
    stat = path.stat()
    return _parse(path, stat.st_mtime_ns, stat.st_size)


@cache
def _parse(path: Path, mtime_ns: int, size: int) -> _Parsed:
    """The file as of that time: an unchanged file is parsed once per process."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise SyntaxError(f"{path}, line {error.lineno}: {error.msg}") from error
    mentions: set[tuple[int, str]] = set()
    syntax = ascii(_syntax(tree, mentions))
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return _Parsed(
        hashlib.sha256(syntax.encode()).hexdigest(),
        frozenset(mentions),
        frozenset(node.name for node in tree.body if isinstance(node, definitions)),
        empty=all(_is_docstring(node) for node in tree.body),
    )


def _syntax(node: Any, mentions: set[tuple[int, str]]) -> Any:
    """A syntax tree as nested lists, without docstrings and code for type checkers only; collects its mentions.

    Unlike `ast.dump`, it omits absent fields: a new Python version that adds one must not change every digest.
    """
    if isinstance(node, list):
        return [_syntax(item, mentions) for item in node if not _is_docstring(item)]
    if not isinstance(node, ast.AST):
        return node
    skipped = "ctx"  # whether a name is read or written follows from its place
    if isinstance(node, ast.Import):
        mentions.update((0, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        origin = f"{node.module}." if node.module else ""
        mentions.update((node.level, name) for name in (origin[:-1], *(origin + alias.name for alias in node.names)))
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str) and (reference := _REFERENCE.fullmatch(node.value)):
            mentions.add((0, reference[1]))
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in (getattr(node.test, name, "") for name in ("id", "attr")):
        skipped = "body"
    syntax = [type(node).__name__]
    for name in node._fields:
        value = getattr(node, name, None)
        if name != skipped and value is not None and value != []:
            syntax += name, _syntax(value, mentions)
    return syntax


def _is_docstring(node: object) -> bool:
    """A string on its own: the docstring of a module, class, function or attribute."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
