"""`harness evaluate` and `harness score`: grade the answers of served models, or saved answers."""

import argparse
import json
import sys
from pathlib import Path

from harness.cli.arguments import MODEL, Subparsers, add_verb, refuse_settings
from harness.core.console import plain, say, show
from harness.core.errors import ExitCode, HarnessError, UsageError


def register(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers, "evaluate", evaluate,
        does="serve checkpoints and score them on a suite",
        usage="CHECKPOINT... [options] [key=value ...]",
        example="harness evaluate base runs/NAME suite=general hub_dir=../hub",
    )  # fmt: skip
    parser.add_argument(
        "checkpoints", nargs="*", metavar="CHECKPOINT", help=f"{MODEL}; NAME@0.5 is halfway from the base to NAME"
    )
    parser.add_argument(
        "--aa", action="store_true", help="query each model twice and report the share of items that change"
    )
    parser.add_argument(
        "--describe", action="store_true", help="show which differences the suite can detect; evaluate nothing"
    )
    parser = add_verb(
        subparsers, "score", score,
        does="grade saved answers with a domain task's own checks",
        usage="TASK RESPONSES [options]",
        example="harness score disclaimer answers.csv --out graded.jsonl --floor 0.95",
    )  # fmt: skip
    parser.add_argument("task", metavar="TASK", help="a folder under tasks/ with a behavior.yaml")
    parser.add_argument(
        "responses",
        type=Path,
        metavar="RESPONSES",
        help="JSON lines, CSV, TSV or .xlsx with id, prompt and response, or lm-eval samples",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write the graded answers to, one per row")
    parser.add_argument(
        "--floor", type=share, metavar="SHARE", help="exit with 10 if a smaller share of the answers passes (0 to 1)"
    )
    parser.add_argument(
        "--explain", action="store_true", help="print every rule of every answer, with the words that decided"
    )
    parser.add_argument(
        "--judge",
        metavar="URL",
        help="an OpenAI-compatible server whose model also judges the answers by a rubric",
    )
    parser.add_argument("--judge-model", metavar="NAME", help="the judge's name on that server")


def evaluate(options: argparse.Namespace) -> int:
    from harness.workflows.compose import config_for
    from harness.workflows.evaluate import evaluate_alone

    if options.describe:
        from harness.evaluate.tasks.suite import suite_description

        print(suite_description(config_for(options.overrides).evaluation))
        return ExitCode.DONE
    if not options.checkpoints:
        raise UsageError("evaluate needs a checkpoint: harness evaluate CHECKPOINT… suite=NAME")
    overrides = [*options.overrides, *(["suite.aa=true"] if options.aa else [])]
    refused: dict[str, HarnessError] = {}
    for folder in evaluate_alone(options.checkpoints, config_for(overrides), refused):
        print(folder)
    for name, fault in refused.items():
        print(f"not evaluated: {name}: {fault}", file=sys.stderr)
    return ExitCode.gravest(fault.exit_code for fault in refused.values())


def share(text: str) -> float:
    """A number from 0 to 1; raises ArgumentTypeError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1, such as 0.95")
    return value


def score(options: argparse.Namespace) -> int:
    from harness.evaluate.score import score_file

    refuse_settings("score", options.overrides)
    scores = score_file(options.task, options.responses)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in scores.rows()))
    for note in scores.notes:
        say(f"· {note}")
    if options.explain:
        for line in scores.explanations():
            show(line)
    print(plain(scores.summary(), 15_000))
    if options.judge is not None:
        from harness.evaluate.judging import judge_saved_answers

        print(judge_saved_answers(options.task, options.responses, options.judge, options.judge_model))
    passed, of = scores.passed, len(scores.checks)
    if options.floor is not None and passed / of < options.floor - 1e-12:
        say(f"harness: {passed} of {of} answers pass ({passed / of:.1%}), fewer than --floor {options.floor:g}")
        return ExitCode.FAIL
    return ExitCode.DONE
