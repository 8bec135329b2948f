"""Behaviours by name: `tasks/<name>/behavior.yaml` says what is demanded, `kind` which check does it."""

import importlib
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from harness import resources
from harness.behavior.exchange import Check, Exchange
from harness.config import read_yaml
from harness.errors import ConfigError, nearest

KINDS = {"disclaimer": "harness.behavior.disclaimer:Disclaimer"}
FILE = "behavior.yaml"


class Behavior(Protocol):
    """One demand of the organisation, checked on one exchange."""

    config: BaseModel

    def check(self, exchange: Exchange) -> Check: ...

    def without(self, text: str) -> str: ...


def load_behavior(name: str) -> Behavior:
    """The behaviour of a domain task; raises ConfigError that names every fault of its file."""
    folders = {path.parent.name: path.parent for root in resources.task_roots() for path in root.glob(f"*/{FILE}")}
    if name not in folders:
        raise ConfigError([f"behavior {name}: there is no tasks/{name}/{FILE}. {nearest(name, folders)}"])
    return read_behavior(folders[name] / FILE)


def read_behavior(path: Path) -> Behavior:
    values: Any = read_yaml(path)
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in KINDS:
        raise ConfigError([f"{path}: kind: {kind!r} is not a behaviour. {nearest(str(kind), KINDS)}"])
    behavior_class = resolve(KINDS[kind])
    config_class = behavior_class.__init__.__annotations__["config"]
    try:
        behavior: Behavior = behavior_class(config_class.model_validate(values))
        return behavior
    except ValidationError as error:
        raise ConfigError(
            f"{path}: {'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        ) from None


def resolve(target: str) -> Any:
    """The object that `module:attribute` names."""
    module, attribute = target.split(":")
    return getattr(importlib.import_module(module), attribute)
