"""Runs the filters on batches of rows, in this process, in worker processes or on Ray Data, with the same results."""

import json
import logging
import multiprocessing
import pickle
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from harness.core.errors import EnvironmentFault, HarnessError, MissingDependency
from harness.data.filtering import FilterChain, FilteredBatch
from harness.data.row import DataRow

RowBatch = Sequence[DataRow]
_filters: FilterChain | None = None


def filter_rows(
    batches: Iterable[RowBatch], filters: FilterChain, engine: str, workers: int, scratch: Path
) -> Iterator[FilteredBatch]:
    """The filtered batches, in order. `scratch` is a folder for temporary files."""
    if engine == "ray":
        return filter_rows_on_ray(batches, filters, scratch)
    return _in_processes(batches, filters, workers) if workers > 1 else map(filters, batches)


def _in_processes(batches: Iterable[RowBatch], filters: FilterChain, workers: int) -> Iterator[FilteredBatch]:
    """At most two batches for each worker are in progress, so that reading never runs far ahead of the filters."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _start, (filters,)) as pool:
        waiting: deque[Future[FilteredBatch]] = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(_work, batch))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise EnvironmentFault(
                f"one of {workers} worker processes of the audit died, perhaps for lack of memory. "
                f"Use fewer workers (audit.workers={max(1, workers // 2)}) or smaller batches (audit.batch_rows)."
            ) from None
        finally:
            for future in waiting:
                future.cancel()


def _start(filters: FilterChain) -> None:
    global _filters
    _filters = filters  # one for each process, so that its models load once


def _work(batch: RowBatch) -> FilteredBatch:
    if _filters is None:
        raise RuntimeError("this process was not started as a worker of the audit")
    return _filters(batch)


BATCHES_A_FILE = 4


def filter_rows_on_ray(batches: Iterable[RowBatch], filters: FilterChain, scratch: Path) -> Iterator[FilteredBatch]:
    """The filtered batches, in order, from tasks on the cluster that RAY_ADDRESS names, or else on a local one.

    Batches travel as Parquet files under `scratch`, so on several machines it must be on storage that all of them see.
    Raises MissingDependency without Ray.
    """
    try:
        import ray
        import ray.data
        import ray.exceptions
    except ModuleNotFoundError:
        raise MissingDependency("ray", "audit.engine=ray", "ray") from None
    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    try:
        with tempfile.TemporaryDirectory(prefix="ray-", dir=scratch) as folder:
            yield from _filtered(ray.data, batches, filters, Path(folder))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        raise (cause if isinstance(cause, HarnessError) else error) from None
    finally:
        if ours:
            ray.shutdown()


def _filtered(data: Any, batches: Iterable[RowBatch], filters: FilterChain, folder: Path) -> Iterator[FilteredBatch]:
    files = _write(batches, folder)
    if not files:
        return
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    # Tasks, not actors: actors would hold all CPUs of a small machine, so that nothing could read their input.
    # What a filter loads is cached in its process, and Ray reuses processes.
    rows = data.read_parquet(str(folder), override_num_blocks=files).map_batches(
        filter_batches, fn_args=(filters,), batch_size=1, batch_format="numpy"
    )
    for expected, row in enumerate(rows.iter_rows()):
        if row["number"] != expected:
            raise RuntimeError(f"batch {row['number']} came instead of batch {expected}")
        filtered: FilteredBatch = pickle.loads(row["filtered"])  # noqa: S301 - made by our own tasks
        yield filtered


def filter_batches(rows: dict[str, Any], filters: FilterChain) -> dict[str, Any]:
    """What runs on the cluster. Each row of the Ray dataset is a whole batch."""
    filtered = [pickle.dumps(filters(json.loads(batch))) for batch in rows["batch"]]
    return {"number": rows["number"], "filtered": filtered}


def _write(batches: Iterable[RowBatch], folder: Path) -> int:
    """Writes the batches as numbered JSON texts; returns the number of files."""
    import pyarrow
    import pyarrow.parquet

    count = 0
    pending: list[dict[str, Any]] = []

    def flush() -> None:
        if pending:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(pending), folder / f"{count:09d}.parquet")
            pending.clear()

    for batch in batches:
        pending.append({"number": count, "batch": json.dumps(list(batch))})
        count += 1
        if len(pending) == BATCHES_A_FILE:
            flush()
    flush()
    return len(list(folder.iterdir()))
