"""Evaluation beside stock lm-eval: speed, equality, throughput, overhead.

    python benchmarks/evaluation.py peers --base MODEL --adapter CHECKPOINT --hub HUB [--items 60 300] [--only …]
    python benchmarks/evaluation.py equality --base MODEL --adapter CHECKPOINT --hub HUB [--items 40]
    python benchmarks/evaluation.py throughput --base MODEL --adapter CHECKPOINT --hub HUB
    python benchmarks/evaluation.py overhead --adapter CHECKPOINT [--requests 100000]
    python benchmarks/evaluation.py again --base MODEL --adapter CHECKPOINT --hub HUB

MODEL is the folder of a whole model, CHECKPOINT one that the harness trained on it, HUB a folder with local copies of
the datasets (benchmarks/README.md). `peers` adds its times to the JSON file `--out` and tabulates all of them.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import evaluation_equality
import evaluation_load
from evaluation_peers import PEERS, Setup, ours, prepare, stock

SPEED_TASKS = ("arc_easy", "hellaswag", "openbookqa", "gsm8k")
MODELS = ("base", "adapter")
TARGET = 0.5


def main() -> None:
    given = options()
    given.scratch.mkdir(parents=True, exist_ok=True)
    given.scratch = given.scratch.resolve()
    MODES[given.mode](given)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 where one is missing or unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--hub", type=Path)
    parser.add_argument("--items", type=int, nargs="+", default=[60])
    parser.add_argument("--only", nargs="+", default=["harness", *PEERS], help="harness, a peer, or peer:model")
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--scratch", type=Path, default=Path("scratch/evaluation"))
    parser.add_argument("--out", type=Path, default=Path("scratch/evaluation.json"))
    given = parser.parse_args(arguments)
    if given.mode != "overhead" and (given.base is None or given.hub is None):
        parser.error(f"{given.mode} needs --base FOLDER and --hub FOLDER")
    return given


def setup(given: argparse.Namespace, tasks: Sequence[str], items: int) -> Setup:
    """Makes, untimed, what an installation makes once: lm-eval's task index and the merged model."""
    os.environ["HARNESS_CACHE"] = str(given.scratch / "cache")
    chosen = given.tasks or tasks
    return prepare(given.base, given.adapter, chosen, items, given.new_tokens, given.hub, given.scratch)


def peers(given: argparse.Namespace) -> None:
    """Base and adapter from cold start to results, by the harness and by each stock path."""
    for items in given.items:
        prepared = setup(given, SPEED_TASKS, items)
        for name in given.only:
            peer, _, model = name.partition(":")
            for label in ["both"] if peer == "harness" else [model] if model else MODELS:
                record(given.out, "peers", peer, items, label, _timed(prepared, peer, label))
    print(_peers_table(load(given.out).get("peers", [])))


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


def equality(given: argparse.Namespace) -> None:
    """Generations, likelihoods and scores item by item."""
    prepared = setup(given, evaluation_equality.TASKS, given.items[0])
    print(evaluation_equality.table(prepared, [name for name in given.only if name != "harness"]))


def throughput(given: argparse.Namespace) -> None:
    """Generated tokens a second: through the server, and by vLLM's engine in process."""
    prepared = setup(given, ("gsm8k",), given.items[0])
    print(evaluation_load.throughput(prepared))


def overhead(given: argparse.Namespace) -> None:
    """Time and memory of the harness itself, against a server that answers at once."""
    print(evaluation_load.overhead(given.adapter, given.requests))


def again(given: argparse.Namespace) -> None:
    """The same evaluation twice: the second finds all results."""
    prepared = setup(given, SPEED_TASKS, given.items[0])
    first, second = _timed(prepared, "harness", "both"), ours(prepared)[0]
    print(f"first {first:.1f} s, again {second:.1f} s (target: under 5 s)")


MODES = {"peers": peers, "equality": equality, "throughput": throughput, "overhead": overhead, "again": again}

if __name__ == "__main__":
    main()
