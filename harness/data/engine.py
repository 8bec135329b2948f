"""Where batches are judged: in this process, in worker processes, or on Ray Data. The results are the same."""

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from harness.data.filters.judgement import Row
from harness.data.judging import Judge, Judged
from harness.errors import EnvironmentFault

Batch = Sequence[Row]
_judge: Judge | None = None


def judged(batches: Iterable[Batch], judge: Judge, engine: str, workers: int, scratch: Path) -> Iterator[Judged]:
    """The judged batches, in order; `scratch` is a folder for temporary files."""
    if engine == "ray":
        from harness.data.ray_engine import judged_on_ray

        return judged_on_ray(batches, judge, scratch)
    return _in_processes(batches, judge, workers) if workers > 1 else map(judge, batches)


def _in_processes(batches: Iterable[Batch], judge: Judge, workers: int) -> Iterator[Judged]:
    """A window of batches is in flight, so that reading never runs far ahead of judging."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _start, (judge,)) as pool:
        waiting: deque[Future[Judged]] = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(_work, batch))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise EnvironmentFault(
                f"one of {workers} worker processes of the audit died (out of memory?); "
                "take fewer with audit.workers, or smaller batches with audit.batch_rows"
            ) from None
        finally:
            for future in waiting:
                future.cancel()


def _start(judge: Judge) -> None:
    global _judge
    _judge = judge  # one a process, so that its models load once


def _work(batch: Batch) -> Judged:
    if _judge is None:
        raise RuntimeError("this process was not started as a worker of the audit")
    return _judge(batch)
