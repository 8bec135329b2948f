"""Records that the stages of a run write and read.

A missing number is None with a reason next to it, never 0.
"""

from typing import Literal

from pydantic import Field

from harness.records.base import Record
from harness.records.gate import VerdictName


class SourceCount(Record):
    """Rows of one source on their way through the audit; `read` = `kept` + all of `quarantined`."""

    source: str
    """Name of the source."""

    path: str
    """File, folder or hub id that was read."""

    licence: str
    """Licence as configured, or `unknown`."""

    role: Literal["domain", "replay"]
    """Whether the rows teach the new behaviour or guard against forgetting."""

    sha256: str
    """Digest of the files read; of the commit for a hub dataset."""

    read: int
    """Records read, malformed ones included."""

    kept: int
    """Rows kept."""

    quarantined: dict[str, int]
    """Rows set aside, by their first reason."""

    origin: str = ""
    """Where the rows come from, as configured; else the hub id."""


class FilterFinding(Record):
    """The rows that one filter found, kept or not."""

    code: str
    """Reason code of the filter."""

    action: str
    """What the audit did with the rows: drop, redact or flag; several where sources have their own."""

    rows: int
    """Rows found."""

    by_source: dict[str, int]
    """Rows found, by source."""

    kinds: dict[str, int] = {}
    """Findings, by kind."""

    examples: list[str] = []
    """A few findings with identifiers masked."""


class Dataset(Record):
    """The audited, mixed training data."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of the file's format."""

    rows: int
    """Rows to train on."""

    sha256: str
    """Digest of the training rows."""

    sources: list[SourceCount]
    """Counts of each source."""

    decontaminated_against: str
    """Digest of the evaluation items that rows were checked against."""

    evaluation_items: int
    """Number of evaluation items that rows were checked against."""

    covered: dict[str, int] = {}
    """Those evaluation items, by task."""

    validation_rows: int = 0
    """Rows set aside for the validation loss."""

    validation_sha256: str = ""
    """Digest of the validation rows; empty without any."""

    findings: list[FilterFinding] = []
    """The findings of each filter."""

    conflicts: int = 0
    """Questions with different answers, listed in conflicts.jsonl."""

    patterns: list[str] = []
    """Descriptions of phrases that many answers share."""

    notes: list[str] = []
    """Descriptions of what the audit did not check."""

    broken_limits: list[str] = []
    """Descriptions of the audit's limits that were exceeded."""


class Checkpoint(Record):
    """Weights that can be served."""

    path: str
    """Folder of the weights."""

    kind: Literal["full", "adapter"]
    """Whether the folder holds a full model or an adapter."""

    base_path: str
    """Folder of the base model."""

    weights_sha256: str
    """Digest of the weights and the architecture."""

    base_sha256: str
    """Digest of the base model's weights and architecture."""

    contract_sha256: str
    """Digest of the prompt contract."""


class LongRows(Record):
    """Rows longer than the sequence length."""

    policy: Literal["error", "drop", "split"]
    """train.too_long: what was done with the rows."""

    limit: int
    """Sequence length in tokens."""

    dropped: dict[str, int] = {}
    """Tokens of each dropped row, by row id."""

    split: dict[str, int] = {}
    """Parts of each split row, by row id."""


class EvaluatedCheckpoint(Record):
    """A checkpoint that was evaluated during training."""

    step: int
    """Optimiser step of the checkpoint."""

    slack: float
    """Distance of the worst guard from its margin, as a share of the metric's range; negative: it is exceeded."""

    target: float
    """Mean of the targets' values."""

    verdict: VerdictName
    """The gate's verdict on the checkpoint."""

    failed_guards: list[str] = []
    """Metrics of the guards that failed, as `suite/task/metric`."""


