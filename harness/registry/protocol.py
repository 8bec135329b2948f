"""What every registry does, what is handed to it, and which there are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.checkpoint.history import Entry
from harness.core import plugins
from harness.core.errors import UsageError, nearest
from harness.lineage.chain import Chain, EvidencePaths
from harness.lineage.verify import Link


@dataclass(frozen=True)
class AuditInfo:
    """Who moves an alias, and why."""

    alias: str
    who: str
    why: str


@dataclass(frozen=True)
class PromotionRequest:
    """A candidate that passed every check, and the head (hash) of the alias that it was checked against."""

    run_id: str
    paths: EvidencePaths
    chain: Chain
    extras: dict[str, Path]
    digests: dict[str, str]
    policy: dict[str, Any]
    head: str


class Registry(Protocol):
    """Aliases, the models behind them, and their history. The class of a kind is opened on a folder:
    `__init__(self, folder: Path)`."""

    def current(self, alias: str) -> Entry | None:
        """The entry that put the alias where it is."""

    def history(self, alias: str | None = None) -> list[Entry]:
        """Entries, oldest first. Raises EvidenceFault when they were edited."""

    def promote(self, request: PromotionRequest, info: AuditInfo) -> Entry:
        """Keeps the model and moves the alias. Raises PromotionRefused when the alias moved since the checks."""

    def rollback(self, info: AuditInfo, to: str | None = None) -> Entry:
        """Moves the alias to the model before, or to the named one, after a check of all its files."""

    def demand(self, info: AuditInfo, policy: dict[str, Any]) -> Entry:
        """Changes the policy that the alias demands."""

    def verify(self) -> list[Link]:
        """Checks the history, and every model in it."""


# The shipped registries by name; installed packages add to them (entry points tuning_harness.registries).
REGISTRIES = {
    "files": "harness.registry.files:FileRegistry",
    "wandb": "harness.registry.wandb_registry:WandbRegistry",
}


def open_registry(kind: str, folder: Path) -> Registry:
    """The registry of that kind on a folder. Raises UsageError for an unknown kind, and EnvironmentFault for one of an
    installed package that cannot be used."""
    known = plugins.names("registries", REGISTRIES)
    if kind not in known:
        raise UsageError(f"registry={kind}: no such registry. {nearest(kind, known)}")
    registry_class = plugins.load("registries", kind, REGISTRIES, Registry)
    registry: Registry = plugins.built("registries", kind, registry_class, folder)
    return registry
