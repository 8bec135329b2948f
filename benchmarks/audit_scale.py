"""How fast the audit is, how it grows with the rows, and how much memory it takes.

    python benchmarks/audit_scale.py filters --data DATA --rows 5000
    python benchmarks/audit_scale.py global  --data DATA --rows 1000 10000 100000 1000000
    python benchmarks/audit_scale.py audit   --data DATA --rows 1000 10000 100000 --workers 2

DATA is a folder of public rows (benchmarks/README.md). `filters`: each filter alone in one process. `global`:
deduplication and decontamination. `audit`: everything, from a file of JSON lines to train.parquet. Each size runs in a
process of its own; memory is the largest sum of the resident sets of that process and its children (shared pages count
twice).
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clean_rows import Recombined, Row, natural_rows
from common import ROOT

from harness.config.data import AuditConfig, DataConfig, SourceConfig
from harness.config.experiment import TaskConfig, read_yaml, validate
from harness.data.audit import audit
from harness.data.decontaminate import DecontaminateConfig, Decontamination
from harness.data.dedupe import DedupeConfig, Duplicates, sketch
from harness.data.evaluation_items import domain_items
from harness.data.settings import filters_of

BATCH = 2000
EXACT, NEAR = 0.02, 0.02  # of the rows repeat an earlier one, word for word or with a few words changed
CONF = ROOT / "conf" / "audit" / "default.yaml"


def main() -> None:
    given = options()
    if given.file:
        items = evaluation_items(given.items)
        if given.what == "filters":
            print(json.dumps(each_filter(given.file, items)))
        elif given.what == "global":
            print(json.dumps(global_steps(given.file, items)))
        else:
            print(json.dumps(whole_audit(given.file, items, given.workers)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for size in given.rows:
            path = Path(folder) / f"{size}.jsonl"
            write_rows(given.data, size, path)
            _line(size, *in_a_process(path, given))
            path.unlink()


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 where one is missing or unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["filters", "global", "audit"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--items", type=Path, help="evaluation items (JSON list); default: those of the shipped tasks")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def write_rows(data: Path, size: int, path: Path) -> None:
    """Recombined public rows, with duplicates among them."""
    chance = random.Random(size)
    made = Recombined(natural_rows(data), size)
    recent: list[Row] = []
    with path.open("w") as file:
        for number in range(size):
            row = made.row(number)
            draw = chance.random()
            if recent and draw < EXACT + NEAR:
                row = {**chance.choice(recent), "id": row["id"]}
                row["output"] += " Indeed." if draw < NEAR else ""
            if len(recent) < 5000 or chance.random() < 0.05:
                recent = [*recent[-4999:], row]
            file.write(json.dumps(row) + "\n")


def evaluation_items(path: Path | None) -> list[dict[str, Any]]:
    if path is not None:
        found: list[dict[str, Any]] = json.loads(path.read_text())
        return found
    return domain_items([TaskConfig(name=name) for name in ("disclaimer", "general_smoke")])


def in_a_process(path: Path, given: argparse.Namespace) -> tuple[dict[str, Any], float]:
    """What the measurement printed, and the peak memory of its processes in GiB."""
    import psutil

    command = [sys.executable, __file__, given.what, "--data", str(given.data), "--file", str(path)]
    command += ["--workers", str(given.workers)] + (["--items", str(given.items)] if given.items else [])
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, sum(_resident(p) for p in [root, *_children(root)]))
            time.sleep(0.2)
        output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return json.loads(output.strip().splitlines()[-1]), peak / 2**30


def _children(root: Any) -> list[Any]:
    import psutil

    try:
        found: list[Any] = root.children(recursive=True)
        return found
    except psutil.Error:
        return []


def _resident(process: Any) -> int:
    import psutil

    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _line(size: int, seconds: dict[str, Any], peak: float) -> None:
    told = ", ".join(
        f"{name} {value:.1f} s ({size / value:,.0f} rows/s)" if isinstance(value, float) else f"{name} {value}"
        for name, value in seconds.items()
    )
    print(f"{size:>9,} rows: {told}; peak {peak:.2f} GiB", flush=True)


def batches(path: Path) -> Iterator[list[Row]]:
    batch: list[Row] = []
    with path.open() as file:
        for line in file:
            batch.append(json.loads(line))
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def data_config(path: Path) -> DataConfig:
    return DataConfig(sources={"rows": SourceConfig(path=str(path), licence="CC-BY-4.0")}, validation=0.05)


def each_filter(path: Path, items: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of each filter over all rows, models loaded before."""
    config = validate(AuditConfig, read_yaml(CONF))
    parts = list(batches(path))
    found: dict[str, float] = {}
    for filter_ in [*filters_of(config, data_config(path)), Decontamination(items, DecontaminateConfig())]:
        filter_.judge(parts[0][:50])
        started = time.perf_counter()
        for part in parts:
            filter_.judge(part)
        found[filter_.code] = time.perf_counter() - started
    started = time.perf_counter()
    for part in parts:
        sketch(part, DedupeConfig())
    found["sketch"] = time.perf_counter() - started
    return found


def global_steps(path: Path, items: list[dict[str, Any]]) -> dict[str, Any]:
    """Seconds of decontamination, sketching and the search for duplicates, in one process."""
    seconds: dict[str, Any] = dict.fromkeys(("decontaminate", "sketch", "add"), 0.0)
    started = time.perf_counter()
    decontamination, duplicates = Decontamination(items, DecontaminateConfig()), Duplicates(DedupeConfig())
    seconds["index"] = time.perf_counter() - started
    for batch in batches(path):
        times = [time.perf_counter()]
        decontamination.match_all(batch)
        times.append(time.perf_counter())
        sketches = sketch(batch, DedupeConfig())
        times.append(time.perf_counter())
        duplicates.add(sketches)
        times.append(time.perf_counter())
        for name, begin, end in zip(("decontaminate", "sketch", "add"), times[:-1], times[1:], strict=True):
            seconds[name] += end - begin
    begin = time.perf_counter()
    found = duplicates.find()
    seconds["find"] = time.perf_counter() - begin
    seconds["all"] = time.perf_counter() - started
    return {**seconds, "duplicates": len(found.duplicates), "pairs skipped": found.skipped, "items": len(items)}


def whole_audit(path: Path, items: list[dict[str, Any]], workers: int) -> dict[str, Any]:
    """Seconds from the file of rows to train.parquet with the default audit, one source."""
    config = validate(AuditConfig, {**read_yaml(CONF), "workers": workers})
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        record = audit(data_config(path), config, items, Path(out))
        return {"audit": time.perf_counter() - started, "kept": record.rows + record.validation_rows}


if __name__ == "__main__":
    main()
