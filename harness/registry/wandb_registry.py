"""The registry that mirrors aliases to W&B: files keep the history, and the model's W&B artifact gets the alias too.

Only a W&B server can move an alias. A model tracked offline is not on a server until `wandb sync`; after it,
`harness registry publish registry=wandb` moves the alias.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.checkpoint.history import HistoryEntry
from harness.config.experiment import TrackerConfig, read_yaml, validate
from harness.core.console import say
from harness.core.errors import ConfigError, EnvironmentFault, MissingDependency
from harness.core.layout import CONFIG
from harness.lineage.verify import Link
from harness.registry.files import FileRegistry
from harness.registry.protocol import AuditInfo, PromotionRequest
from harness.track.wandb_tracker import artifact_name


class WandbRegistry:
    """The file registry, with every alias repeated in W&B. A failure there prints a warning and undoes nothing."""

    def __init__(self, folder: Path):
        self.files = FileRegistry(folder)

    def current(self, alias: str) -> HistoryEntry | None:
        return self.files.current(alias)

    def history(self, alias: str | None = None) -> list[HistoryEntry]:
        return self.files.history(alias)

    def create(self, info: AuditInfo) -> HistoryEntry:
        return self.files.create(info)

    def promote(self, request: PromotionRequest, info: AuditInfo) -> HistoryEntry:
        return self._move_in_wandb(self.files.promote(request, info))

    def rollback(self, info: AuditInfo, to: str | None = None) -> HistoryEntry:
        return self._move_in_wandb(self.files.rollback(info, to))

    def set_policy(self, info: AuditInfo, policy: dict[str, Any]) -> HistoryEntry:
        return self.files.set_policy(info, policy)

    def verify(self) -> list[Link]:
        """The links of the files, and for each alias whether W&B's points to the same weights."""
        return [*self.files.verify(), *self._alias_links()]

    def publish(self) -> list[str]:
        """Moves every alias in W&B to the model it points to here; returns the artifacts' names.

        Raises EnvironmentFault when W&B cannot be reached or lacks a model.
        """
        return [self._move(entry) for entry in self._current_entries()]

    def _current_entries(self) -> list[HistoryEntry]:
        aliases = sorted({entry.alias for entry in self.history()})
        return [entry for alias in aliases if (entry := self.current(alias)) is not None]

    def _move_in_wandb(self, entry: HistoryEntry) -> HistoryEntry:
        try:
            say(f"· W&B: {self._move(entry)} is {entry.alias}")
        except EnvironmentFault as fault:
            say(f"warning: the alias moved in the registry but not in W&B: {fault}")
        return entry

    def _move(self, entry: HistoryEntry) -> str:
        found = self._artifact(entry)
        if entry.alias not in found.aliases:
            found.aliases = [*found.aliases, entry.alias]  # W&B removes it from the version that had it
            found.save()
        return str(found.qualified_name)

    def _alias_links(self) -> Iterator[Link]:
        for entry in self._current_entries():
            name = f"W&B alias {entry.alias}"
            try:
                artifact = self._artifact(entry)
            except EnvironmentFault as fault:
                yield Link(name, f"not checked: {fault}")
                continue
            full_name = str(artifact.qualified_name)
            problem = f"{full_name} lacks the alias; run: harness registry publish registry=wandb"
            yield Link(name, full_name, "" if entry.alias in artifact.aliases else problem)

    def _artifact(self, entry: HistoryEntry) -> Any:
        """The version of the run's model artifact with the entry's weights. Raises EnvironmentFault without one."""
        name, tracker = self._tracking(entry)
        api, wandb = _api()
        entity = f"{api.default_entity}/" if api.default_entity else ""
        path = f"{entity}{tracker.project}/{artifact_name(f'{name}-model')}"
        try:
            for version in api.artifacts(type_name="model", name=path):
                if version.metadata.get("sha256") == entry.digests.get("checkpoint", entry.digests["weights"]):
                    return version
        except (wandb.errors.Error, ValueError) as error:
            raise EnvironmentFault(f"{path} cannot be read: {' '.join(str(error).split())}") from None
        raise EnvironmentFault(
            f"{path} has no version with these weights. First: wandb sync RUN/wandb/offline-run-*, then "
            "harness registry publish registry=wandb"
        )

    def _tracking(self, entry: HistoryEntry) -> tuple[str, TrackerConfig]:
        """Name and tracker settings of the promoted run; raises EnvironmentFault when it was not tracked with W&B."""
        path: Path = self.files.model_folder(entry) / CONFIG
        try:
            values = read_yaml(path)
            name, tracker = str(values["name"]), validate(TrackerConfig, values["tracker"])
        except (ConfigError, KeyError, TypeError):
            raise EnvironmentFault(f"{path} is missing or does not say how the run was tracked") from None
        if tracker.kind != "wandb":
            raise EnvironmentFault("the run was not tracked with W&B")
        return name, tracker


def _api() -> tuple[Any, Any]:
    try:
        import wandb
    except ImportError:
        raise MissingDependency("wandb", "registry=wandb", "engine") from None
    from harness.track.wandb_tracker import logged_in

    if not logged_in():
        raise EnvironmentFault(
            "aliases live on the W&B server, and there is no key for it. Run: wandb login, then wandb sync "
            "RUN/wandb/offline-run-*, then harness registry publish registry=wandb"
        )
    return wandb.Api(), wandb
