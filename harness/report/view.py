"""Everything that a report shows. What a run did not make is None or empty."""

from dataclasses import dataclass, field

from harness.prompt.contract import Contract
from harness.records.gate import Comparison, Verdict
from harness.records.stages import Dataset, Evaluation, TrainingSummary
from harness.report.domain import TaskFailures


@dataclass(frozen=True)
class RunView:
    """One run, or one decision of the gate on evaluations made elsewhere.

    `created` is ISO 8601. `curve` has one row per training step: step, loss, learning_rate, tokens_per_s.
    `failures` are the candidate's answers that break a rule of a domain task. `commands` repeat the run. `digests` maps
    the name of an input or output to its sha256.
    """

    name: str
    run_id: str
    created: str
    verdict: Verdict
    comparison: Comparison
    dataset: Dataset | None = None
    training: TrainingSummary | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    failures: list[TaskFailures] = field(default_factory=list)
    contract: Contract | None = None
    commands: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
