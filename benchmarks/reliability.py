"""Disturbances at random moments: does the same command finish afterwards, with the same result, and what is lost?

    python benchmarks/reliability.py [--tries 5] [--seed 1] [--only NAME ...]
    python benchmarks/reliability.py --soak 200

Every try is a project of its own with a tiny model, the real trainer and the real vLLM server. A try *survives* if the
same command, given again, ends with a verdict and with the scores and weights of a run that nobody disturbed, no
process of the disturbed one is left, and nothing printed a traceback. *Lost* counts what was finished before the
disturbance and is not there after it: answers in the journal that were asked again, history entries, aliases.

`--soak` asks one server again and again from one process and prints the growth of memory, open files and threads.
The tables of docs/reliability.md are this program's output.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, header, row

sys.path += [str(ROOT / "tests" / folder) for folder in ("faults", "integration", "gate", "registry")]

import disturbed
import tiny
from disturbed import NO_LINKS, STORY, World
from run_folders import write_run
from story import write_story

SLOW_LOCKS = """
import fcntl, random, time
_flock, _lockf = fcntl.flock, fcntl.lockf
def _slow(lock):
    def call(*arguments):
        time.sleep(random.uniform(0, 0.3))
        return lock(*arguments)
    return call
fcntl.flock, fcntl.lockf = _slow(_flock), _slow(_lockf)
"""
ENDS = {0: "PASS", 10: "FAIL", 11: "INCONCLUSIVE"}
RUN = ["run", *STORY, "name=r"]
WHO = ("--who", "ada", "--why", "try")


@dataclass
class Bench:
    """A folder for the tries, and the outcome of a run that nobody disturbed."""

    folder: Path
    base: Path
    rng: random.Random
    calm: object = None
    count: int = 0

    def world(self) -> World:
        self.count += 1
        project = self.folder / f"try-{self.count}"
        project.mkdir()
        return World(write_story(project, self.base))

    def registry(self, *names: str) -> World:
        self.count += 1
        project = self.folder / f"try-{self.count}"
        for name in names:
            write_run(project / "runs" / name, 300)
        world = World(project)
        for alias in ("production", "canary", *(f"a{n}" for n in range(8))):
            problem(world.run("registry", "init", "--alias", alias), {0: "made"})
        return world

    def finish(self, world: World, *more: str) -> int:
        """The same command again; the number of answers that were lost. Raises if it does not end as a calm run."""
        before = world.answered()
        problem(world.run(*RUN, *more), ENDS)
        if world.outcome("r") != self.calm:
            raise AssertionError(f"another outcome than undisturbed: {world.outcome('r')}")
        if left := world.temporary():
            raise AssertionError(f"left over: {left}")
        return max(0, before - world.answered())


def problem(ended: disturbed.Ended, codes: dict[int, str]) -> None:
    if wrong := disturbed.told(ended, codes):
        raise AssertionError(wrong)


def signalled(moment: str, number: signal.Signals, most: float) -> Callable[[Bench], int]:
    """The harness gets a signal up to `most` seconds after a stage began."""

    def attempt(bench: Bench) -> int:
        world = bench.world()
        started = world.start(*RUN)
        started.wait_for(disturbed.MOMENTS[moment])
        disturbed.pause(bench.rng, most)
        family = disturbed.descendants(started.process.pid)
        started.process.send_signal(number)
        ended = started.ended(120)
        if number != signal.SIGKILL:
            problem(ended, {130: "interrupted", **ENDS})
        if not disturbed.gone(family):
            raise AssertionError("a process outlives the run that started it")
        return bench.finish(world)

    return attempt


def server_signalled(number: signal.Signals) -> Callable[[Bench], int]:
    """vLLM's processes get a signal in the middle of an evaluation; the run itself has to go on."""

    def attempt(bench: Bench) -> int:
        world = bench.world()
        started = world.start(*RUN, "serve.concurrency=1", "serve.stall_timeout_s=15")
        started.wait_for(disturbed.MOMENTS["evaluation"])
        wanted = bench.rng.randrange(1, 30)
        disturbed.eventually(lambda: world.answered() >= wanted, 60)
        before = world.answered()
        for pid in started.servers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        problem(started.ended(600), ENDS)
        bench.finish(world, "serve.concurrency=1", "serve.stall_timeout_s=15")
        return max(0, before - world.answered())

    return attempt


