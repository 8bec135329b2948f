"""A registry: the files, and a line in a text file for each promotion."""

from harness.checkpoint.history import HistoryEntry
from harness.registry.files import FileRegistry
from harness.registry.protocol import AuditInfo, PromotionRequest


class Announcing(FileRegistry):
    def promote(self, request: PromotionRequest, info: AuditInfo) -> HistoryEntry:
        entry = super().promote(request, info)
        with (self.folder / "announced.txt").open("a") as file:
            file.write(f"{entry.alias} is {entry.model}\n")
        return entry
