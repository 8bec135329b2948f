"""Verbs and exit codes. Nothing heavy is imported before a verb needs it."""

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from harness import __version__
from harness.console import say, silence_libraries
from harness.errors import INTERRUPTED, HarnessError, UsageError

if TYPE_CHECKING:
    from harness.config import Config
    from harness.records import Dataset

Verb = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb and returns its exit code (see docs/usage.md)."""
    signal.signal(signal.SIGTERM, _terminated)
    silence_libraries()
    options, overrides = _split(_parser(), sys.argv[1:] if arguments is None else list(arguments))
    options.overrides = overrides
    try:
        return int(options.verb(options))
    except HarnessError as error:
        say(f"harness: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("harness: interrupted. Finished stages are kept; the same command goes on from there.")
        return INTERRUPTED
    except OSError as error:
        if error.errno is None:
            raise
        say(f"harness: {error.strerror}: {error.filename or 'a file'}")
        return 3


def _terminated(_signal: int, _frame: object) -> NoReturn:
    """SIGTERM ends like Ctrl-C: servers are stopped, temporary folders removed."""
    raise KeyboardInterrupt


def _run(options: argparse.Namespace) -> int:
    from harness.compose import config_for, sweep

    overrides = _required(options.overrides, "experiment")
    if options.multirun:
        command = f"harness run -m {shlex.join(overrides)}"
        codes = sweep(overrides, Path("runs").resolve(), lambda config: _run_one(config, command))
        return next((code for code in SEVERITY if code in codes), 0)
    return _run_one(config_for(overrides), f"harness run {shlex.join(overrides)}")


def _run_one(config: "Config", command: str) -> int:
    from harness.pipeline import run_experiment
    from harness.report.terminal import print_verdict

    verdict, report = run_experiment(config, command)
    print_verdict(verdict, report)
    return verdict.exit_code


def _audit(options: argparse.Namespace) -> int:
    from harness.compose import config_for
    from harness.pipeline import Run, audit_alone, audit_stage
    from harness.store import locked

    config = config_for(options.overrides, options.input)
    if options.input is not None or options.out is not None:
        folder = options.out or Path("audit")
        dataset = audit_alone(config, folder)
    else:
        run = Run.of(config)
        with locked(run.folder):
            dataset = audit_stage(run)
        folder = run.folder / "data"
    return _told_audit(dataset, folder)


def _told_audit(dataset: "Dataset", folder: Path) -> int:
    """Counts by source and every broken limit; 10 when there is one."""
    for source in dataset.sources:
        quarantined = sum(source.quarantined.values())
        why = ", ".join(f"{code} {n}" for code, n in source.quarantined.items())
        told = f"{source.source}: {source.read} read, {source.kept} kept, {quarantined} quarantined"
        print(f"{told} ({why})" if why else told)
    for found in dataset.findings:
        if found.rows:
            print(f"{found.code}: {found.rows} rows found ({found.action})")
    print(folder)
    for broken in dataset.broken_limits:
        print(f"limit broken: {broken}")
    return 10 if dataset.broken_limits else 0


def _train(options: argparse.Namespace) -> int:
    from harness.compose import config_for
    from harness.pipeline import Run, train
    from harness.store import locked

    run = Run.of(config_for(_required(options.overrides, "experiment")))
    with locked(run.folder):
        print(train(run).path)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from harness.compose import config_for
    from harness.pipeline import evaluate_alone

    for folder in evaluate_alone(options.checkpoints, config_for(options.overrides)):
        print(folder)
    return 0


def _score(options: argparse.Namespace) -> int:
    from harness.evaluate.score import score

    _no_overrides("score", options.overrides)
    scores = score(options.task, options.responses)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in scores.rows()))
    print(scores.summary())
    if options.judge is not None:
        from harness.evaluate.judging import judged

        print(judged(options.task, options.responses, options.judge, options.judge_model))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from harness.pipeline import compare_evaluations

    _no_overrides("compare", options.overrides)
    comparison = compare_evaluations(options.baseline, options.candidate, options.runs_dir)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        comparison.save(options.out / "compare.json")
    for metric in comparison.metrics:
        interval = f"[{metric.ci_low:+.3f}, {metric.ci_high:+.3f}]"
        numbers = f"{metric.baseline:.3f} -> {metric.candidate:.3f}  {metric.delta:+.3f} {interval}"
        print(f"{metric.key}: {numbers}  n={metric.n}")
    for fault in comparison.faults:
        print(f"not comparable: {fault}")
    return 12 if comparison.faults else 0


def _gate(options: argparse.Namespace) -> int:
    from harness.pipeline import gate_evaluations
    from harness.report.terminal import print_verdict

    policy = next((o.removeprefix("policy=") for o in options.overrides if o.startswith("policy=")), "default")
    if unknown := [o for o in options.overrides if not o.startswith("policy=")]:
        raise UsageError(f"gate takes policy=NAME or policy=PATH, not: {', '.join(unknown)}")
    verdict, report = gate_evaluations(options.baseline, options.candidate, policy, options.out, options.runs_dir)
    print_verdict(verdict, report)
    return verdict.exit_code


def _report(options: argparse.Namespace) -> int:
    _no_overrides("report", options.overrides)
    from harness.report.write import write_report

    for name in options.runs:
        folder = next((p for p in (Path(name), options.runs_dir / name) if p.is_dir()), None)
        if folder is None:
            raise UsageError(f"{name}: no such run folder")
        print(write_report(folder))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from harness.compose import config_for
    from harness.serving import command_line, serve

    config = config_for(options.overrides)
    if not options.print:
        serve(options.checkpoint, config)
    print(command_line(options.checkpoint, config))
    return 0


def _template(options: argparse.Namespace) -> int:
    from harness.compose import config_for
    from harness.prompt.card import contract_card
    from harness.verification import contract_for, print_steps, verify

    config = config_for(options.overrides)
    if options.action == "show":
        print(contract_card(*contract_for(options.checkpoint, config)))
        return 0
    if options.checkpoint is None:
        raise UsageError("name what to verify: harness template verify CHECKPOINT")
    return print_steps(verify(options.checkpoint, config, options.server, options.model, options.static))


def _no_overrides(verb: str, overrides: Sequence[str]) -> None:
    if overrides:
        raise UsageError(f"{verb} reads no configuration; it does not take: {', '.join(overrides)}")


def _required(overrides: Sequence[str], group: str) -> Sequence[str]:
    if not any(o.startswith(f"{group}=") for o in overrides):
        from harness.compose import choices

        raise UsageError(f"name what to run: {group}=NAME, one of: {', '.join(choices(group))}")
    return overrides


def _split(parser: argparse.ArgumentParser, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options for argparse; everything with '=' that is no option is a configuration override."""
    overrides = [a for a in arguments if "=" in a and not a.startswith("--")]
    return parser.parse_args([a for a in arguments if a not in overrides]), overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="harness", description=__doc__, epilog=EXIT_CODES)
    parser.description = "Fine-tune a language model for what an organisation demands, and prove it."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    run = _verb(verbs, "run", _run, "everything: audit, train, serve, evaluate, compare, gate, report", RUN_EXAMPLE)
    run.add_argument("-m", "--multirun", action="store_true", help="run every combination of comma-separated values")
    audit = _verb(verbs, "audit", _audit, "load, check and mix the training data, or check any file", AUDIT_EXAMPLE)
    audit.add_argument("--input", type=Path, metavar="FILE", help="a file or folder to audit alone (source 'input')")
    audit.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (with --input: ./audit)")
    _verb(verbs, "train", _train, "the stages up to a checkpoint", "harness train experiment=finance_disclaimer")
    evaluate = _verb(verbs, "evaluate", _evaluate, "serve checkpoints and score them on a suite", EVALUATE_EXAMPLE)
    evaluate.add_argument(
        "checkpoints", nargs="+", metavar="CHECKPOINT", help="run, model or adapter folder, hub id, or 'base'"
    )
    score = _verb(verbs, "score", _score, "grade saved answers with a domain task's own checks", SCORE_EXAMPLE)
    score.add_argument("task", metavar="TASK", help="a folder under tasks/ with a behavior.yaml")
    score.add_argument("responses", type=Path, metavar="RESPONSES.jsonl", help="rows id, prompt, response; or samples")
    score.add_argument("--out", type=Path, help="file to write the findings to, one row an answer")
    score.add_argument("--judge", metavar="URL", help="an OpenAI-compatible server that judges too, by a rubric")
    score.add_argument("--judge-model", metavar="NAME", help="the judge's name on that server")
    for name, work, does, example in (
        ("compare", _compare, "paired differences of two evaluations, with intervals", COMPARE_EXAMPLE),
        ("gate", _gate, "the verdict of a policy on two evaluations", GATE_EXAMPLE),
    ):
        verb = _verb(verbs, name, work, does, example)
        verb.add_argument("baseline", metavar="BASELINE", help="run, evaluation folder, or lm-eval output folder")
        verb.add_argument("candidate", metavar="CANDIDATE")
        verb.add_argument("--out", type=Path, help="folder to write the results to")
        verb.add_argument("--runs-dir", type=Path, default=Path("runs"))
    serve = _verb(verbs, "serve", _serve, "the vLLM server exactly as the evaluation starts it", SERVE_EXAMPLE)
    serve.add_argument("checkpoint", metavar="RUN", help="run, model or adapter folder, hub id, or 'base'")
    serve.add_argument("--print", action="store_true", help="print the exact command instead of starting it")
    template = _verb(verbs, "template", _template, "the prompt contract: its card, and the checks", TEMPLATE_EXAMPLE)
    template.add_argument("action", choices=("show", "verify"))
    template.add_argument("checkpoint", nargs="?", help="run, model or adapter folder, hub id, or 'base'")
    template.add_argument("--server", metavar="URL", help="check this running server instead of starting one")
    template.add_argument("--model", help="the model's name on that server")
    template.add_argument("--static", action="store_true", help="only what needs no server")
    report = _verb(verbs, "report", _report, "HTML, Markdown and JUnit of runs", "harness report runs/NAME")
    report.add_argument("runs", nargs="+", metavar="RUN")
    report.add_argument("--runs-dir", type=Path, default=Path("runs"))
    return parser


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, work: Verb, does: str, example: str
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        usage=f"harness {name} [arguments] [key=value ...]",
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(verb=work)
    return parser


