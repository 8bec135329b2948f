"""`compare` and `gate`: what they read, print and return."""

import argparse
from collections.abc import Sequence

from harness.core.errors import UsageError


def compare(options: argparse.Namespace) -> int:
    """12 when the evidence cannot be compared, else 0: a comparison decides nothing, even with a policy."""
    from harness.report.markdown import print_comparison
    from harness.workflows.gate import compare_evaluations, policy_named, write_comparison

    name, others = _policy(options.overrides)
    if others:
        raise UsageError(f"compare takes policy=NAME or policy=PATH only, not: {', '.join(others)}")
    policy = policy_named(name) if name else None
    comparison = compare_evaluations(options.baseline, options.candidate, options.runs_dir, policy, options.anchor)
    if options.out is not None:
        write_comparison(policy, comparison, options.out)
    print_comparison(comparison)
    return 12 if comparison.faults or any(other.faults for other in comparison.others) else 0


def gate(options: argparse.Namespace) -> int:
    """The verdict's exit code; with --plan what the policy can decide on a suite, before anything is evaluated."""
    from harness.report.terminal import print_verdict
    from harness.workflows.gate import gate_evaluations

    name, others = _policy(options.overrides)
    if options.plan:
        return _plan(options, name or "default", others)
    if others:
        raise UsageError(f"gate takes policy=NAME or policy=PATH, not: {', '.join(others)}")
    if options.candidate is None:
        raise UsageError("name what to compare: harness gate BASELINE CANDIDATE, or harness gate --plan suite=NAME")
    verdict, report = gate_evaluations(
        options.baseline, options.candidate, name or "default", options.out, options.runs_dir, options.anchor
    )
    print_verdict(verdict, report)
    return verdict.exit_code


def _plan(options: argparse.Namespace, policy: str, overrides: Sequence[str]) -> int:
    from harness.gate.power_plan import earlier, plan, task_sizes
    from harness.report.terminal import print_plan
    from harness.workflows.compose import config_for
    from harness.workflows.gate import policy_named

    if options.baseline is not None:
        raise UsageError("harness gate --plan takes no evaluations; an earlier comparison is given with --like RUN")
    config = config_for(overrides)
    like = earlier(options.like, options.runs_dir) if options.like else None
    print_plan(plan(policy_named(policy), config.suite.name, task_sizes(config), like), like is not None)
    return 0


def _policy(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of policy=, and every other override."""
    named = [one.removeprefix("policy=") for one in overrides if one.startswith("policy=")]
    return (named[-1] if named else None), [one for one in overrides if not one.startswith("policy=")]
