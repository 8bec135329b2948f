"""Whether more or less of a metric is better: as the task says, else the policy's rule, else what lm-eval registers."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from harness.config import GateConfig
from harness.gate.evidence import Evidence
from harness.records import Direction

# Metrics in lm-eval's registry (lm_eval/api/metrics.py), by their higher_is_better
HIGHER = frozenset(
    "acc acc_all acc_bytes acc_mutual_info acc_norm bleu chrf chrf++ exact_match f1 likelihood mcc".split()  # noqa: SIM905
)
LOWER = frozenset(("brier_score", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "ter"))

Directions = Callable[[str, str], Direction | None]


def directions_of(baseline: Evidence, candidate: Evidence, policy: GateConfig | None) -> Directions:
    """(task, metric) → its direction; None where neither task, rule nor registry says one."""
    sides = (baseline, candidate)

    def direction(task: str, metric: str) -> Direction | None:
        name = metric.split(",")[0]
        stated = [side.identities[task] for side in sides if name not in side.identities[task].undirected]
        if stated:
            return "lower" if any(name in identity.lower_is_better for identity in stated) else "higher"
        return _ruled(policy, keys_of(candidate, task, metric)) or _registered(name)

    return direction


def keys_of(evidence: Evidence, task: str, metric: str) -> list[str]:
    """The names that a rule may match: of the metric on its task, and on every group with the task."""
    groups = [group for group, tasks in evidence.groups.items() if task in tasks]
    return [f"{evidence.suite}/{name}/{metric}" for name in (task, *groups)]


def is_gated(policy: GateConfig | None, keys: Sequence[str]) -> bool:
    """Whether a deciding rule matches any of the keys, before an info rule does."""
    matching = (next((r for r in policy.rules if fnmatchcase(key, r.metric)), None) for key in keys) if policy else ()
    return any(rule is not None and rule.role != "info" for rule in matching)


def _ruled(policy: GateConfig | None, keys: Sequence[str]) -> Direction | None:
    rules = policy.rules if policy else []
    matching = (rule for rule in rules if any(fnmatchcase(key, rule.metric) for key in keys))
    return next((rule.direction for rule in matching if rule.direction is not None), None)


def _registered(name: str) -> Direction | None:
    return "higher" if name in HIGHER else "lower" if name in LOWER else None
