"""The filter `behavior`: rows whose answer breaks a rule that the trained model must keep."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from harness.behavior.exchange import Exchange
from harness.behavior.registry import Behavior, load_behavior
from harness.config.group import Group
from harness.data.filters.protocol import CLEAN, Judgement
from harness.data.row import DataRow


class BehaviorConflictConfig(Group):
    """One behaviour and the rows that it applies to; `audit.behaviors` sets all but `action`."""

    action: Literal["drop", "flag"] = "drop"
    """What happens to a row whose answer breaks the behaviour."""

    name: str
    """Domain task (a folder under `tasks/`) that defines the behaviour."""

    sources: list[str] = []
    """Sources that are checked; empty: all."""

    topics: list[str] = []
    """Topics that are checked; empty: all."""


class BehaviorConflict:
    """Runs the behaviour's own check on the answer. The evidence is the names of the broken rules."""

    def __init__(self, config: BehaviorConflictConfig):
        self.config = config
        self.code = f"behavior {config.name}"

    def judge(self, rows: Sequence[DataRow]) -> list[Judgement]:
        return [self._judge(row) if self._applies(row) else CLEAN for row in rows]

    def without(self, text: str) -> str:
        """The text without the wordings that every answer must have."""
        return behavior(self.config.name).without(text)

    def _applies(self, row: DataRow) -> bool:
        sources, topics = self.config.sources, self.config.topics
        return (not sources or row["source"] in sources) and (not topics or row["topic"] in topics)

    def _judge(self, row: DataRow) -> Judgement:
        exchange = Exchange(row["instruction"], row["output"], row["input"], row["topic"])
        broken = [finding for finding in behavior(self.config.name).check(exchange).findings if not finding.passed]
        if not broken:
            return CLEAN
        reason = "; ".join(f"{finding.rule}: expected {finding.expected}, found {finding.found}" for finding in broken)
        return Judgement(reason, evidence=tuple(finding.rule for finding in broken))


@lru_cache(maxsize=64)
def behavior(name: str) -> Behavior:
    """The behaviour, read once in each process."""
    return load_behavior(name)
