"""What stages hand to each other: frozen records and their JSON.

A missing number is None with a reason beside it, never 0.
"""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import DataError

VerdictName = Literal["PASS", "FAIL", "INCONCLUSIVE", "INVALID"]
Role = Literal["guard", "target", "info"]
EXIT_CODES: dict[VerdictName, int] = {"PASS": 0, "FAIL": 10, "INCONCLUSIVE": 11, "INVALID": 12}


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), populate_by_name=True)

    def save(self, path: Path) -> None:
        path.write_text(self.model_dump_json(indent=2, by_alias=True) + "\n")


RecordT = TypeVar("RecordT", bound=Record)


def load(kind: type[RecordT], path: Path) -> RecordT:
    """The record in a JSON file; raises DataError when it is missing or not one."""
    try:
        return kind.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path} is not a {kind.__name__} record: {where}: {first['msg']}") from None


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
    kept. `padding_share` is the share of the sequences' length that holds no row. The validation losses (nats a
    supervised token) are those of the kept weights and of the base model, on rows set aside from training.
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


class TaskIdentity(Record):
    """What two evaluations of a task must share to be compared; `failed` items got no score.

    `lower_is_better` names the metrics whose values are negated before they are compared.
    """

    version: str
    num_fewshot: int
    generation: str
    samples_sha256: str
    asked: int
    scored: int
    failed: int
    lower_is_better: list[str] = []


class Side(Record):
    """Who was compared: label and digests."""

    label: str
    weights_sha256: str
    contract_sha256: str


class MetricComparison(Record):
    """One metric on the items both models answered, oriented so that larger is better.

    `baseline` and `candidate` are means; `ci_low`, `ci_high` bound `delta` at 95%, two-sided.
    Right/wrong metrics have the flips: `only_baseline_right` (1 → 0, forgetting), `only_candidate_right` (0 → 1).
    Other metrics have None there, and `differences` (candidate − baseline) item by item.
    """

    suite: str
    task: str
    slice: str = "all"
    metric: str
    n: int
    baseline: float
    candidate: float
    delta: float
    ci_low: float
    ci_high: float
    only_baseline_right: int | None
    only_candidate_right: int | None
    differences: list[float] | None = None

    @property
    def key(self) -> str:
        return f"{self.suite}/{self.task}/{self.metric}"


class Flip(Record):
    """An item that one model got right and the other wrong."""

    task: str
    metric: str
    item: str
    prompt: str
    baseline_response: str
    candidate_response: str
    baseline_value: float
    candidate_value: float


class Comparison(Record):
    """Candidate against baseline. `faults` names whatever makes the evidence incomparable."""

    schema_version: int = Field(default=1, alias="schema")
    baseline: Side
    candidate: Side
    metrics: list[MetricComparison]
    flips: list[Flip]
    faults: list[str]


class MetricVerdict(Record):
    """One line of the verdict; names and meaning as in INTERFACE."""

    suite: str
    task: str
    slice: str
    metric: str
    role: Role
    n: int
    baseline: float
    candidate: float
    delta: float
    ci_low: float
    ci_high: float
    margin: float | None
    floor: float | None
    p_noninferior: float | None
    p_harm: float | None
    verdict: VerdictName
    reason: str
    n_needed: int | None
    only_baseline_right: int | None
    only_candidate_right: int | None


class Verdict(Record):
    """The decision on a candidate. `exit_code` follows the verdict."""

    schema_version: int = Field(default=1, alias="schema")
    verdict: VerdictName
    exit_code: int
    policy: str
    reasons: list[str]
    baseline: Side
    candidate: Side
    metrics: list[MetricVerdict]
