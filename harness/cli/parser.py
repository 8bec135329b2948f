"""The command line: verbs, their arguments and examples. Knows no work, only names."""

import argparse
from collections.abc import Callable
from pathlib import Path

from harness import __version__
from harness.cli import verbs
from harness.cli.ci import ci
from harness.cli.registry import promote, registry, verify

Verb = Callable[[argparse.Namespace], int]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="harness", description=__doc__, epilog=EXIT_CODES)
    parser.description = "Fine-tune a language model for what an organisation demands, and prove it."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(metavar="VERB", required=True)
    run = _verb(
        subparsers, "run", verbs.run, "everything: audit, train, serve, evaluate, compare, gate, report", RUN_EXAMPLE
    )
    run.add_argument("-m", "--multirun", action="store_true", help="run every combination of comma-separated values")
    audit = _verb(
        subparsers, "audit", verbs.audit, "load, check and mix the training data, or check any file", AUDIT_EXAMPLE
    )
    audit.add_argument("--input", type=Path, metavar="FILE", help="a file or folder to audit alone (source 'input')")
    audit.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (with --input: ./audit)")
    train = _verb(subparsers, "train", verbs.train, "the stages up to a checkpoint", TRAIN_EXAMPLE)
    train.add_argument(
        "--dry-run", action="store_true", help="say steps, tokens, parameters, memory and time instead of training"
    )
    evaluate = _verb(
        subparsers, "evaluate", verbs.evaluate, "serve checkpoints and score them on a suite", EVALUATE_EXAMPLE
    )
    evaluate.add_argument(
        "checkpoints",
        nargs="*",
        metavar="CHECKPOINT",
        help="run, model or adapter folder, hub id, or 'base'; NAME@0.5 is half way",
    )
    evaluate.add_argument("--aa", action="store_true", help="ask each model twice; report what share of items flips")
    evaluate.add_argument("--describe", action="store_true", help="what the suite's size can show; evaluates nothing")
    score = _verb(
        subparsers, "score", verbs.score, "grade saved answers with a domain task's own checks", SCORE_EXAMPLE
    )
    score.add_argument("task", metavar="TASK", help="a folder under tasks/ with a behavior.yaml")
    score.add_argument("responses", type=Path, metavar="RESPONSES.jsonl", help="rows id, prompt, response; or samples")
    score.add_argument("--out", type=Path, help="file to write the findings to, one row an answer")
    score.add_argument("--judge", metavar="URL", help="an OpenAI-compatible server that judges too, by a rubric")
    score.add_argument("--judge-model", metavar="NAME", help="the judge's name on that server")
    for name, work, does, example in (
        ("compare", verbs.compare, "paired differences of two evaluations, with intervals", COMPARE_EXAMPLE),
        ("gate", verbs.gate, "the verdict of a policy on two evaluations", GATE_EXAMPLE),
    ):
        verb = _verb(subparsers, name, work, does, example)
        optional = "?" if name == "gate" else None
        verb.add_argument(
            "baseline", metavar="BASELINE", nargs=optional, help="run, evaluation folder, or lm-eval output folder"
        )
        verb.add_argument("candidate", metavar="CANDIDATE", nargs=optional)
        verb.add_argument("--anchor", metavar="BASELINE", action="append", default=[], help=ANCHOR_HELP)
        verb.add_argument("--out", type=Path, help="folder to write the results to")
        verb.add_argument("--runs-dir", type=Path, default=Path("runs"))
    verb.add_argument("--plan", action="store_true", help="what the policy can decide on suite=NAME, before any run")
    verb.add_argument("--like", metavar="RUN", help="with --plan: a run or gate folder to take discordances from")
    serve = _verb(
        subparsers, "serve", verbs.serve, "the vLLM server exactly as the evaluation starts it", SERVE_EXAMPLE
    )
    serve.add_argument("checkpoint", metavar="RUN", help="run, model or adapter folder, hub id, or 'base'")
    serve.add_argument("--print", action="store_true", help="print the exact command instead of starting it")
    template = _verb(
        subparsers, "template", verbs.template, "the prompt contract: its card, and the checks", TEMPLATE_EXAMPLE
    )
    template.add_argument("action", choices=("show", "verify"))
    template.add_argument("checkpoint", nargs="?", help="run, model or adapter folder, hub id, or 'base'")
    template.add_argument("--server", metavar="URL", help="check this running server instead of starting one")
    template.add_argument("--model", help="the model's name on that server")
    template.add_argument("--static", action="store_true", help="only what needs no server")
    report = _verb(subparsers, "report", verbs.report, "HTML, Markdown and JUnit of runs", "harness report runs/NAME")
    report.add_argument("runs", nargs="+", metavar="RUN")
    report.add_argument("--runs-dir", type=Path, default=Path("runs"))
    _promotion_verbs(subparsers)
    deciding = _verb(subparsers, "ci", ci, "evaluate, gate and report a candidate in one step of a CI job", CI_EXAMPLE)
    deciding.add_argument("candidate", metavar="CANDIDATE", help="run, model or adapter folder, hub id")
    deciding.add_argument("--against", default="production", metavar="BASELINE", help="alias, run, folder or 'base'")
    deciding.add_argument("--policy", default="default", metavar="NAME", help="a name under conf/gate, or a path")
    deciding.add_argument("--smoke", action="store_true", help="the smoke suite instead of the configured one")
    deciding.add_argument("--out", type=Path, metavar="DIR", help="default: RUN/against/BASELINE, else ci-report")
    deciding.add_argument("--runs-dir", type=Path, default=Path("runs"))
    mirror = _verb(
        subparsers, "mirror", verbs.mirror, "copy the datasets of suites and tasks for machines offline", MIRROR_EXAMPLE
    )
    mirror.add_argument("names", nargs="*", metavar="SUITE", help="a suite, or lm-eval tasks and groups by name")
    mirror.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to copy to: the later hub_dir")
    mirror.add_argument("--verify", action="store_true", help="only check the digests of what is there; no network")
    doctor = _verb(
        subparsers, "doctor", verbs.doctor, "what this machine can do, and what repairs the rest", DOCTOR_EXAMPLE
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.add_argument("--deep", action="store_true", help="import vLLM too (half a minute)")
    doctor.add_argument("--online", action="store_true", help="ask the dataset hub too")
    return parser


def _promotion_verbs(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    promoting = _verb(
        subparsers, "promote", promote, "check a run's evidence again, move an alias to it", PROMOTE_EXAMPLE
    )
    promoting.add_argument("run", metavar="RUN")
    promoting.add_argument("--verdict", type=Path, metavar="DIR", help="a verdict against the alias (gate … --out DIR)")
    managing = _verb(
        subparsers, "registry", registry, "list, roll back, verify aliases; set their policy", REGISTRY_EXAMPLE
    )
    managing.add_argument("action", choices=("list", "rollback", "verify", "policy", "publish"))
    managing.add_argument("--to", metavar="MODEL", help="rollback: the model, run or entry number to go back to")
    managing.add_argument("--head", metavar="HASH", help="verify: an entry's hash that the history must hold")
    for verb in (promoting, managing):
        verb.add_argument("--alias", default="production")
        verb.add_argument("--why", default="", metavar="TEXT", help="kept in the history")
        verb.add_argument("--who", help="default: the CI's user, else yours")
    checking = _verb(
        subparsers, "verify", verify, "check a run's whole chain of evidence, offline", "harness verify runs/NAME"
    )
    checking.add_argument("run", metavar="RUN", help="run, verdict folder, or alias")
    for verb in (promoting, managing, checking):
        verb.add_argument(
            "--registry", type=Path, metavar="DIR", help="default: $HARNESS_REGISTRY, else beside the runs"
        )
        verb.add_argument("--runs-dir", type=Path, default=Path("runs"))


def _verb(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, work: Verb, does: str, example: str
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        usage=f"harness {name} [arguments] [key=value ...]",
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(verb=work)
    return parser


RUN_EXAMPLE = "harness run experiment=finance_disclaimer train.learning_rate=2e-4"
TRAIN_EXAMPLE = (
    "harness train experiment=finance_disclaimer launcher=accelerate num_processes=2 train.sequences_per_step=2"
)
AUDIT_EXAMPLE = "harness audit --input rows.jsonl --out checked audit=strict"
EVALUATE_EXAMPLE = "harness evaluate base runs/NAME suite=general hub_dir=../hub"
SCORE_EXAMPLE = "harness score disclaimer answers.jsonl --out graded.jsonl"
ANCHOR_HELP = "a further baseline that no guard may fall against (repeatable)"
COMPARE_EXAMPLE = "harness compare runs/NAME/eval/base runs/NAME"
GATE_EXAMPLE = """harness gate runs/NAME/eval/base runs/NAME policy=strict --out verdict
         harness gate --plan policy=strict suite=general"""
SERVE_EXAMPLE = "harness serve runs/NAME serve.port=8000   (key: VLLM_API_KEY in the environment)"
TEMPLATE_EXAMPLE = "harness template verify runs/NAME --server http://127.0.0.1:8000"
PROMOTE_EXAMPLE = "harness promote runs/NAME --why 'recall 0.97, no regression'"
REGISTRY_EXAMPLE = "harness registry rollback --why 'complaints about tone'"
CI_EXAMPLE = "harness ci runs/NAME --against production --policy default"
MIRROR_EXAMPLE = "harness mirror general --to hub   (then, anywhere: harness evaluate base suite=general hub_dir=hub)"
DOCTOR_EXAMPLE = "harness doctor hub_dir=../hub --json"
EXIT_CODES = """configuration: key=value overrides (Hydra syntax), for example experiment=finance_disclaimer gate=strict

exit codes: 0 done (run, gate: PASS)  1 defect  2 usage or configuration  3 environment
            10 FAIL  11 INCONCLUSIVE  12 INVALID  130 interrupted"""
