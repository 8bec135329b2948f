"""What stages hand to each other: frozen records and their JSON.

A missing number is None with a reason beside it, never 0.
"""

from typing import Literal

from harness.records.base import Record as Record
from harness.records.base import RecordT as RecordT
from harness.records.base import load as load
from harness.records.gate import EXIT_CODES as EXIT_CODES
from harness.records.gate import Adjusted as Adjusted
from harness.records.gate import Comparison as Comparison
from harness.records.gate import Direction as Direction
from harness.records.gate import Flip as Flip
from harness.records.gate import Forgetting as Forgetting
from harness.records.gate import Measured as Measured
from harness.records.gate import MetricComparison as MetricComparison
from harness.records.gate import MetricVerdict as MetricVerdict
from harness.records.gate import Relative as Relative
from harness.records.gate import Role as Role
from harness.records.gate import Side as Side
from harness.records.gate import Stopped as Stopped
from harness.records.gate import Stratum as Stratum
from harness.records.gate import Verdict as Verdict
from harness.records.gate import VerdictName as VerdictName
from harness.records.gate import Waiver as Waiver


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


class LongRows(Record):
    """Rows over the sequence length: tokens of each dropped one, parts of each split one, by row id."""

    policy: Literal["error", "drop", "split"]
    limit: int
    dropped: dict[str, int] = {}
    split: dict[str, int] = {}


class Examined(Record):
    """A checkpoint that was evaluated during training; `slack` is how far its worst guard is above its margin."""

    step: int
    slack: float
    target: float
    verdict: VerdictName
    failed_guards: list[str] = []


class TrainingSummary(Record):
    """What training did: the curve is in train.jsonl beside it.

    `order_sha256` is the digest of every token in the order of training. `kept_step` is the step whose weights were
    kept. `parts_at_once` of a step were computed side by side; `threads` are PyTorch's in each process, from step 1 on
    and after each time that training went on: the last bits depend on both. `padding_share` is the share of the
    sequences' length that holds no row. The validation losses (nats a supervised token) are those of the kept
    weights and of the base model, on rows set aside from training.
    """

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
    method: str = "lora"
    padding_share: float | None = None
    validation_rows: int = 0
    validation_loss: float | None = None
    base_validation_loss: float | None = None
    order_sha256: str = ""
    resumed_at: list[int] = []
    kept_step: int | None = None
    examined: list[Examined] = []
    long_rows: LongRows | None = None
    sources: dict[str, int] = {}
    peak_memory_gib: float | None = None
    processes: int = 1
    parts_at_once: int | None = None
    threads: list[int] = []
    hardware: dict[str, str] = {}
    versions: dict[str, str] = {}


class TaskScore(Record):
    """One metric of one task as lm-eval aggregated it, with the counts it rests on; or its mean on one slice."""

    task: str
    slice: str = "all"
    metric: str
    value: float
    stderr: float | None
    n: int


class Evaluation(Record):
    """One model on one list of tasks. Samples lie beside it in samples_<task>.jsonl.

    Of the distinct `requests`, `reused_requests` were answered by an earlier process (in other batches),
    `failed_requests` got no answer in spite of retries, `refused_requests` the server will always refuse, and of
    `merged_requests` (continuations) the first token would have merged with the prompt. `prompts_checked` are those
    whose prompt ids were verified. `aa_flip_share` is the share of items that change when the same model is asked
    twice, by task; None where that was not tried. `judge_fault` is why the suite's judge could not be asked.
    """

    label: str
    suite: str
    weights_sha256: str
    contract_sha256: str
    tasks: dict[str, "TaskIdentity"]
    groups: dict[str, list[str]]
    scores: list[TaskScore]
    prompts_checked: int
    seconds: float
    requests: int = 0
    reused_requests: int = 0
    failed_requests: int = 0
    refused_requests: int = 0
    merged_requests: int = 0
    aa_flip_share: dict[str, float] | None = None
    judge_fault: str | None = None


class TaskIdentity(Record):
    """What two evaluations of a task must share to be compared; `failed` items got no score, `failures` says why.

    `lower_is_better` names the metrics of which less is better, `undirected` those of which the task says neither. Of
    a task evaluated in looks, `stopped_at` items of `planned` were asked, in the seeded random order of `order_seed`.
    """

    version: str
    num_fewshot: int
    generation: str
    samples_sha256: str
    asked: int
    scored: int
    failed: int
    lower_is_better: list[str] = []
    failures: dict[str, int] = {}
    planned: int | None = None
    stopped_at: int | None = None
    order_seed: int | None = None
    undirected: list[str] = []
