"""A filter: the answer is largely in capitals."""

from collections.abc import Sequence
from typing import Literal

from harness.config.group import Group, Share
from harness.data.filters.protocol import CLEAN, Judgement
from harness.data.row import DataRow


class ShoutingConfig(Group):
    action: Literal["drop", "flag"] = "drop"
    share: Share = 0.5


class Shouting:
    code = "shouting"

    def __init__(self, config: ShoutingConfig):
        self.config = config

    def judge(self, rows: Sequence[DataRow]) -> list[Judgement]:
        return [self._judge(row["output"]) for row in rows]

    def _judge(self, text: str) -> Judgement:
        share = sum(sign.isupper() for sign in text) / max(1, sum(sign.isalpha() for sign in text))
        return Judgement(f"{share:.0%} capitals", evidence=("capitals",)) if share > self.config.share else CLEAN
