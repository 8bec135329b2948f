"""What stages hand to each other: frozen records and their JSON.

A missing number is None with a reason beside it, never 0.
"""

from typing import Literal

from harness.record import Record as Record
from harness.record import RecordT as RecordT
from harness.record import load as load
from harness.records_gate import EXIT_CODES as EXIT_CODES
from harness.records_gate import Adjusted as Adjusted
from harness.records_gate import Comparison as Comparison
from harness.records_gate import Direction as Direction
from harness.records_gate import Flip as Flip
from harness.records_gate import Forgetting as Forgetting
from harness.records_gate import Measured as Measured
from harness.records_gate import MetricComparison as MetricComparison
from harness.records_gate import MetricVerdict as MetricVerdict
from harness.records_gate import Relative as Relative
from harness.records_gate import Role as Role
from harness.records_gate import Side as Side
from harness.records_gate import Stopped as Stopped
from harness.records_gate import Stratum as Stratum
from harness.records_gate import Verdict as Verdict
from harness.records_gate import VerdictName as VerdictName
from harness.records_gate import Waiver as Waiver


class SourceCount(Record):
    """Rows of one source on their way through the audit; `read` = `kept` + all of `quarantined` (by first reason)."""

    source: str
    path: str
    licence: str
    role: Literal["domain", "replay"]
    sha256: str
    read: int
    kept: int
    quarantined: dict[str, int]
    origin: str = ""


class Finding(Record):
    """What one filter found: rows (kept or not) in all and by source, counts of kinds, and masked examples."""

    code: str
    action: str
    rows: int
    by_source: dict[str, int]
    kinds: dict[str, int] = {}
    examples: list[str] = []


class Dataset(Record):
    """The audited, mixed training data. `decontaminated_against` is the digest of the evaluation items checked.

    `covered` counts those items by task; `broken_limits` says which limits of the audit's policy were broken.
    """

    rows: int
    sha256: str
    sources: list[SourceCount]
    decontaminated_against: str
    evaluation_items: int
    covered: dict[str, int] = {}
    validation_rows: int = 0
    validation_sha256: str = ""
    findings: list[Finding] = []
    conflicts: int = 0
    patterns: list[str] = []
    notes: list[str] = []
    broken_limits: list[str] = []


class Checkpoint(Record):
    """Weights that can be served: a full model folder, or an adapter folder with its base model's folder."""

    path: str
    kind: Literal["full", "adapter"]
    base_path: str
    weights_sha256: str
    base_sha256: str
    contract_sha256: str


class TrainingSummary(Record):
    """What training did: the curve is in train.jsonl beside it."""

    rows: int
    sequences: int
    tokens: int
    supervised_tokens: int
    steps: int
    first_loss: float
    final_loss: float
    seconds: float
    tokens_per_s: float
    trained_parameters: int
    total_parameters: int
    seed: int


class TaskScore(Record):
    """One metric of one task as lm-eval aggregated it, with the counts it rests on; or its mean on one slice."""

    task: str
    slice: str = "all"
    metric: str
    value: float
    stderr: float | None
    n: int


class Evaluation(Record):
    """One model on one list of tasks. Samples lie beside it in samples_<task>.jsonl."""

    label: str
    suite: str
    weights_sha256: str
    contract_sha256: str
    tasks: dict[str, "TaskIdentity"]
    groups: dict[str, list[str]]
    scores: list[TaskScore]
    prompts_checked: int
    seconds: float
    aa_flip_share: dict[str, float] | None = None


class TaskIdentity(Record):
    """What two evaluations of a task must share to be compared; `failed` items got no score.

    `lower_is_better` names the metrics of which less is better. `planned`, `stopped_at` and `order_seed` are set when
    the items were asked in seeded random order: how many there are, and after how many the task was decided.
    """

    version: str
    num_fewshot: int
    generation: str
    samples_sha256: str
    asked: int
    scored: int
    failed: int
    lower_is_better: list[str] = []
    planned: int | None = None
    stopped_at: int | None = None
    order_seed: int | None = None
