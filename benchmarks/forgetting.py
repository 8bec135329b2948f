"""General ability against the trained behaviour, for several shares of replay and several alpha: docs/forgetting.md.

    python benchmarks/forgetting.py [--replay 0 0.01 0.05 0.2] [--alpha 0.25 0.5 0.75 1] [-- key=value …]

One training per share of replay, one server for all its alphas. Finished stages are not repeated.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from harness.checkpoint.resolve import checkpoint, locate
from harness.config.experiment import Config
from harness.core.console import silence_libraries
from harness.core.store import locked
from harness.evaluate.checkpoints import evaluate_checkpoints
from harness.gate.comparison import compare
from harness.records.gate import MetricComparison
from harness.results.evidence import read_evidence
from harness.stats.proportion import wilson_interval
from harness.workflows.checkpoint_selection import base_checkpoint
from harness.workflows.compose import config_for
from harness.workflows.evaluate import tasks_of
from harness.workflows.run import Run, train

KEYS = ("smoke/general_smoke/acc", "smoke/disclaimer/recall", "smoke/disclaimer/specificity")


def main() -> None:
    given = options()
    silence_libraries()
    print("| replay | alpha | general_smoke: difference to base | disclaimer recall | disclaimer specificity |")
    print("| ---: | ---: | --- | --- | --- |", flush=True)
    for share in given.replay:
        config = config_for(["experiment=forgetting", "tracker=none", f"data.mix.replay={share}", *given.overrides])
        for alpha, metrics in curve(config, given.alpha).items():
            print(f"| {float(share):.0%} | {alpha} | {told(metrics, KEYS[0])} | {level(metrics, KEYS[1])} | "
                  f"{level(metrics, KEYS[2])} |", flush=True)  # fmt: skip


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 where one is missing or unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replay", nargs="+", default=["0", "0.01", "0.05", "0.2"])
    parser.add_argument("--alpha", nargs="+", default=["0.25", "0.5", "0.75", "1"])
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    return parser.parse_args(arguments)


def curve(config: Config, alphas: list[str]) -> dict[str, dict[str, MetricComparison]]:
    """The comparison with the base model, by alpha and metric; all alphas on one server."""
    run = Run.of(config)
    with locked(run.folder.path):
        trained = train(run)
        base = Path(trained.base_path)
        sides = {"base": base_checkpoint(base, trained.contract_sha256)}
        for alpha in alphas:
            folder, _ = locate(f"{trained.path}@{alpha}", config.model, run.runs)
            sides[f"alpha-{alpha}"] = checkpoint(folder, config.model, config.template, base)
        place = run.folder
        done = evaluate_checkpoints(sides, config.evaluation, place.evaluations, place.log, tasks_of(config))
    of_base = read_evidence(done["base"])
    found = {alpha: compare(of_base, read_evidence(done[f"alpha-{alpha}"])) for alpha in alphas}
    return {alpha: {metric.key: metric for metric in comparison.overall} for alpha, comparison in found.items()}


def told(metrics: dict[str, MetricComparison], key: str) -> str:
    metric = metrics[key]
    points = [100 * value for value in (metric.delta, metric.ci_low, metric.ci_high)]
    return f"{100 * metric.candidate:.1f}% ({points[0]:+.1f} [{points[1]:+.1f}, {points[2]:+.1f}], n = {metric.n})"


def level(metrics: dict[str, MetricComparison], key: str) -> str:
    """The candidate's level with its 95% interval (Wilson, 1927)."""
    metric = metrics[key]
    low, high = wilson_interval(round(metric.candidate * metric.n), metric.n)
    return f"{100 * metric.candidate:.1f}% [{100 * low:.1f}, {100 * high:.1f}] (n = {metric.n})"


if __name__ == "__main__":
    main()
