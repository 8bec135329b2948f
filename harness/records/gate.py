"""What the gate hands on: the comparison of two evaluations, and the verdict on it."""

from datetime import date
from typing import Literal

from pydantic import Field

from harness.records.base import Record

VerdictName = Literal["PASS", "FAIL", "INCONCLUSIVE", "INVALID"]
Role = Literal["guard", "target", "info"]
Direction = Literal["higher", "lower"]
EXIT_CODES: dict[VerdictName, int] = {"PASS": 0, "FAIL": 10, "INCONCLUSIVE": 11, "INVALID": 12}


class Side(Record):
    """Who was compared: label and digests ('' where unknown). `evidence_sha256` covers every file of the evaluation."""

    label: str
    weights_sha256: str
    contract_sha256: str
    evidence_sha256: str = ""


class Stratum(Record):
    """Right/wrong pairs of one task of a group: `lost` 1 → 0, `gained` 0 → 1, of n."""

    task: str
    lost: int
    gained: int
    n: int


class Adjusted(Record):
    """Shares of all items, with 95% intervals: known before and no longer (forgetting), and the reverse (transfer)."""

    forgetting: float
    forgetting_low: float
    forgetting_high: float
    transfer: float
    transfer_low: float
    transfer_high: float


class Relative(Record):
    """Share of the baseline's score that was lost (negative: gained), with its 95% interval; None: no limit."""

    drop: float
    low: float | None
    high: float | None


class Measured(Record):
    """One metric on the items both models answered.

    `baseline` and `candidate` are means as the task reports them; `direction` says whether higher or lower is better.
    `delta` and its 95% interval `ci_low`, `ci_high` are turned so that larger is better.
    Right/wrong metrics have flips: `only_baseline_right` (1 → 0, forgetting), `only_candidate_right` (0 → 1, backward
    transfer); on multiple choice `beyond_chance` is what guessing does not explain. `relative_drop` is None where the
    baseline's mean is 0 or scores can be negative. `interval_doubt` tells why the interval may cover less than 95%.
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
    direction: Direction = "higher"
    beyond_chance: Adjusted | None = None
    relative_drop: Relative | None = None
    interval_doubt: str | None = None

    @property
    def key(self) -> str:
        return f"{self.suite}/{self.task}/{self.metric}"


class MetricComparison(Measured):
    """What is measured, with what the tests need.

    `lowest` and `highest` bound the items' values on both sides. `differences` (turned, item by item) are kept unless
    the counts of a right/wrong metric say everything; `clusters` numbers the cluster of each. `strata` are the tasks
    of a group, which count by size, or the same with `equal_weights`. `effective_n` is how many independent items the
    candidate's mean is worth (None: n). `planned_baseline` is the baseline's mean over all planned items of a task that
    stopped early.
    """

    lowest: float = 0.0
    highest: float = 1.0
    differences: list[float] | None = None
    clusters: list[int] | None = None
    clustered_by: str | None = None
    strata: list[Stratum] | None = None
    equal_weights: bool = False
    effective_n: float | None = None
    planned_baseline: float | None = None

    @property
    def reference(self) -> float:
        """The baseline's mean that relative margins refer to: over all planned items, wherever the task stopped."""
        return self.baseline if self.planned_baseline is None else self.planned_baseline


class Flip(Record):
    """An item that one model got right and the other wrong, or whose score changed."""

    task: str
    metric: str
    item: str
    prompt: str
    baseline_response: str
    candidate_response: str
    baseline_value: float
    candidate_value: float
    direction: Direction = "higher"

    @property
    def got_worse(self) -> bool:
        gain = self.candidate_value - self.baseline_value
        return gain < 0 if self.direction == "higher" else gain > 0


class Forgetting(Record):
    """Loss of ability over the tasks of a suite, as differences (larger is better) with 95% intervals.

    `worst` is the task that fell most; its interval bounds the smallest true difference. `fell` counts tasks whose
    score is lower, `fell_low` to `fell_high` those that truly fell.
    """

    tasks: int
    worst: str
    worst_delta: float
    worst_low: float
    worst_high: float
    mean: float
    mean_low: float
    mean_high: float
    fell: int
    fell_low: int
    fell_high: int


class Stopped(Record):
    """A task that the sequential rule ended early: the first `items` of `planned` in the order of `seed`."""

    items: int
    planned: int
    seed: int


class Comparison(Record):
    """Candidate against baseline. `faults` names whatever makes the evidence incomparable.

    `others` are the same candidate against further baselines. `flip_share` is the share of items that an identical
    model flips, where it was measured. `evaluated` names every task and group of either side, `same`
    the further baselines that are the baseline itself.
    """

    schema_version: int = Field(default=1, alias="schema")
    baseline: Side
    candidate: Side
    metrics: list[MetricComparison]
    flips: list[Flip]
    faults: list[str]
    forgetting: Forgetting | None = None
    stopped: dict[str, Stopped] = {}
    flip_share: dict[str, float] = {}
    others: list["Comparison"] = []
    evaluated: list[str] = []
    same: list[str] = []

    @property
    def whole(self) -> list[MetricComparison]:
        """Metrics on all items of their task or group, without those on slices."""
        return [metric for metric in self.metrics if metric.slice == "all"]


class MetricVerdict(Measured):
    """One line of the verdict; names and meaning as in INTERFACE.

    `margin`, `floor` and `ceiling` are in the metric's own unit. `against` names the baseline when it is not the
    verdict's own. `waived` names the waiver that lets an inconclusive result stand. `p_harm` of info slices is
    adjusted over all of them (Benjamini-Hochberg), of guards by Holm.
    """

    slice: str
    role: Role
    margin: float | None
    floor: float | None
    ceiling: float | None = None
    p_noninferior: float | None
    p_harm: float | None
    verdict: VerdictName
    reason: str
    n_needed: int | None
    against: str | None = None
    waived: str | None = None
    look: int | None = None


class Waiver(Record):
    """A waiver of the policy that this verdict made use of, or could not because it had expired."""

    rule: str
    name: str
    reason: str
    expires: date
    used_for: Literal["missing", "inconclusive"]
    expired: bool


class Verdict(Record):
    """The decision on a candidate. `exit_code` follows the verdict.

    `policy_sha256` and `compare_sha256` are the digests of the policy's values and of compare.json: a verdict belongs
    to nothing else. Waivers were judged as of `decided_on` (UTC).
    """

    schema_version: int = Field(default=1, alias="schema")
    verdict: VerdictName
    exit_code: int
    policy: str
    reasons: list[str]
    baseline: Side
    candidate: Side
    metrics: list[MetricVerdict]
    policy_sha256: str = ""
    compare_sha256: str = ""
    others: list[Side] = []
    waivers: list[Waiver] = []
    notes: list[str] = []
    forgetting: Forgetting | None = None
    decided_on: date | None = None