def disk_full(bench: Bench) -> int:
    """No file may grow over a random size, from a few bytes to a few megabytes."""
    world = bench.world()
    limit = int(10 ** bench.rng.uniform(0, 6.7))
    problem(world.run(*RUN, limit=limit), {2: "told", 3: "environment", **ENDS})
    return bench.finish(world)


def no_links(bench: Bench) -> int:
    return bench.finish(bench.world().worse(NO_LINKS))


def slow_locks(bench: Bench) -> int:
    return bench.finish(bench.world().worse(SLOW_LOCKS))


def two_machines_run(bench: Bench) -> int:
    """Two hosts start the same run in the same folder; one works, the other waits or says so."""
    world, elsewhere = bench.world(), disturbed.other_machine()
    if not elsewhere:
        raise SystemExit("two machines: this user may not start a process under another host name")
    with ThreadPoolExecutor(2) as threads:
        ends = list(threads.map(lambda before: world.run(*RUN, before=before), ([], elsewhere)))
    for ended in ends:
        problem(ended, {2: "in use", 3: "in use", **ENDS})
    return bench.finish(world)


def two_machines_promote(bench: Bench) -> int:
    world, elsewhere = bench.registry("one", "two"), disturbed.other_machine()
    if not elsewhere:
        raise SystemExit("two machines: this user may not start a process under another host name")

    def promote(n: int) -> disturbed.Ended:
        run = f"runs/{('one', 'two')[n % 2]}"
        return world.run("promote", run, "--alias", f"a{n}", *WHO, before=elsewhere if n % 2 else ())

    with ThreadPoolExecutor(4) as threads:
        for ended in threads.map(promote, range(8)):
            problem(ended, {0: "promoted"})
    problem(world.run("registry", "verify"), {0: "holds"})
    return 8 - sum(world.run("verify", f"a{n}").code == 0 for n in range(8))


def killed_promoting(bench: Bench) -> int:
    world = bench.registry("one")
    started = world.start("promote", "runs/one", *WHO)
    disturbed.pause(bench.rng, 2.5)
    started.kill()
    problem(world.run("registry", "verify"), {0: "holds"})
    promoted = world.run("verify", "production").code == 0
    if not promoted:
        problem(world.run("promote", "runs/one", *WHO), {0: "promoted"})
    problem(world.run("verify", "production"), {0: "holds"})
    return 0


def clock_back(bench: Bench) -> int:
    """The clock of the second act is 40 days behind: the act is taken and flagged."""
    world = bench.registry("one")
    problem(world.run("promote", "runs/one", *WHO), {0: "promoted"})
    back = world.worse(disturbed.CLOCK_BACK).run("registry", "policy", "policy=strict", *WHO)
    problem(back, {0: "set"})
    verified = world.run("registry", "verify")
    problem(verified, {0: "holds"})
    if "clock" not in back.said + verified.said:
        raise AssertionError("the history does not say that the clock went back")
    return 0


def silent_tracker(bench: Bench) -> int:
    """W&B's server takes connections for the whole run and never answers."""
    import socket

    world = bench.world()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listening.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        world.variables |= {
            "WANDB_BASE_URL": f"http://127.0.0.1:{listening.getsockname()[1]}",
            "WANDB_API_KEY": "0" * 40,
        }
        tracked = ["tracker=wandb", "tracker.mode=online"]
        problem(world.run(*RUN, *tracked), {3: "told before any work", **ENDS})
        for connection in held:
            connection.close()
    return bench.finish(world)


