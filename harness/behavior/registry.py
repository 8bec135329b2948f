"""Behaviours by name: `tasks/<name>/behavior.yaml` says what is demanded, `kind` which check does it."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import ValidationError

from harness.behavior.config import BehaviorConfig
from harness.behavior.exchange import Check, Exchange
from harness.config.experiment import read_yaml
from harness.core import plugins, resources
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

    A class of a kind is built from its settings: `__init__(self, config: …)` with a subclass of BehaviorConfig. One
    that inherits from Behavior has to write `check` alone.
    """

    @abstractmethod
    def check(self, exchange: Exchange) -> Check:
        """One finding for each rule that applies, and the metrics that a task reports for the exchange."""

    def without(self, text: str) -> str:
        """The text without wordings that every answer shares (near-duplicate checks compare the rest)."""
        return text

    def leaked(self, text: str) -> str | None:
        """The first sign of the behaviour in an answer that should not carry it, or None."""
        return None

    def item_faults(self, item: Exchange) -> list[str]:
        """What is wrong with an evaluation item's topic or details, in words."""
        return []


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
    """The behaviour of one behavior.yaml. Raises ConfigError that names every fault of the file, and EnvironmentFault
    for a kind of an installed package that cannot be used."""
    kind, values = _kind(path)
    known = plugins.names("behaviors", KINDS)
    if kind not in known:
        raise ConfigError([f"{path}: kind: {kind!r} is not a behaviour. {nearest(str(kind), known)}"])
    behavior_class = plugins.load("behaviors", kind, KINDS, Behavior)
    config_class = plugins.settings_class("behaviors", kind, behavior_class, BehaviorConfig)
    try:
        config = config_class.model_validate(values, context={"folder": path.parent})
    except ValidationError as error:
        raise ConfigError(
            f"{path}: {'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        ) from None
    behavior: Behavior = plugins.built("behaviors", kind, behavior_class, config)
    return behavior


def plugins_in_use() -> dict[str, str]:
    """Package, version and code of every installed kind that a behavior.yaml names, for a stage's fingerprint."""
    installed = plugins.names("behaviors", ())
    return plugins.plugin_digest("behaviors", _kinds_in_use() if installed else ())


def _kinds_in_use() -> Iterator[str]:
    for folder in behavior_folders().values():
        with suppress(ConfigError):  # of a broken file: whoever uses that task is told
            yield str(_kind(folder / FILE)[0])


def _kind(path: Path) -> tuple[Any, Any]:
    """The kind that a behavior.yaml names, with all its values. Raises ConfigError for a broken file."""
    values: Any = read_yaml(path)
    return (values.get("kind") if isinstance(values, dict) else None), values
