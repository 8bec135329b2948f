"""The interface of a registry, what it receives, and how one is opened."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.checkpoint.history import HistoryEntry
from harness.core import plugins
from harness.core.errors import UsageError, nearest
from harness.lineage.chain import Chain, EvidencePaths
from harness.lineage.verify import Link


@dataclass(frozen=True)
class AuditInfo:
    """Who changes which alias, and why; every entry of the history keeps it."""

    alias: str
    who: str
    why: str


@dataclass(frozen=True)
class PromotionRequest:
    """A candidate that passed every check.

    `paths` and `chain` are its evidence, `extras` further files to keep (by their path in the copy), `digests` what the
    history records, `policy` the policy of its verdict. `head` is the hash of the alias's entry at the time of the
    checks; empty where the alias had none.
    """

    run_id: str
    paths: EvidencePaths
    chain: Chain
    extras: dict[str, Path]
    digests: dict[str, str]
    policy: dict[str, Any]
    head: str


class Registry(Protocol):
    """Aliases, the models they point to, and their history.

    A registry's class is built from its folder: `__init__(self, folder: Path)`.
    """

    def current(self, alias: str) -> HistoryEntry | None:
        """The entry of the model that the alias points to; None where it points to none."""

    def history(self, alias: str | None = None) -> list[HistoryEntry]:
        """The entries (of one alias), oldest first. Raises EvidenceFault when the history was edited."""

    def create(self, info: AuditInfo) -> HistoryEntry:
        """Makes the alias, and the registry where there is none; returns the new entry. Nothing else makes either.

        Raises UsageError for an alias that exists.
        """

    def promote(self, request: PromotionRequest, info: AuditInfo) -> HistoryEntry:
        """Keeps the model and moves the alias; returns the new entry.

        Raises PromotionRefused when the alias moved, or requires a stricter policy, since the checks.
        """

    def rollback(self, info: AuditInfo, to: str | None = None) -> HistoryEntry:
        """Moves the alias back to the previous model, or to the one named `to`; returns the new entry.

        Raises EvidenceFault when the model's files changed, and UsageError when there is no such model.
        """

    def set_policy(self, info: AuditInfo, policy: dict[str, Any]) -> HistoryEntry:
        """Sets the policy that the alias requires of its next candidate; returns the new entry."""

    def verify(self) -> list[Link]:
        """Checks the history, and every file of every model in it."""


# The shipped registries by name; installed packages add to them (entry points tuning_harness.registries).
REGISTRIES = {
    "files": "harness.registry.files:FileRegistry",
    "wandb": "harness.registry.wandb_registry:WandbRegistry",
}


def open_registry(kind: str, folder: Path) -> Registry:
    """The registry of this kind in `folder`.

    Raises UsageError for an unknown kind, and EnvironmentFault for a plugin that cannot be used.
    """
    known = plugins.names("registries", REGISTRIES)
    if kind not in known:
        raise UsageError(f"registry={kind}: there is no such registry. {nearest(kind, known)}")
    registry_class = plugins.load("registries", kind, REGISTRIES, Registry)
    registry: Registry = plugins.built("registries", kind, registry_class, folder)
    return registry
