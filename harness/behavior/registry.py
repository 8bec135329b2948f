"""Behaviours by name: `tasks/<name>/behavior.yaml` says what is demanded, `kind` which check does it."""

import importlib
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import ValidationError

from harness.behavior.config import BehaviorConfig
from harness.behavior.exchange import Check, Exchange
from harness.config.experiment import read_yaml
from harness.core import resources
from harness.core.errors import ConfigError, nearest

KINDS = {
    "disclaimer": "harness.behavior.disclaimer:Disclaimer",
    "clinical_note": "harness.behavior.clinical_note:ClinicalNote",
    "summary_bullets": "harness.behavior.summary_bullets:SummaryBullets",
    "json_record": "harness.behavior.json_record:JsonRecord",
    "escalation": "harness.behavior.escalation:Escalation",
    "vocabulary": "harness.behavior.vocabulary:Vocabulary",
    "tone": "harness.behavior.tone:Tone",
    "over_behaviour": "harness.behavior.over_behaviour:OverBehaviour",
    "rules": "harness.behavior.rules:Rules",
}
FILE = "behavior.yaml"


@runtime_checkable
class Behavior(Protocol):
    """One demand of the organisation, checked on one exchange.

    `without`: the text without wordings that every answer shares (near-duplicate checks compare the rest).
    `leaked`: the first sign of the behaviour in an answer that should not carry it, or None.
    `item_faults`: what is wrong with an evaluation item's topic or details, in words.
    """

    @property
    def config(self) -> BehaviorConfig: ...

    def check(self, exchange: Exchange) -> Check: ...

    def without(self, text: str) -> str: ...

    def leaked(self, text: str) -> str | None: ...

    def item_faults(self, item: Exchange) -> list[str]: ...


def load_behavior(name: str) -> Behavior:
    """The behaviour of a domain task; raises ConfigError that names every fault of its file."""
    folders = behavior_folders()
    if name not in folders:
        raise ConfigError([f"behavior {name}: there is no tasks/{name}/{FILE}. {nearest(name, folders)}"])
    return read_behavior(folders[name] / FILE)


def behavior_folders() -> dict[str, Path]:
    """Task folders with a behaviour, by name; a user's own come after the shipped ones and replace them."""
    return {path.parent.name: path.parent for root in resources.task_roots() for path in sorted(root.glob(f"*/{FILE}"))}


def read_behavior(path: Path) -> Behavior:
    values: Any = read_yaml(path)
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in KINDS:
        raise ConfigError([f"{path}: kind: {kind!r} is not a behaviour. {nearest(str(kind), KINDS)}"])
    behavior_class = resolve(KINDS[kind])
    config_class = behavior_class.__init__.__annotations__["config"]
    try:
        behavior: Behavior = behavior_class(config_class.model_validate(values, context={"folder": path.parent}))
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
