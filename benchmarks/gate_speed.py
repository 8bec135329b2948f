"""How long the gate takes from two lm-eval output folders to a verdict, and how much memory.

    python benchmarks/gate_speed.py FOLDER

measures one pair of folders, FOLDER/baseline and FOLDER/candidate. `gate.py speed` writes such pairs and starts this
script for each, so that memory is that of one size: the largest resident set of the process, plus that of the second
process that reads one side of big evidence.
"""

import argparse
import hashlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import header, row
from gate_rules import policy

from harness.gate.comparison import compare
from harness.gate.verdict import decide
from harness.records.stages import TaskIdentity
from harness.results.columns import Column
from harness.results.evidence import Evidence, read_sides

# what is shown, tasks, items a task, whether scores are right/wrong
SIZES = {
    "14,000 items, 57 subjects of a group": (57, 246, True),
    "14,000 items, 57 subjects, scores between 0 and 1": (57, 246, False),
    "1,000,000 items, one task": (1, 1_000_000, True),
    "1,000,000 items, ten tasks": (10, 100_000, True),
}


def speed(only: str) -> None:
    header("evidence", "files", "read and digested", "compared", "decided", "compared and decided", "largest memory")
    for name, (tasks, items, binary) in SIZES.items():
        if only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            written = [write(Path(folder) / side, tasks, items, binary, side) for side in ("baseline", "candidate")]
            told = subprocess.run([sys.executable, __file__, folder], check=True, capture_output=True, text=True)
            found = json.loads(told.stdout)
        row(name, f"{sum(written) / 1e6:.0f} MB", *(f"{found[part]:.2f} s" for part in ("read", "compared", "decided")),
            f"{found['compared'] + found['decided']:.2f} s", f"{found['bytes'] / 2**30:.2f} GiB")  # fmt: skip


def in_memory(items: int) -> None:
    """Compared and decided alone, on evidence made in memory."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(json.dumps({"arguments": {"gen_args_0": {"arg_0": "Q"}}, "filtered_resps": ["A"]}) + "\n")
        file.flush()
        before, generator = np.random.default_rng(0).random(items) < 0.6, np.random.default_rng(1)
        sides = [_evidence(values, Path(file.name)) for values in (before, before ^ (generator.random(items) < 0.05))]
        start = time.perf_counter()
        found = decide(policy(0.03), compare(sides[0], sides[1], policy(0.03)))
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{items:,} items made in memory: {found.verdict} in {seconds:.2f} s, largest memory {peak:.2f} GiB")


def _evidence(right: npt.NDArray[np.bool_], path: Path) -> Evidence:
    n = len(right)
    none, few = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int32)
    column = Column(
        path=path, items=np.sort(np.arange(n).astype("S64")), prompts=none, targets=none, values=right.astype(float),
        places=none, choices=few, docs=np.arange(n), samples=few + 1, fields={}, names={},
        unscored=0,
    )  # fmt: skip
    identity = TaskIdentity(
        version="1", num_fewshot=0, generation="null", samples_sha256="", asked=n, scored=n, failed=0
    )
    return Evidence(
        label="made", suite="made", weights_sha256="", contract_sha256="", identities={"task": identity}, groups={},
        samples={"task": {"acc": column}},
    )  # fmt: skip


def write(folder: Path, tasks: int, items: int, binary: bool, side: str) -> int:
    """An lm-eval output folder; returns its size in bytes. One item in ten differs between the sides."""
    folder.mkdir()
    names = [f"subject_{number}" for number in range(tasks)]
    for name in names:
        _samples(folder / f"samples_{name}.jsonl", name, items, binary, side)
    listed = {
        "results": {name: {} for name in names}, "group_subtasks": {"general": names},
        "n-shot": dict.fromkeys(names, 0),
        "configs": {name: {"task": name} for name in names}, "versions": dict.fromkeys(names, 1),
        "n-samples": {name: {"original": items, "effective": items} for name in names},
        "higher_is_better": {name: {"acc": True} for name in names}, "model_name": side,
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(listed))
    return sum(path.stat().st_size for path in folder.iterdir())


def _samples(path: Path, task: str, items: int, binary: bool, side: str) -> None:
    common, own = random.Random(task), random.Random(f"{task} {side}")
    with path.open("w") as file:
        for number in range(items):
            digest = hashlib.sha256(f"{task} {number}".encode()).hexdigest()
            shared, flipped = common.random(), own.random() < 0.05
            score = float((shared < 0.6) != flipped) if binary else min(max(shared + own.gauss(0, 0.1), 0), 1)
            file.write(
                f'{{"doc_id": {number}, "doc": {{"question": "What is {number}?"}}, "target": "0", "arguments": '
                f'{{"gen_args_0": {{"arg_0": "Question {number}"}}}}, "resps": [["{number}"]], "filtered_resps": '
                f'["{number}"], "filter": "none", "metrics": ["acc"], "doc_hash": "{digest}", '
                f'"prompt_hash": "{digest}", "target_hash": "{digest}", "acc": {score}}}\n'
            )


def measure(folder: Path) -> dict[str, float]:
    """Seconds of each part, after the imports, and the largest resident set in bytes."""
    times = [time.perf_counter()]
    evidence = read_sides((folder / "baseline", folder / "candidate"))
    times.append(time.perf_counter())
    rules = policy(0.03)
    comparison = compare(evidence[0], evidence[1], rules)
    times.append(time.perf_counter())
    decided = decide(rules, comparison)
    times.append(time.perf_counter())
    if decided.verdict == "INVALID":
        raise SystemExit("; ".join(decided.reasons))
    parts = dict(zip(("read", "compared", "decided"), (b - a for a, b in pairwise(times)), strict=True))
    used = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {**parts, "bytes": 1024 * sum(used)}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    print(json.dumps(measure(options().folder)))
