"""A behaviour: the answer has a set number of lines."""

from harness.behavior.config import BehaviorConfig
from harness.behavior.exchange import Check, Exchange, RuleFinding
from harness.behavior.registry import Behavior


class HaikuConfig(BehaviorConfig):
    lines: int = 3


class Haiku(Behavior):
    def __init__(self, config: HaikuConfig):
        self.config = config

    def check(self, exchange: Exchange) -> Check:
        lines = len(exchange.response.strip().splitlines())
        finding = RuleFinding("haiku", lines == self.config.lines, f"{self.config.lines} lines", f"{lines} lines")
        return Check([finding], {"pass": float(finding.passed)})
