"""A registry: the files, and a line in a text file for each promotion."""

from harness.checkpoint.history import Entry
from harness.registry.files import FileRegistry
from harness.registry.protocol import Act, Submission


class Announcing(FileRegistry):
    def promote(self, submission: Submission, act: Act) -> Entry:
        entry = super().promote(submission, act)
        with (self.folder / "announced.txt").open("a") as file:
            file.write(f"{entry.alias} is {entry.model}\n")
        return entry
