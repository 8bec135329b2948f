"""What stages hand to each other: frozen records and their JSON.

A missing number is None with a reason beside it, never 0.
"""

from typing import Literal

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
    """Rows set aside, by the first reason."""

    origin: str = ""
    """Where the rows come from, as configured; else the hub id."""


class FilterFinding(Record):
    """What one filter found, in rows kept or not."""

    code: str
    """Reason code of the filter."""

    action: str
    """What was done with the rows."""

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

    rows: int
    """Rows to train on."""

    sha256: str
    """Digest of the training rows."""

    sources: list[SourceCount]
    """Counts of each source."""

    decontaminated_against: str
    """Digest of the evaluation items that rows were checked against."""

    evaluation_items: int
    """Evaluation items that rows were checked against."""

    covered: dict[str, int] = {}
    """Those evaluation items, by task."""

    validation_rows: int = 0
    """Rows set aside for the validation loss."""

    validation_sha256: str = ""
    """Digest of the validation rows; empty without any."""

    findings: list[FilterFinding] = []
    """What each filter found."""

    conflicts: int = 0
    """Questions with several different answers; they are in conflicts.jsonl."""

    patterns: list[str] = []
    """Wordings that many answers share, in words."""

    notes: list[str] = []
    """What the audit did not check, in words."""

    broken_limits: list[str] = []
    """Limits of the audit that were broken, in words."""


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
    """What was done with them."""

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
    """How far the worst guard is above its margin, as a share of the metric's range; negative: below."""

    target: float
    """Mean of the targets' values."""

    verdict: VerdictName
    """The gate's verdict on the checkpoint."""

    failed_guards: list[str] = []
    """Metrics of the guards that failed, as `suite/task/metric`."""


class TrainingSummary(Record):
    """What training did; the curve is in train.jsonl beside it."""

    rows: int
    """Rows trained on."""

    sequences: int
    """Packed sequences in one pass over the data."""

    tokens: int
    """Tokens in one pass over the data."""

    supervised_tokens: int
    """Tokens in one pass that the loss is taken on."""

    steps: int
    """Optimiser steps done."""

    first_loss: float
    """Loss of the first step, in nats a supervised token."""

    final_loss: float
    """Loss of the last step, in nats a supervised token."""

    seconds: float
    """Time of all steps in seconds, over interruptions."""

    tokens_per_s: float
    """Tokens a second."""

    trained_parameters: int
    """Parameters that were trained."""

    total_parameters: int
    """Parameters of the model, the adapter included."""

    seed: int
    """Seed of the training."""

    method: str = "lora"
    """Method of the training: lora, qlora or full."""

    padding_share: float | None = None
    """Share of the sequences' length that holds no row."""

    validation_rows: int = 0
    """Rows that the validation loss was measured on."""

    validation_loss: float | None = None
    """Loss of the kept weights on the validation rows, in nats a supervised token."""

    base_validation_loss: float | None = None
    """Loss of the base model on the validation rows, in nats a supervised token."""

    order_sha256: str = ""
    """Digest of every token in the order of training."""

    resumed_at: list[int] = []
    """Steps at which an interrupted training went on."""

    kept_step: int | None = None
    """Step whose weights were kept."""

    examined: list[EvaluatedCheckpoint] = []
    """Checkpoints that were evaluated during training."""

    long_rows: LongRows | None = None
    """Rows longer than the sequence length."""

    sources: dict[str, int] = {}
    """Rows trained on, by source."""

    peak_memory_gib: float | None = None
    """Largest memory of a process in GiB."""

    processes: int = 1
    """Training processes."""

    parts_at_once: int | None = None
    """Parts of a step that were computed side by side; the last bits of the weights depend on it."""

    threads: list[int] = []
    """PyTorch's threads in a process, at the start and at each resumption; the last bits depend on them."""

    hardware: dict[str, str] = {}
    """Machine that trained."""

    versions: dict[str, str] = {}
    """Versions of the libraries."""


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
    """Items that the value rests on."""


class Evaluation(Record):
    """One model on one list of tasks; its samples are beside it in samples_<task>.jsonl."""

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
    """Requests that an earlier process had answered."""

    failed_requests: int = 0
    """Requests without an answer after all retries."""

    refused_requests: int = 0
    """Requests that the server refused for good."""

    merged_requests: int = 0
    """Continuations whose first token would have merged with the prompt."""

    aa_flip_share: dict[str, float] | None = None
    """Share of items that change when the same model is asked twice, by task; null: not measured."""

    judge_fault: str | None = None
    """Why the suite's judge could not be asked; null: no fault."""


class TaskIdentity(Record):
    """What two evaluations of a task must share to be compared, and how many items were scored."""

    version: str
    """Version of the task."""

    num_fewshot: int
    """Examples in the prompt."""

    generation: str
    """Settings of the generation, as JSON."""

    samples_sha256: str
    """Digest of the samples file."""

    asked: int
    """Items that were asked."""

    scored: int
    """Items that got a score."""

    failed: int
    """Items that got no score."""

    lower_is_better: list[str] = []
    """Metrics of which lower values are better."""

    failures: dict[str, int] = {}
    """Items without a score, by reason."""

    planned: int | None = None
    """Items of a task that is evaluated in looks; null: no looks."""

    stopped_at: int | None = None
    """Items asked until a task in looks ended; null: no looks."""

    order_seed: int | None = None
    """Seed of the random order of the items of a task in looks; null: no looks."""

    undirected: list[str] = []
    """Metrics of which the task does not say whether higher or lower is better."""