SEVERITY = (1, 2, 3, 12, 10, 11)
RUN_EXAMPLE = "harness run experiment=finance_disclaimer train.learning_rate=2e-4"
AUDIT_EXAMPLE = "harness audit --input rows.jsonl --out checked audit=strict"
EVALUATE_EXAMPLE = "harness evaluate base runs/NAME suite=general hub_dir=../hub"
SCORE_EXAMPLE = "harness score disclaimer answers.jsonl --out graded.jsonl"
COMPARE_EXAMPLE = "harness compare runs/NAME/eval/base runs/NAME"
GATE_EXAMPLE = "harness gate runs/NAME/eval/base runs/NAME policy=strict --out verdict"
SERVE_EXAMPLE = "harness serve runs/NAME serve.port=8000   (key: VLLM_API_KEY in the environment)"
TEMPLATE_EXAMPLE = "harness template verify runs/NAME --server http://127.0.0.1:8000"
EXIT_CODES = """configuration: key=value overrides (Hydra syntax), for example experiment=finance_disclaimer gate=strict

exit codes: 0 done (run, gate: PASS)  1 defect  2 usage or configuration  3 environment
            10 FAIL  11 INCONCLUSIVE  12 INVALID  130 interrupted"""


if __name__ == "__main__":
    sys.exit(main())