class TrainingSummary(Record):
    """Summary of a training; the loss curve is in train.jsonl next to it."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of the file's format."""

    rows: int
    """Rows trained on."""

    sequences: int
    """Packed sequences in one pass over the data."""

    tokens: int
    """Tokens in one pass over the data."""

    supervised_tokens: int
    """Tokens in one pass that have a loss."""

    steps: int
    """Optimiser steps done."""

    first_loss: float
    """Loss of the first step, in nats per supervised token."""

    final_loss: float
    """Loss of the last step, in nats per supervised token."""

    seconds: float
    """Total time of all steps in seconds, without interruptions."""

    tokens_per_s: float
    """Tokens per second."""

    trained_parameters: int
    """Parameters that were trained."""

    total_parameters: int
    """Parameters of the model, the adapter included."""

    seed: int
    """Seed of the training."""

    method: str = "lora"
    """Method of the training: lora, qlora or full."""

    padding_share: float | None = None
    """Share of the sequences' total length that holds no row."""

    validation_rows: int = 0
    """Rows that the validation loss was measured on."""

    validation_loss: float | None = None
    """Loss of the kept weights on the validation rows, in nats per supervised token."""

    base_validation_loss: float | None = None
    """Loss of the base model on the validation rows, in nats per supervised token."""

    order_sha256: str = ""
    """Digest of every token in training order."""

    resumed_at: list[int] = []
    """Steps at which an interrupted training was resumed."""

    kept_step: int | None = None
    """Step whose weights were kept."""

    examined: list[EvaluatedCheckpoint] = []
    """Checkpoints that were evaluated during training."""

    long_rows: LongRows | None = None
    """Rows longer than the sequence length."""

    sources: dict[str, int] = {}
    """Rows trained on, by source."""

    peak_memory_gib: float | None = None
    """Peak memory of a process in GiB."""

    processes: int = 1
    """Training processes."""

    parts_at_once: int | None = None
    """Parts of a step that were computed in parallel; the last bits of the weights depend on it."""

    threads: list[int] = []
    """PyTorch's threads per process, at the start and at each resumption; the last bits depend on them."""

    hardware: dict[str, str] = {}
    """The machine that trained."""

    versions: dict[str, str] = {}
    """Versions of the libraries."""


def slice_name(value: str) -> str:
    """The name of a slice in records and policies: "all" alone means the whole task, so a slice cannot have it."""
    return "all (slice)" if value == "all" else value


class TaskScore(Record):
    """One metric of one task as lm-eval aggregated it, or its mean on one slice."""

    task: str
    """Task or group."""

    slice: str = "all"
    """Slice of the items; all: every item."""

    metric: str
    """Name of the metric."""

    value: float
    """Value of the metric."""

    stderr: float | None
    """Standard error of the value; null: not computed."""

    n: int
    """Number of items behind the value."""


class Evaluation(Record):
    """One model on one list of tasks; its samples are in samples_<task>.jsonl next to it."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of the file's format."""

    label: str
    """Label of the model."""

    suite: str
    """Name of the suite."""

    weights_sha256: str
    """Digest of the model's weights and architecture."""

    contract_sha256: str
    """Digest of the prompt contract."""

    tasks: dict[str, "TaskIdentity"]
    """What identifies each task's results, by task."""

    groups: dict[str, list[str]]
    """Tasks of each group."""

    scores: list[TaskScore]
    """Metrics of tasks, groups and slices."""

    prompts_checked: int
    """Requests whose prompt ids were verified."""

    seconds: float
    """Duration of the evaluation in seconds."""

    requests: int = 0
    """Distinct requests."""

    reused_requests: int = 0
    """Requests that an earlier process had already completed."""

    failed_requests: int = 0
    """Requests that got no answer after all retries."""

    refused_requests: int = 0
    """Requests that the server refused."""

    merged_requests: int = 0
    """Continuations whose first token would have merged with the end of the prompt."""

    aa_flip_share: dict[str, float] | None = None
    """Share of items that change when the same model is queried twice, by task; null: not measured."""

    judge_fault: str | None = None
    """Why the suite's judge could not be used; null: no error."""


class TaskIdentity(Record):
    """What two evaluations of a task must share to be compared, and how many items were scored."""

    version: str
    """Version of the task."""

    num_fewshot: int | None
    """Examples in the prompt; null where a results file made elsewhere does not say."""

    generation: str
    """Settings of the generation, as JSON."""

    samples_sha256: str
    """Digest of the samples file."""

    asked: int
    """Items that were requested."""

    scored: int
    """Items that got a score."""

    failed: int
    """Items that got no score."""

    lower_is_better: list[str] = []
    """Metrics for which lower values are better."""

    failures: dict[str, int] = {}
    """Items without a score, by reason."""

    planned: int | None = None
    """Planned items of a task with interim looks; null: no looks."""

    stopped_at: int | None = None
    """Items requested until a task with interim looks ended; null: no looks."""

    order_seed: int | None = None
    """Seed of the random order of the items of a task with interim looks; null: no looks."""

    undirected: list[str] = []
    """Metrics without a stated direction: whether higher or lower is better."""
