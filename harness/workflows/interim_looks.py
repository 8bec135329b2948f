"""Turns a policy's interim looks into a stopping rule for an evaluation.

The candidate is evaluated on a growing number of items, the baselines on all of them.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType

from harness.config.experiment import SuiteConfig
from harness.config.gate import GateConfig
from harness.core.code_digest import code_digest
from harness.core.store import sha256_json
from harness.evaluate.interim_looks import InterimLooks
from harness.gate.comparison import compare
from harness.gate.sequential import LookProgress, decided, first_items, looks_at
from harness.records.gate import Comparison
from harness.results.evidence import Evidence, read_evidence


def looks_of(
    policy: GateConfig,
    suite: SuiteConfig,
    baseline: str,
    candidate: str,
    known: Mapping[str, Path] = MappingProxyType({}),
    beside: Mapping[str, str] = MappingProxyType({}),
) -> InterimLooks | None:
    """The policy's interim looks at the candidate; None where the policy has none.

    The policy's further baselines, keyed by its names, are evaluations that are `known`, or labels of models that are
    evaluated `beside` the candidate.
    """
    if policy.sequential is None:
        return None
    read = cache(partial(read_evidence, fields=policy.fields))
    further = {name: read(folder).sha256 for name, folder in known.items()}
    rule = [
        policy.model_dump(mode="json"),
        suite.name,
        further,
        code_digest("harness.workflows.interim_looks:looks_of"),
    ]

    def decided_at(folders: Mapping[str, Path]) -> Collection[str]:
        others = [known[name] if name in known else folders[beside[name]] for name in policy.baselines]
        baselines = [read(folder) for folder in (folders[baseline], *others)]
        return _decided_tasks(policy, suite, baselines, read_evidence(folders[candidate], policy.fields))

    return InterimLooks(
        sizes=lambda planned: looks_at(policy, planned).counts,
        order=lambda task, items: first_items(items, suite.seed, task),
        seed=suite.seed,
        rule=sha256_json(rule),
        decided=decided_at,
        in_full={baseline, *beside.values()},
    )


def _decided_tasks(
    policy: GateConfig, suite: SuiteConfig, baselines: Sequence[Evidence], candidate: Evidence
) -> set[str]:
    """The tasks whose verdict no further item can change; none where the candidate cannot be compared with a baseline.

    A further baseline that is the first baseline itself is tested once, as in the gate.
    """
    first, *others = baselines
    distinct = [first, *(other for other in others if other.sha256 != first.sha256)]
    comparisons = [compare(baseline, candidate, policy) for baseline in distinct]
    if any(comparison.faults for comparison in comparisons):
        return set()
    pairs = zip(comparisons, distinct, strict=True)
    counts, *further = (
        list(_metric_progress(found, baseline, candidate, policy.slice_key)) for found, baseline in pairs
    )
    return decided(policy, suite, counts, candidate.groups, further)


def _metric_progress(
    comparison: Comparison, before: Evidence, after: Evidence, slice_key: str
) -> Iterator[LookProgress]:
    for metric in comparison.metrics:
        if metric.slice == "all" and metric.task in after.samples:
            whole = before.samples[metric.task][metric.metric]
            yield LookProgress.of(metric, len(whole), whole.values_of(slice_key))