FAULTS: dict[str, tuple[str, str, Callable[[Bench], int]]] = {
    **{
        f"kill_{moment.replace(' ', '_')}": ("kill -9 of the harness", moment, signalled(moment, signal.SIGKILL, most))
        for moment, most in (("audit", 2), ("training", 8), ("server start", 15), ("evaluation", 5))
    },
    **{
        f"term_{moment}": ("SIGTERM to the harness", moment, signalled(moment, signal.SIGTERM, most))
        for moment, most in (("audit", 2), ("training", 8), ("evaluation", 5))
    },
    "server_killed": ("kill -9 of vLLM", "evaluation", server_signalled(signal.SIGKILL)),
    "server_hung": ("vLLM stops answering (SIGSTOP)", "evaluation", server_signalled(signal.SIGSTOP)),
    "disk_full": ("full disk (no file over a random size)", "any", disk_full),
    "no_links": ("file system without hard links", "whole run", no_links),
    "slow_locks": ("locks that take up to 0.3 s", "whole run", slow_locks),
    "two_machines_run": ("two machines start one run", "whole run", two_machines_run),
    "two_machines_promote": ("two machines promote 8 times at once", "promotion", two_machines_promote),
    "kill_promoting": ("kill -9 of the harness", "promotion", killed_promoting),
    "clock_back": ("clock set back by 40 days", "promotion", clock_back),
    "silent_tracker": ("W&B's server never answers", "whole run", silent_tracker),
}


def soak(bench: Bench, times: int) -> None:
    """Memory, open files and threads of one process that evaluates on one server again and again."""
    import story
    from psutil import Process

    def state() -> tuple[float, int, int]:
        return Process().memory_info().rss / 2**20, Process().num_fds(), threading.active_count()

    world = bench.world()
    os.chdir(world.project)
    os.environ |= {name: value for name, value in world.variables.items() if name != "PYTHONPATH"}
    from harness.evaluate import checkpoints

    header("evaluations", "memory, MiB", "open files", "threads")
    with contextlib.ExitStack() as stack:
        servers = story.KeptServers(stack)
        import harness.serve.session as session

        name = next(n for n in ("launched", "vllm_server") if hasattr(session, n))
        setattr(session, name, servers.serve)
        for number in range(1, times + 1):
            told = story.call("evaluate", "base", *STORY, f"suite.seed={number}")
            if told.code:
                sys.exit(f"evaluation {number}: exit code {told.code}\n{told.said[-2000:]}")
            shutil.rmtree(world.project / "runs", ignore_errors=True)
            if number in (5, 10, 50, 100, 150) or number == times:
                memory, files, threads = state()
                row(number, round(memory), files, threads)
    print(f"\n{servers.started} server for {times} evaluations ({checkpoints.__name__})")


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--soak", type=int, default=0, metavar="TIMES")
    return parser.parse_args(arguments)


def main() -> None:
    chosen = options()
    failures = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bench = Bench(folder, tiny.make_base(folder / "base"), random.Random(chosen.seed))
        if chosen.soak:
            soak(bench, chosen.soak)
            return
        world = bench.world()
        problem(world.run(*RUN), ENDS)
        bench.calm = world.outcome("r")
        header("fault", "moment", "tries", "survived", "lost", "longest, s")
        for name in chosen.only:
            fault, moment, attempt = FAULTS[name]
            survived = lost = 0
            longest = 0.0
            for number in range(chosen.tries):
                before = time.perf_counter()
                try:
                    lost += attempt(bench)
                    survived += 1
                except AssertionError as error:
                    failures.append(f"{name}, try {number + 1}: {error}")
                longest = max(longest, time.perf_counter() - before)
            row(fault, moment, chosen.tries, survived, lost, round(longest))
    for failure in failures:
        print(f"\n{failure}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
