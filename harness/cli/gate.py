"""`harness compare` and `harness gate`: compare two evaluations, and decide on them by a policy."""

import argparse
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from harness.cli.arguments import Parser, Subparsers, add_runs_dir, add_verb
from harness.core.console import say
from harness.core.errors import EvidenceFault, ExitCode, UsageError


def register(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers, "compare", compare,
        does="show the paired differences of two evaluations, with intervals",
        usage="BASELINE CANDIDATE [options] [policy=NAME]",
        example="harness compare runs/NAME/eval/base runs/NAME",
    )  # fmt: skip
    _add_evaluations(parser, None)
    parser = add_verb(
        subparsers, "gate", gate,
        does="decide by a policy whether a candidate may replace the baseline",
        usage="BASELINE CANDIDATE [options] [policy=NAME], or --plan [policy=NAME] [suite=NAME]",
        example="""harness gate runs/NAME/eval/base runs/NAME policy=strict --out verdict
         harness gate BASELINE CANDIDATE --init-policy policy.yaml
         harness gate --plan policy=strict suite=general""",
    )  # fmt: skip
    _add_evaluations(parser, "?")  # --plan takes no evaluations
    parser.add_argument(
        "--plan", action="store_true", help="show what the policy can decide on suite=NAME, before any run"
    )
    parser.add_argument(
        "--init-policy", type=Path, metavar="FILE",
        help="write a policy that guards every metric of the two evaluations to FILE (.yaml), and decide nothing",
    )  # fmt: skip
    parser.add_argument(
        "--like", metavar="RUN", help="with --plan: a run or gate folder; plan with its measured discordance"
    )


def _add_evaluations(parser: Parser, nargs: str | None) -> None:
    side = "run, alias, evaluation folder, or lm-eval output folder"
    parser.add_argument("baseline", nargs=nargs, metavar="BASELINE", help=side)
    parser.add_argument("candidate", nargs=nargs, metavar="CANDIDATE", help=side)
    parser.add_argument(
        "--anchor", action="append", default=[], metavar="BASELINE",
        help="a further baseline that no guard may fall against (repeatable)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write the results to")
    add_runs_dir(parser)


def compare(options: argparse.Namespace) -> int:
    """INVALID if the evidence cannot be compared, else DONE: a comparison decides nothing, even with a policy."""
    from harness.report.markdown import print_comparison
    from harness.workflows.gate import compare_evaluations, policy_named, write_comparison

    name, others = _policy(options.overrides)
    if others:
        raise UsageError(f"compare takes only policy=NAME or policy=PATH, not {', '.join(others)}")
    policy = policy_named(name) if name else None
    comparison = compare_evaluations(options.baseline, options.candidate, options.runs_dir, policy, options.anchor)
    if options.out is not None:
        write_comparison(policy, comparison, options.out)
    print_comparison(comparison)
    invalid = comparison.faults or any(other.faults for other in comparison.others)
    return ExitCode.INVALID if invalid else ExitCode.DONE


def gate(options: argparse.Namespace) -> int:
    """The verdict's exit code; with --plan, DONE."""
    from harness.report.terminal import print_verdict
    from harness.workflows.gate import gate_evaluations

    name, others = _policy(options.overrides)
    if options.plan and options.init_policy is not None:
        raise UsageError("--plan and --init-policy are two things; give one of them")
    if options.plan:
        return _plan(options, name, others)
    if others:
        raise UsageError(f"gate takes only policy=NAME or policy=PATH, not {', '.join(others)}")
    if options.candidate is None:
        raise UsageError(
            "gate needs two evaluations: harness gate BASELINE CANDIDATE. Without any: harness gate --plan suite=NAME"
        )
    if options.init_policy is not None:
        return _init_policy(options, name)
    verdict, report = gate_evaluations(
        options.baseline, options.candidate, name or "default", options.out, options.runs_dir, options.anchor
    )
    print_verdict(verdict, report)
    return verdict.exit_code


def _init_policy(options: argparse.Namespace, policy: str | None) -> int:
    """Writes the proposed policy, and prints it with the command that uses it. INVALID where nothing is comparable."""
    from harness.core.paths import write_text
    from harness.gate.propose import proposed_policy
    from harness.workflows.gate import compare_evaluations

    path: Path = options.init_policy
    unread = [*([f"policy={policy}"] if policy else []), *(["--out"] if options.out else [])]
    unread += [*(["--anchor"] if options.anchor else []), *(["--like"] if options.like else [])]
    if unread:
        raise UsageError(f"--init-policy writes a policy and decides nothing; leave out {', '.join(unread)}")
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"--init-policy {path}: name a .yaml file, such as policy.yaml")
    if path.exists():
        raise UsageError(f"{path} exists; name another file, or remove it")
    comparison = compare_evaluations(options.baseline, options.candidate, options.runs_dir)
    if comparison.faults:
        raise EvidenceFault("; ".join(comparison.faults))
    text = proposed_policy(comparison, path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    print(text.rstrip())
    command = ["harness", "gate", options.baseline, options.candidate, f"policy={path}"]
    print(f"\nwritten: {path}. Read the margins, then decide: {shlex.join(command)}")
    return ExitCode.DONE


def _plan(options: argparse.Namespace, policy: str | None, overrides: Sequence[str]) -> int:
    from harness.evaluate.tasks.suite import metric_sizes
    from harness.gate.power_plan import earlier, plan, task_sizes
    from harness.report.terminal import print_plan
    from harness.workflows.compose import config_for
    from harness.workflows.gate import policy_named

    if options.baseline is not None:
        raise UsageError("gate --plan takes no evaluations. To plan with an earlier comparison, use --like RUN.")
    config = config_for(overrides)
    like = earlier(options.like, options.runs_dir) if options.like else None
    rules = policy_named(policy) if policy else config.gate
    metrics = {}
    if find_spec("lm_eval") is None:
        say("· lm-eval is not installed: each metric is planned with all items of its task, though it may have fewer")
    else:
        metrics = metric_sizes(config.tasks, config.suite.seed)
    print_plan(plan(rules, config.suite.name, task_sizes(config.tasks), like, metrics), like is not None)
    return ExitCode.DONE


def _policy(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of policy=, and every other override."""
    named = [one.removeprefix("policy=") for one in overrides if one.startswith("policy=")]
    return (named[-1] if named else None), [one for one in overrides if not one.startswith("policy=")]
