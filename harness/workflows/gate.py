"""How every decision is reached: evaluate → compare → decide → write.

`harness run`, `gate`, `ci` and the selection of training checkpoints differ only in where their evaluations come from.
All call `reach_decision` with a function that makes or finds the evaluations; those that keep files call
`write_decision`.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.checkpoint.resolve import resolve_evaluation
from harness.config.experiment import read_yaml, validate
from harness.config.gate import GateConfig
from harness.core.console import say
from harness.core.errors import ConfigError, EvidenceFault, UsageError
from harness.core.layout import RunFolder
from harness.core.paths import write_text
from harness.core.redact import command_without_secrets
from harness.core.store import sha256_file, write_json
from harness.gate.comparison import compare_all
from harness.gate.verdict import decide
from harness.lineage.chain import EvidencePaths
from harness.lineage.coverage import contamination_gaps
from harness.lineage.write import evidence_paths, write_evidence
from harness.records.gate import Comparison, Side, Verdict
from harness.report.markdown import comparison_markdown
from harness.report.write import copy_outputs, write_report
from harness.results.evidence import FIELDS, read_evidence, read_sides
from harness.workflows.compose import gate_values


@dataclass(frozen=True)
class Decision:
    """A policy applied to a comparison. `paths` is its evidence; None where no evaluation could be used."""

    policy: GateConfig
    comparison: Comparison
    verdict: Verdict
    paths: EvidencePaths | None


def reach_decision(
    policy: GateConfig,
    names: tuple[str, str],
    evaluations: Callable[[], EvidencePaths],
    items_sha256: str | None = None,
) -> Decision:
    """The decision on a candidate against a baseline; `names` are baseline and candidate.

    `evaluations` makes or finds the evaluations. `items_sha256` is the digest of all evaluation items of the run's
    configuration, where it is known. Evidence that cannot be trusted gives an INVALID verdict with the reason, not an
    exception.
    """
    paths = None
    try:
        paths = evaluations()
        policy = as_one_of_a_sweep(policy, paths)
        comparison = compared(paths, names, policy, items_sha256)
    except EvidenceFault as fault:
        comparison = _incomparable(names, str(fault))
    return Decision(policy, comparison, decide(policy, comparison), paths)


def as_one_of_a_sweep(policy: GateConfig, paths: EvidencePaths) -> GateConfig:
    """The policy, with at least as many candidates as the sweep had that the candidate belongs to.

    The best of several was chosen by its scores, so it must pass at the stricter level that `gate.candidates` sets.
    Raises EvidenceFault where the run's configuration cannot be read.
    """
    if paths.data is None or not (path := RunFolder.of_checkpoint(paths.data).config).is_file():
        return policy
    try:
        members = int(read_yaml(path).get("gate", {}).get("candidates", 1))
    except (ConfigError, AttributeError, TypeError, ValueError) as error:
        raise EvidenceFault(
            f"{path} cannot be read, so it is unknown from how many candidates this one was chosen: {error}. "
            "Run the experiment again"
        ) from None
    if members <= policy.candidates:
        return policy
    say(f"· the candidate is one of {members} of a sweep: every pass is tested at a level divided by {members}")
    return policy.model_copy(update={"candidates": members})


def compared(
    paths: EvidencePaths, names: tuple[str, str], policy: GateConfig | None = None, items_sha256: str | None = None
) -> Comparison:
    """The comparison of the candidate with the baseline and every further baseline.

    `names` label the two evaluations where both have the same label. Where the candidate's training data are known,
    the comparison's faults include the items that the data were not checked against.
    Raises EvidenceFault when an evaluation or the audit of the data cannot be trusted.
    """
    fields = policy.fields if policy else FIELDS
    before, after = read_sides((paths.baseline, paths.candidate), fields)
    for note in dict.fromkeys([*before.notes, *after.notes]):
        say(f"· {note}")
    if before.label == after.label:
        before, after = (replace(e, label=Path(name).name) for e, name in zip((before, after), names, strict=True))
    others = {name: read_evidence(folder, fields) for name, folder in paths.further}
    try:
        comparison = compare_all(before, after, others, policy)
    except (OverflowError, FloatingPointError) as error:
        raise EvidenceFault(
            f"the scores of {before.label} and {after.label} are too large to compare: {error}"
        ) from None
    gaps = contamination_gaps(paths.data, after, items_sha256) if paths.data is not None else []
    return comparison.model_copy(update={"faults": [*comparison.faults, *gaps]})


def _incomparable(names: tuple[str, str], fault: str) -> Comparison:
    baseline, candidate = (Side(label=name, weights_sha256="", contract_sha256="") for name in names)
    return Comparison(baseline=baseline, candidate=candidate, metrics=[], flips=[], faults=[fault])


def write_decision(decision: Decision, out: Path, command: str, runs: Path, name: str | None = None) -> Path:
    """Writes compare.json, verdict.json, policy.json, evidence.json and report/ to `out`; returns the report's page.

    `command` is what the user typed; evidence and report repeat it. Further baselines are looked for in `runs`.
    A decision without evaluations has no evidence.json.
    """
    folder = RunFolder(out)
    write_verdict(decision.policy, decision.comparison, out, decision.verdict)
    if decision.paths is None:
        folder.evidence.unlink(missing_ok=True)
    else:
        write_evidence(replace(decision.paths, decision=out), folder.name, command, runs)
    return write_report(out, name, command)


def write_verdict(policy: GateConfig, comparison: Comparison, out: Path, reached: Verdict | None = None) -> Verdict:
    """Writes compare.json, verdict.json and policy.json; returns the verdict with the digest of compare.json.

    `reached` is the verdict where it is known already.
    """
    folder = RunFolder(out)
    out.mkdir(parents=True, exist_ok=True)
    comparison.save(folder.comparison)
    verdict = reached or decide(policy, comparison)
    verdict = verdict.model_copy(update={"compare_sha256": sha256_file(folder.comparison)})
    verdict.save(folder.verdict)
    write_json(folder.policy, policy.model_dump(mode="json"))
    return verdict


def policy_named(name: str) -> GateConfig:
    """The policy of a name under conf/gate, or of a path. Raises ConfigError that lists its errors."""
    return validate(GateConfig, gate_values(name))


def evaluations_named(
    baseline: str, candidate: str, runs: Path, policy: GateConfig | None = None, anchors: Sequence[str] = ()
) -> EvidencePaths:
    """Finds two evaluations by name or folder, and those of the policy's further baselines and of `anchors`.

    Raises UsageError where a name has no evaluation, EvidenceFault where a run's weights are not those evaluated.
    """
    sides = [resolve_evaluation(name, runs) for name in (baseline, candidate)]
    names = dict.fromkeys([*(policy.baselines if policy else []), *anchors])
    further = tuple((name, baseline_folder(name, runs)) for name in names)
    return replace(evidence_paths(Path(), sides[0], sides[1], runs), further=further)


def gate_evaluations(
    baseline: str, candidate: str, policy: str, out: Path | None, runs: Path, anchors: Sequence[str] = ()
) -> tuple[Verdict, Path | None]:
    """`harness gate`: the verdict on two evaluations; writes its files and report to `out`, where given."""
    rules = policy_named(policy)
    names = (baseline, candidate)
    decision = reach_decision(rules, names, lambda: evaluations_named(*names, runs, rules, anchors))
    if out is None:
        return decision.verdict, None
    options = [option for anchor in anchors for option in ("--anchor", anchor)]
    typed = ["harness", "gate", *names, f"policy={policy}", *options, "--out", str(out)]
    command = command_without_secrets(shlex.join(typed))
    report = write_decision(decision, out, command, runs)
    copy_outputs(out)
    return decision.verdict, report


def compare_evaluations(
    baseline: str, candidate: str, runs: Path, policy: GateConfig | None = None, anchors: Sequence[str] = ()
) -> Comparison:
    """`harness compare`: the comparison of two evaluations by name or folder, with all further baselines."""
    return compared(evaluations_named(baseline, candidate, runs, policy, anchors), (baseline, candidate), policy)


def write_comparison(policy: GateConfig | None, comparison: Comparison, out: Path) -> None:
    """Writes compare.json and summary.md to `out`; with a policy also the verdict and the report."""
    if policy is not None:
        write_verdict(policy, comparison, out)
        write_report(out)
        copy_outputs(out)
        return
    out.mkdir(parents=True, exist_ok=True)
    comparison.save(RunFolder(out).comparison)
    write_text(out / "summary.md", comparison_markdown(comparison))


def further_baselines(policy: GateConfig, runs: Path) -> dict[str, Path]:
    """The evaluations of the policy's further baselines. Raises UsageError that lists every baseline without one."""
    missing: list[str] = []
    found: dict[str, Path] = {}
    for name in policy.baselines:
        try:
            found[name] = baseline_folder(name, runs)
        except UsageError as error:
            missing.append(f"  - {error}")
    if missing:
        raise UsageError("\n".join([f"policy {policy.name} names baselines without an evaluation:", *missing]))
    return found


def baseline_folder(name: str, runs: Path) -> Path:
    """The evaluation of a further baseline. Raises UsageError that says how to set one where there is none."""
    try:
        return resolve_evaluation(name, runs)
    except UsageError as error:
        message = f"the further baseline {name} has no evaluation. {error}"
        if Path(name).name == name and "harness promote" not in message:
            message += f" If {name} is meant as an alias, set it once: harness promote RUN --alias {name}"
        raise UsageError(message) from None


def with_further(paths: EvidencePaths, further: Mapping[str, Path]) -> EvidencePaths:
    """The same paths with these further baselines, which are keyed by the policy's names."""
    return replace(paths, further=tuple(further.items()))
