"""Evaluation beside stock lm-eval: speed, equality, throughput, overhead.

    python benchmarks/evaluation.py peers --base DIR --adapter DIR --hub DIR [--items 60 300] [--only harness vllm …]
    python benchmarks/evaluation.py equality --base DIR --adapter DIR --hub DIR [--items 40]
    python benchmarks/evaluation.py throughput --base DIR --adapter DIR --hub DIR
    python benchmarks/evaluation.py overhead --adapter DIR [--requests 100000]
    python benchmarks/evaluation.py again --base DIR --adapter DIR --hub DIR

`--base` is a folder of a whole model, `--adapter` a checkpoint of the harness trained on it, `--hub` a folder with
local copies of the datasets. Measured runs are added to `--out` (JSON), and the tables are made of all that it holds.
"""

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import evaluation_equality
import evaluation_load
from evaluation_peers import PEERS, Setup, ours, prepare, stock

SPEED_TASKS = ("arc_easy", "hellaswag", "openbookqa", "gsm8k")
MODELS = ("base", "adapter")
TARGET = 0.5


def main() -> None:
    options = _options()
    globals()[options.mode](options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["peers", "equality", "throughput", "overhead", "again"])
    parser.add_argument("--base", type=Path)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--hub", type=Path, default=Path("../shared/hub"))
    parser.add_argument("--items", type=int, nargs="+", default=[60])
    parser.add_argument("--only", nargs="+", default=["harness", *PEERS], help="harness, or a peer, or peer:model")
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--scratch", type=Path, default=Path("scratch/evaluation"))
    parser.add_argument("--out", type=Path, default=Path("scratch/evaluation.json"))
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    options.scratch = options.scratch.resolve()
    return options


def setup(options: argparse.Namespace, tasks: Any, items: int) -> Setup:
    """Everything that is made once an installation (lm-eval's task index, the merged model) is made here, untimed."""
    os.environ["HARNESS_CACHE"] = str(options.scratch / "cache")
    chosen = options.tasks or tasks
    return prepare(options.base, options.adapter, chosen, items, options.new_tokens, options.hub, options.scratch)


def peers(options: argparse.Namespace) -> None:
    """Base and adapter from cold start to results, by the harness and by each stock path."""
    for items in options.items:
        prepared = setup(options, SPEED_TASKS, items)
        for name in options.only:
            peer, _, model = name.partition(":")
            for label in ["both"] if peer == "harness" else [model] if model else MODELS:
                record(options.out, "peers", peer, items, label, _timed(prepared, peer, label))
    print(_peers_table(load(options.out).get("peers", [])))


def _timed(prepared: Setup, peer: str, model: str) -> float:
    if peer == "harness":
        shutil.rmtree(prepared.scratch / "runs", ignore_errors=True)
        return ours(prepared)[0]
    return stock(prepared, peer, model)[0]


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def record(path: Path, mode: str, peer: str, items: int, model: str, seconds: float) -> None:
    """Adds a measured time; a later one of the same run takes the place of an earlier one."""
    kept = load(path)
    rows = [row for row in kept.get(mode, []) if (row["peer"], row["items"], row["model"]) != (peer, items, model)]
    at = time.strftime("%Y-%m-%d %H:%M:%S")
    rows.append({"peer": peer, "items": items, "model": model, "seconds": round(seconds, 1), "at": at})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**kept, mode: rows}, indent=1) + "\n")
    print(f"{peer} {model} {items}: {seconds:.1f} s", flush=True)


def _peers_table(rows: list[dict[str, Any]]) -> str:
    lines = ["| items a task | path | base (s) | adapter (s) | both (s) | harness / path |", "| --- " * 6 + "|"]
    for items in sorted({row["items"] for row in rows}):
        times = {(row["peer"], row["model"]): row["seconds"] for row in rows if row["items"] == items}
        own = times.get(("harness", "both"))
        for peer in ("harness", *PEERS):
            base, adapter = times.get((peer, "base")), times.get((peer, "adapter"))
            both = own if peer == "harness" else base + adapter if base and adapter else None
            ratio = f"{own / both:.2f}" if own and both and peer != "harness" else ""
            if both or base or adapter:
                cells = [f"{value:.0f}" if value else "" for value in (base, adapter, both)]
                lines.append(f"| {items} | {peer} | {' | '.join(cells)} | {ratio} |")
    return "\n".join([*lines, f"\nTarget: {TARGET} of the fastest stock path."])


def equality(options: argparse.Namespace) -> None:
    """Generations, likelihoods and scores item by item."""
    prepared = setup(options, evaluation_equality.TASKS, options.items[0])
    print(evaluation_equality.table(prepared, [name for name in options.only if name != "harness"]))


def throughput(options: argparse.Namespace) -> None:
    """Generated tokens a second: through the server, and by vLLM's engine in process."""
    prepared = setup(options, ("gsm8k",), options.items[0])
    print(evaluation_load.throughput(prepared))


def overhead(options: argparse.Namespace) -> None:
    """Time and memory of the harness itself, against a server that answers at once."""
    print(evaluation_load.overhead(options.adapter, options.requests))


def again(options: argparse.Namespace) -> None:
    """The same evaluation twice: the second finds all results."""
    prepared = setup(options, SPEED_TASKS, options.items[0])
    first, second = _timed(prepared, "harness", "both"), ours(prepared)[0]
    print(f"first {first:.1f} s, again {second:.1f} s (target: under 5 s)")


if __name__ == "__main__":
    main()
