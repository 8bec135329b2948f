"""What the prompt checks cost: static, live beside a warm server, and per request as a share of the evaluation.

    python benchmarks/prompt_checks.py [--static] [-- key=value …]

Runs the suite on the configured base model (default: SmolLM2-135M, the smoke suite) on the real server; `--static`
stops before the server. The per-request share is the time spent comparing ids and encoding prompts (all encoding is
counted, also lm-eval's own for likelihoods), in the same thread that sends the requests.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from common import header, row

from harness.checkpoint.resolve import resolve_checkpoint
from harness.config.experiment import Config
from harness.core.console import silence_libraries
from harness.evaluate.answers import Answers
from harness.evaluate.plan import RequestPlan
from harness.evaluate.server_evaluation import ServerEvaluation
from harness.evaluate.tasks.load import load_tasks, seeded_samples
from harness.model.load import load_tokenizer, local_model
from harness.prompt.check import require_equal
from harness.prompt.contract import Contract
from harness.prompt.make import make_contract
from harness.prompt.render import Renderer
from harness.prompt.static import check_contract
from harness.serve.live_check import check_models
from harness.serve.server import BASE, vllm_server
from harness.serve.session import LiveServer, server_plan
from harness.workflows.compose import config_for


class Stopwatch:
    """Adds up the seconds that wrapped calls take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **keywords: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 where one is unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--static", action="store_true", help="measure the static check alone: no server is started")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    return parser.parse_args(arguments)


def main() -> None:
    given = options()
    silence_libraries()
    config = config_for(["tracker=none", "domain_tasks=[]", *given.overrides])
    tokenizer = load_tokenizer(local_model(config.model))
    started = time.perf_counter()
    contract = make_contract(config.template, tokenizer)
    problems = check_contract(contract, tokenizer)
    static = time.perf_counter() - started
    header("check", "measured")
    row(f"contract made and checked statically ({len(contract.golden)} conversations)", f"{static:.2f} s")
    if not given.static:
        on_server(config, contract, tokenizer)
    print(f"\nproblems found: {[problem.message for problem in problems if problem.severity == 'error']}")


def on_server(config: Config, contract: Contract, tokenizer: Any) -> None:
    """The rows of the live and the request checks."""
    base = resolve_checkpoint("base", config.model, config.template, Path(config.runs_dir))
    renderer = Renderer(contract, tokenizer)
    loaded = load_tasks(config.tasks, Path(config.hub_dir) if config.hub_dir else None)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        plan = server_plan({BASE: base}, contract, config.model.dtype, out / "prompt")
        with vllm_server(plan, config.serve, out / "vllm.log") as endpoint:
            check_models(endpoint, config.serve, renderer, {})  # warm
            started = time.perf_counter()
            compared = check_models(endpoint, config.serve, renderer, {})
            live = time.perf_counter() - started
            watch = Stopwatch()
            asked = RequestPlan(loaded, seeded_samples(loaded, config.tasks, config.suite.seed), renderer)
            server = LiveServer(lambda: nullcontext(lambda: endpoint))
            evaluation = ServerEvaluation(asked, {BASE: Answers(BASE, BASE, None)}, server, config.evaluation)
            with (
                patch("harness.evaluate.requests.require_equal", watch.wrap(require_equal)),
                patch.object(renderer, "encode", watch.wrap(renderer.encode)),
            ):
                evaluation.ask_all()
            seconds = time.monotonic() - evaluation.started_at
            count = len(evaluation.answers[BASE].values)
    row(f"live, warm server ({compared} prompts, stop ids, sampling defaults)", f"{live:.2f} s")
    share = watch.seconds / seconds
    row(f"per request ({count:,} requests, {seconds:.1f} s of evaluation)", f"{share:.2%} of the time")


if __name__ == "__main__":
    main()
