"""Records of the gate: the comparison of two evaluations, and the verdict on it."""

from datetime import date
from typing import Literal

from pydantic import Field

from harness.records.base import Record

VerdictName = Literal["PASS", "FAIL", "INCONCLUSIVE", "INVALID"]
Role = Literal["guard", "target", "info"]
Direction = Literal["higher", "lower"]
EXIT_CODES: dict[VerdictName, int] = {"PASS": 0, "FAIL": 10, "INCONCLUSIVE": 11, "INVALID": 12}


class Side(Record):
    """One of the two models that were compared."""

    label: str
    """Label of the model."""

    weights_sha256: str
    """Digest of the weights and architecture; empty: unknown."""

    contract_sha256: str
    """Digest of the prompt contract; empty: unknown."""

    evidence_sha256: str = ""
    """Digest of every file of the evaluation; empty: unknown."""


class Stratum(Record):
    """Right/wrong pairs of one task of a group."""

    task: str
    """Name of the task."""

    lost: int
    """Items that only the baseline got right."""

    gained: int
    """Items that only the candidate got right."""

    n: int
    """Items that both models answered."""


class Adjusted(Record):
    """Flips on multiple choice that guessing does not explain, as shares of all items."""

    forgetting: float
    """Share of items known before but no longer."""

    forgetting_low: float
    """Lower limit of the 95% interval of `forgetting`."""

    forgetting_high: float
    """Upper limit of the 95% interval of `forgetting`."""

    transfer: float
    """Share of items that the candidate knows and the baseline did not."""

    transfer_low: float
    """Lower limit of the 95% interval of `transfer`."""

    transfer_high: float
    """Upper limit of the 95% interval of `transfer`."""


class Relative(Record):
    """Share of the baseline's score that was lost."""

    drop: float
    """Share lost; negative: gained."""

    low: float | None
    """Lower limit of the 95% interval; null: none."""

    high: float | None
    """Upper limit of the 95% interval; null: none."""


class Measured(Record):
    """One metric on the items that both models answered."""

    suite: str
    """Name of the suite."""

    task: str
    """Task or group."""

    slice: str = "all"
    """Slice of the items; all: every item."""

    metric: str
    """Name of the metric."""

    n: int
    """Items that both models answered."""

    baseline: float
    """Mean of the baseline, as the task reports it."""

    candidate: float
    """Mean of the candidate, as the task reports it."""

    delta: float
    """Difference of the means; positive: in favour of the candidate."""

    ci_low: float
    """Lower limit of the 95% interval of `delta`."""

    ci_high: float
    """Upper limit of the 95% interval of `delta`."""

    only_baseline_right: int | None
    """Items that only the baseline got right (forgetting); null: not a right/wrong metric."""

    only_candidate_right: int | None
    """Items that only the candidate got right (transfer); null: not a right/wrong metric."""

    direction: Direction = "higher"
    """Whether higher or lower values are better."""

    beyond_chance: Adjusted | None = None
    """Flips that guessing does not explain; null: not multiple choice."""

    relative_drop: Relative | None = None
    """Share of the baseline's score that was lost; null: its mean is 0, or scores can be negative."""

    interval_doubt: str | None = None
    """Why the interval may cover less than 95%; null: no doubt."""

    @property
    def key(self) -> str:
        return f"{self.suite}/{self.task}/{self.metric}"


class MetricComparison(Measured):
    """One measured metric, with the data that the tests need."""

    lowest: float = 0.0
    """Lowest value of an item on either side."""

    highest: float = 1.0
    """Highest value of an item on either side."""

    differences: list[float] | None = None
    """Differences item by item, positive: in favour of the candidate; null: the counts of right/wrong items suffice."""

    scores: list[float] | None = None
    """Candidate's scores item by item, times their weights; null: items are independent and weigh the same."""

    clusters: list[int] | None = None
    """Number of each item's cluster; null: items are independent."""

    clustered_by: str | None = None
    """Field of the document that names the cluster; null: items are independent."""

    strata: list[Stratum] | None = None
    """Pairs of each task of a group; null: not a group."""

    equal_weights: bool = False
    """Whether the tasks of a group weigh the same, not by their size."""

    effective_n: float | None = None
    """Effective sample size of the candidate's mean; null: `n`."""

    planned_baseline: float | None = None
    """Baseline's mean over all planned items of a task that ended early; null: not measured."""

    @property
    def reference(self) -> float:
        """The baseline's mean for relative margins: over all planned items, even if the task ended early."""
        return self.baseline if self.planned_baseline is None else self.planned_baseline


class Flip(Record):
    """An item that one model got right and the other wrong, or whose score changed."""

    task: str
    """Name of the task."""

    metric: str
    """Name of the metric."""

    item: str
    """Identifier of the item."""

    prompt: str
    """Prompt of the item."""

    baseline_response: str
    """Answer of the baseline."""

    candidate_response: str
    """Answer of the candidate."""

    baseline_value: float
    """Score of the baseline."""

    candidate_value: float
    """Score of the candidate."""

    direction: Direction = "higher"
    """Whether higher or lower scores are better."""

    @property
    def got_worse(self) -> bool:
        gain = self.candidate_value - self.baseline_value
        return gain < 0 if self.direction == "higher" else gain > 0


