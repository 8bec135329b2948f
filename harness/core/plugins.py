"""Plugins: what an installed package can add to the harness, through entry points in four groups.

    tuning_harness.behaviors     a kind of behaviour, named by `kind` in behavior.yaml
    tuning_harness.filters       a filter of the audit, named by audit.filters.<name>
    tuning_harness.trackers      a tracker, named by tracker.kind
    tuning_harness.registries    a registry backend, named by registry=<name>

What the harness itself ships is in tables of "module:attribute" next to the protocols. Both are imported only when
their name is used. A name has one owner: a plugin replaces neither what is shipped nor another plugin. docs/plugins.md
explains how to write one.
"""

import inspect
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar, get_type_hints

from harness.core.errors import ConfigError, EnvironmentFault, HarnessError, nearest
from harness.core.store import sha256_file, sha256_tree

KINDS_OF_PLUGIN = {"behaviors": "behaviour", "filters": "filter", "trackers": "tracker", "registries": "registry"}
ClassT = TypeVar("ClassT")


def resolve(target: str) -> Any:
    """The object that `module:attribute` names."""
    return resolve_name(target)


def names(group: str, shipped: Iterable[str]) -> list[str]:
    """All names of a group, shipped or installed, sorted. Imports no plugin."""
    return sorted({*shipped, *(entry.name for entry in _entries(group))})


def load(group: str, name: str, shipped: Mapping[str, str], protocol: type) -> Any:
    """The class named `name`: from the table `shipped`, else from an installed package.

    Raises ConfigError for an unknown name. Raises EnvironmentFault for a name with two owners, a plugin that cannot be
    imported, and one that does not implement `protocol`.
    """
    kind, found = KINDS_OF_PLUGIN[group], _entries(group, name)
    if name in shipped and found:
        raise EnvironmentFault(
            f"{kind} {name!r}: both the harness and {_described(found[0])} define this name. "
            f"Rename the entry point, or remove the package: {_removal(found[0])}"
        )
    if name in shipped:
        return resolve(shipped[name])
    if not found:
        raise ConfigError([f"unknown {kind} {name!r}. {nearest(name, names(group, shipped))}"])
    if len(found) > 1:
        raise EnvironmentFault(
            f"{kind} {name!r}: {len(found)} packages define this name: {'; '.join(map(_described, found))}. "
            f"Remove all but one: {' or '.join(map(_removal, found))}"
        )
    try:
        loaded = found[0].load()
    except (Exception, SystemExit) as error:
        raise refusal(group, name, f"it cannot be imported: {_message(error)}") from error
    if misfits := _misfits(loaded, protocol):
        raise refusal(group, name, f"{', '.join(misfits)} (see {protocol.__module__}.{protocol.__name__})")
    return loaded


def settings_class(group: str, name: str, loaded: Any, base: type[ClassT]) -> type[ClassT]:
    """The settings class of `loaded`: the annotation of the parameter `config` of its `__init__`.

    Raises EnvironmentFault if that is not a subclass of `base`.
    """
    try:
        found = get_type_hints(loaded.__init__).get("config")
    except Exception as error:
        raise refusal(group, name, f"the annotations of its __init__ cannot be read: {_message(error)}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        wanted = f"{base.__module__}.{base.__name__}"
        raise refusal(group, name, f"its __init__ needs a parameter 'config' annotated with a subclass of {wanted}")
    return found


def built(group: str, name: str, loaded: Any, *arguments: Any) -> Any:
    """`loaded(*arguments)`. Raises EnvironmentFault for any error of a plugin except a HarnessError."""
    try:
        return loaded(*arguments)
    except HarnessError:
        raise
    except Exception as error:
        if _entries(group, name):
            raise refusal(group, name, f"it cannot be built: {_message(error)}") from error
        raise


def refusal(group: str, name: str, cause: str) -> EnvironmentFault:
    """The error for a plugin that cannot be used: its name, its package, the cause, the fix."""
    entry = _entries(group, name)[0]
    return EnvironmentFault(
        f"{KINDS_OF_PLUGIN[group]} {name!r} of {_described(entry)} cannot be used: {cause}. "
        f"Fix the package, install another version, or remove it: {_removal(entry)}"
    )


def plugin_digest(group: str, used: Iterable[str]) -> dict[str, str]:
    """Package, version and code digest of each plugin among the names `used`, for a stage's fingerprint.

    Keyed by `group/name`; empty if none of the names is a plugin's. The code is the module, or the whole package that
    contains it. Imports no plugin.
    """
    wanted = set(used)
    return {
        f"{group}/{entry.name}": f"{_package(entry)} {_code_digest(entry.module)}"
        for entry in _entries(group)
        if entry.name in wanted
    }


def _entries(group: str, name: str | None = None) -> list[EntryPoint]:
    return [entry for entry in _on_path(group, tuple(sys.path)) if name in (None, entry.name)]


@cache
def _on_path(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The entry points of a group. Reading all metadata takes about 20 ms, so it is done once per state of sys.path."""
    return tuple(entry_points(group=f"tuning_harness.{group}"))


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unnamed package"


def _described(entry: EntryPoint) -> str:
    return f"the package {_package(entry)} (entry point {entry.name} = {entry.value})"


def _removal(entry: EntryPoint) -> str:
    return f"pip uninstall {entry.dist.name if entry.dist else entry.module}"


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(".")


def _misfits(loaded: Any, protocol: type) -> list[str]:
    """In words, how a class fails to implement the public methods of a protocol."""
    if not isinstance(loaded, type):
        return [f"it is a {type(loaded).__name__}, not a class"]
    misfits = []
    for name, method in vars(protocol).items():
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        own = inspect.getattr_static(loaded, name, None)
        if not callable(getattr(loaded, name, None)) or getattr(own, "__isabstractmethod__", False):
            misfits.append(f"it has no method '{name}'")
        elif inspect.isfunction(own) and not _takes(own, list(inspect.signature(method).parameters)):
            misfits.append(f"its method '{name}' must take {inspect.signature(method)}")
    return misfits


def _takes(method: Any, arguments: list[str]) -> bool:
    try:
        inspect.signature(method).bind(*arguments)
    except TypeError:
        return False
    return True


def _code_digest(module: str) -> str:
    """SHA-256 (hex) of the package that contains a module, or of the module's file. Empty if there is no file.

    Several distributions can share a namespace package, so the first part below it counts. Namespace packages have no
    code: looking below them imports nothing.
    """
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        try:
            spec = find_spec(".".join(parts[:depth]))
        except (ImportError, ValueError):
            return ""
        if spec is None:
            return ""
        if spec.origin is not None:
            path = Path(spec.origin)
            if not path.is_file():
                return ""
            return sha256_tree(path.parent) if spec.submodule_search_locations else sha256_file(path)
    return ""
