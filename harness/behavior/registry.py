"""Behaviours by name: `tasks/<name>/behavior.yaml` holds the demands, and its `kind` names the check."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from harness.behavior.config import BehaviorConfig
from harness.behavior.exchange import Check, Exchange
from harness.config.experiment import read_yaml, validate
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
    "approved": "harness.behavior.approved:Approved",
    "rules": "harness.behavior.rules:Rules",
}
FILE = "behavior.yaml"


@runtime_checkable
class Behavior(Protocol):
    """A demand of the organisation, as a check on one exchange.

    A behaviour is built from its settings: `__init__(self, config: …)`, annotated with a subclass of BehaviorConfig.
    A class that inherits from Behavior only has to define `check`.
    """

    @abstractmethod
    def check(self, exchange: Exchange) -> Check:
        """One finding for each rule that applies, with the metrics that a task reports for the exchange."""

    def without(self, text: str) -> str:
        """The text without the wordings that every answer must have. Near-duplicates are looked for in the rest."""
        return text

    def leaked(self, text: str) -> str | None:
        """The first sign of the behaviour in an answer that should not carry it, or None."""
        return None

    def item_errors(self, item: Exchange) -> list[str]:
        """What is wrong with the topic or the details of an evaluation item: one message each."""
        return []


def load_behavior(name: str) -> Behavior:
    """The behaviour of a domain task. Raises ConfigError that lists every error of its file."""
    folders = behavior_folders()
    if name not in folders:
        raise ConfigError([f"behavior {name}: there is no tasks/{name}/{FILE}. {nearest(name, folders)}"])
    return read_behavior(folders[name] / FILE)


def behavior_folders() -> dict[str, Path]:
    """Task folders that hold a behaviour, by name. A folder in the working directory replaces a shipped one."""
    return {path.parent.name: path.parent for root in resources.task_roots() for path in sorted(root.glob(f"*/{FILE}"))}


def read_behavior(path: Path) -> Behavior:
    """The behaviour of one behavior.yaml.

    Raises ConfigError that lists every error of the file, and EnvironmentFault for a kind of an installed package that
    cannot be used.
    """
    kind, values = _kind(path)
    known = plugins.names("behaviors", KINDS)
    if kind not in known:
        raise ConfigError([f"{path}: kind: there is no kind {kind!r}. {nearest(str(kind), known)}"])
    behavior_class = plugins.load("behaviors", kind, KINDS, Behavior)
    config_class = plugins.settings_class("behaviors", kind, behavior_class, BehaviorConfig)
    try:
        config = validate(config_class, values, context={"folder": path.parent})
    except ConfigError as error:
        whole = f"{config_class.__name__}: "  # an error of several keys together names them itself
        found = (fault.removeprefix(whole).removesuffix(" (given: a group of keys)") for fault in error.errors)
        raise ConfigError(f"{path}: {fault}" for fault in found) from None
    behavior: Behavior = plugins.built("behaviors", kind, behavior_class, config)
    return behavior


def plugins_in_use() -> dict[str, str]:
    """Package, version and code of every installed kind that a behavior.yaml names, for the fingerprint of a stage."""
    installed = plugins.names("behaviors", ())
    return plugins.plugin_digest("behaviors", _kinds_in_use() if installed else ())


def _kinds_in_use() -> Iterator[str]:
    for folder in behavior_folders().values():
        with suppress(ConfigError):  # a broken file is reported when its task is used
            yield str(_kind(folder / FILE)[0])


def _kind(path: Path) -> tuple[Any, Any]:
    """The kind that a behavior.yaml names, and all its values. Raises ConfigError for a broken file."""
    values: Any = read_yaml(path)
    return (values.get("kind") if isinstance(values, dict) else None), values
