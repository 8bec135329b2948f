"""A policy's interim looks as the rule by which an evaluation stops: the candidate's items grow, the base has all."""

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path

from harness.config import Config
from harness.evaluate.looks import Looks
from harness.gate.comparison import compare
from harness.gate.evidence import Evidence, read_evidence
from harness.gate.sequential import Progress, decided, first_items, looks_at
from harness.records import Comparison
from harness.store import code_version, sha256_json


def looks_of(config: Config, baseline: str, candidate: str) -> Looks | None:
    """The policy's looks at the candidate; None where the policy has none."""
    policy = config.gate
    if policy.sequential is None:
        return None
    seed = config.suite.seed
    return Looks(
        sizes=lambda planned: looks_at(policy, planned).counts,
        order=lambda task, items: first_items(items, seed, task),
        seed=seed,
        rule=sha256_json([policy.model_dump(mode="json"), config.suite.name, code_version("gate", "stats", "looks")]),
        decided=partial(_decided, config, baseline, candidate),
        whole=(baseline,),
    )


def _decided(config: Config, baseline: str, candidate: str, folders: Mapping[str, Path]) -> Collection[str]:
    """Tasks whose verdict no further item changes; none where the two cannot be compared."""
    before, after = (read_evidence(folders[label], config.gate.fields) for label in (baseline, candidate))
    comparison = compare(before, after, config.gate)
    if comparison.faults:
        return set()
    return decided(config.gate, config.suite, _progress(comparison, before, after), after.groups)


def _progress(comparison: Comparison, before: Evidence, after: Evidence) -> Iterator[Progress]:
    for metric in comparison.metrics:
        if metric.slice == "all" and metric.task in after.samples:
            whole = before.samples[metric.task][metric.metric]
            yield Progress(
                task=metric.task,
                metric=metric.metric,
                planned=len(whole),
                done=metric.n,
                lost=metric.only_baseline_right or 0,
                gained=metric.only_candidate_right or 0,
                right=round(metric.candidate * metric.n),
                baseline=float(whole.values.mean()),
                binary=metric.only_baseline_right is not None,
            )