class Forgetting(Record):
    """Loss of ability over the tasks of a suite; positive differences are in favour of the candidate."""

    tasks: int
    """Number of tasks counted."""

    worst: str
    """Task and metric that fell most."""

    worst_delta: float
    """Difference of that metric."""

    worst_low: float
    """Lower limit of the 95% interval of the smallest true difference."""

    worst_high: float
    """Upper limit of the 95% interval of the smallest true difference."""

    mean: float
    """Mean difference over tasks of equal weight."""

    mean_low: float
    """Lower limit of the 95% interval of `mean`."""

    mean_high: float
    """Upper limit of the 95% interval of `mean`."""

    fell: int
    """Number of tasks with a lower score."""

    fell_low: int
    """Fewest tasks that lost ability, at 95%."""

    fell_high: int
    """Most tasks that lost ability, at 95%."""


class Stopped(Record):
    """A task that the sequential rule ended early."""

    items: int
    """Items evaluated."""

    planned: int
    """Items planned."""

    seed: int
    """Seed of the order of the items."""


class Comparison(Record):
    """The candidate against the baseline."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of the file's format."""

    baseline: Side
    """The model compared against."""

    candidate: Side
    """The model that may replace it."""

    metrics: list[MetricComparison]
    """Every metric that both models have, on all items and on slices."""

    flips: list[Flip]
    """Items whose score changed, regressions first; a few of each metric."""

    faults: list[str]
    """Why the evaluations cannot be compared; empty: they can."""

    forgetting: Forgetting | None = None
    """Loss of ability over the tasks; null: no task counts."""

    stopped: dict[str, Stopped] = {}
    """Tasks that ended early, by task."""

    flip_share: dict[str, float] = {}
    """Share of items that an identical model flips, by task, where it was measured."""

    others: list["Comparison"] = []
    """The same candidate against further baselines."""

    evaluated: list[str] = []
    """Tasks and groups that either side evaluated."""

    same: list[str] = []
    """Further baselines that are the baseline itself."""

    @property
    def overall(self) -> list[MetricComparison]:
        """Metrics on all items of their task or group, without those on slices."""
        return [metric for metric in self.metrics if metric.slice == "all"]


class MetricVerdict(Measured):
    """One line of the verdict."""

    slice: str
    """Slice of the items; all: every item."""

    role: Role
    """guard: must not fall; target: must be reached; info: decides nothing."""

    margin: float | None
    """Tolerated drop, or required gain, in the metric's own unit; null: none."""

    floor: float | None
    """Value to reach, in the metric's own unit; null: none."""

    ceiling: float | None = None
    """Value to stay below, in the metric's own unit; null: none."""

    p_noninferior: float | None
    """P-value of the test that the limits are met; null: not tested."""

    p_harm: float | None
    """P-value of the test for a drop; adjusted by Holm over guards, by Benjamini-Hochberg over shown slices."""

    verdict: VerdictName
    """The verdict on this metric."""

    reason: str
    """Why, in one sentence."""

    n_needed: int | None
    """Total number of items that would decide an inconclusive metric; null: not needed, or unknown."""

    against: str | None = None
    """Baseline of this line; null: the verdict's own."""

    waived: str | None = None
    """Waiver that lets an inconclusive result stand; null: none."""

    look: int | None = None
    """Interim look at which the task ended; null: no looks."""


class Waiver(Record):
    """A waiver of the policy that the verdict used, or could not use because it had expired."""

    rule: str
    """Glob of the rule that grants it."""

    name: str
    """Name of the waiver."""

    reason: str
    """Why it was granted."""

    expires: date
    """Last day on which the waiver is valid (UTC)."""

    used_for: Literal["missing", "inconclusive"]
    """What the waiver lets pass: a missing metric or an inconclusive one."""

    expired: bool
    """Whether the waiver had expired on the day of the verdict."""


class Verdict(Record):
    """The decision on a candidate."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of the file's format."""

    verdict: VerdictName
    """The verdict: the worst of the deciding lines."""

    exit_code: int
    """Exit code of `run`, `gate` and `ci`; follows the verdict."""

    policy: str
    """Name of the policy."""

    reasons: list[str]
    """Reasons for the verdict, in sentences."""

    baseline: Side
    """The model compared against."""

    candidate: Side
    """The model that may replace it."""

    metrics: list[MetricVerdict]
    """One line for each metric and rule, then metrics that are only shown."""

    policy_sha256: str = ""
    """Digest of the policy's values."""

    compare_sha256: str = ""
    """Digest of compare.json; empty: not written."""

    others: list[Side] = []
    """Further baselines."""

    waivers: list[Waiver] = []
    """Waivers that the verdict used, or could not use."""

    notes: list[str] = []
    """Notes besides the reasons: waivers, tasks that ended early, noise."""

    forgetting: Forgetting | None = None
    """Loss of ability over the tasks; null: no task counts."""

    decided_on: date | None = None
    """Day of the decision (UTC); whether a waiver holds is judged as of this day."""
