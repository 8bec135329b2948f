"""The harness as processes of its own that are disturbed, and what is left of them.

`tests/faults/` tries each disturbance once or twice; `benchmarks/reliability.py` tries it many times at random moments
and prints the table of docs/reliability.md.
"""

import contextlib
import errno
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
HARNESS = [sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())"]

# Float32, so that answers do not depend on what else is in a batch; a few items, so that a try takes seconds.
STORY = ["experiment=story", "model.dtype=float32", "suite=few", "train.epochs=6"]
MOMENTS = {
    "audit": "audit and mix the data",
    "training": "train on",
    "server start": "start vLLM",
    "evaluation": "server ready",
}

# A module that Python imports before everything else: it makes this process's world worse.
NO_LINKS = """
import errno, os
def _no(*_, **__):
    raise OSError(errno.EPERM, "Operation not permitted")
os.link = _no
"""
CLOCK_BACK = """
import datetime, time
_time, _datetime = time.time, datetime.datetime
_BACK = 40 * 24 * 3600
time.time = lambda: _time() - _BACK
class _Earlier(_datetime):
    @classmethod
    def now(cls, tz=None):
        return _datetime.fromtimestamp(_time() - _BACK, tz)
    @classmethod
    def utcnow(cls):
        return _datetime.utcfromtimestamp(_time() - _BACK)
datetime.datetime = _Earlier
"""


@dataclass
class World:
    """A project folder, its cache, and the environment of the processes that work in it."""

    project: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cache = self.project.parent / f"{self.project.name}-cache"
        self.variables = {
            "PYTHONPATH": str(ROOT),
            "HARNESS_CACHE": str(cache),
            "OMP_NUM_THREADS": "1",
            **self.variables,
        }

    def worse(self, text: str) -> "World":
        """The same world for processes that import `text` first."""
        folder = self.project.parent / f"worse-{abs(hash(text))}"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(text)
        return World(self.project, {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"})

    def start(self, *arguments: str, before: Sequence[str] = (), limit: int | None = None) -> "Started":
        """`harness ARGUMENTS` in a session of its own; `limit` is the largest file that it can write, in bytes."""

        def limited() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        log = self.project.parent / f"{self.project.name}-{time.monotonic_ns()}.log"
        log.touch()
        process = subprocess.Popen(
            [*before, *HARNESS, *arguments],
            cwd=self.project,
            env={**os.environ, **self.variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # not the file itself, which the limit would reach
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=limited,
        )
        writer = threading.Thread(target=_written, args=(process.stdout, log), daemon=True)
        writer.start()
        return Started(process, writer, log)

    def run(self, *arguments: str, before: Sequence[str] = (), limit: int | None = None) -> "Ended":
        return self.start(*arguments, before=before, limit=limit).ended()

    def temporary(self) -> list[str]:
        """Left-over temporary files and folders under runs/."""
        return [str(path) for path in self.project.glob("runs/**/.*.tmp-*")]

    def answered(self) -> int:
        """Answers that the journals hold."""
        count = 0
        for path in self.project.glob("runs/.cache/answers/*.sqlite"):
            with closing(sqlite3.connect(path)) as database:
                count += database.execute("SELECT count(*) FROM answers").fetchone()[0]
        return count

    def outcome(self, name: str) -> dict[str, Any]:
        """Verdict, scores and weights of the run `name`: what has to be the same after every disturbance."""
        (folder,) = (path.parent for path in self.project.glob(f"runs/{name}-*/verdict.json"))
        scores = {}
        for side in ("base", "candidate"):
            evaluation = json.loads((folder / "eval" / side / "evaluation.json").read_text())
            scores[side] = [(s["task"], s["metric"], s["value"], s["n"]) for s in evaluation["scores"]]
        weights = hashlib.sha256((folder / "checkpoint" / "adapter_model.safetensors").read_bytes()).hexdigest()
        return {
            "verdict": json.loads((folder / "verdict.json").read_text())["verdict"],
            "scores": scores,
            "weights": weights,
        }


@dataclass(frozen=True)
class Ended:
    """What a process returned and said; a process that a signal ended returns its negative number."""

    code: int
    said: str


@dataclass(frozen=True)
class Started:
    process: subprocess.Popen[bytes]
    writer: threading.Thread
    log: Path

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 240) -> bool:
        """Waits until the process has said `text`; False if it ended before."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if text in self.said():
                return True
            if self.process.poll() is not None:
                return text in self.said()
            time.sleep(0.02)
        raise AssertionError(f"{text!r} was not said within {seconds} s:\n{self.said()[-2000:]}")

    def ended(self, seconds: float = 600) -> Ended:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end_everything()
            raise AssertionError(f"not ended within {seconds} s:\n{self.said()[-2000:]}") from None
        self.writer.join(10)  # what has outlived the process may still hold the pipe
        return Ended(self.process.returncode, self.said())

    def group(self) -> list[int]:
        """The processes of the session that this one leads, itself among them."""
        return [pid for pid, session in _sessions() if session == self.process.pid]

    def servers(self) -> list[int]:
        """vLLM's processes among the descendants, also those that have a session of their own."""
        return [pid for pid in descendants(self.process.pid) if b"vllm" in _command(pid)]

    def end_everything(self) -> None:
        """SIGKILL to the process and every descendant."""
        family = [*descendants(self.process.pid), self.process.pid]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)

    def kill(self) -> Ended:
        """SIGKILL to the harness alone, as the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait(30)
        return Ended(self.process.returncode, self.said())


def _written(pipe: IO[bytes] | None, log: Path) -> None:
    assert pipe
    with pipe, log.open("wb", buffering=0) as file:
        while chunk := os.read(pipe.fileno(), 65536):
            file.write(chunk)


def _sessions() -> Iterator[tuple[int, int]]:
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(path.name), os.getsid(int(path.name))


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "cmdline").read_bytes()
    return b""


def descendants(pid: int) -> list[int]:
    """Children, their children, and so on."""
    found = []
    with contextlib.suppress(OSError):
        for task in (Path("/proc") / str(pid) / "task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def gone(pids: Sequence[int], seconds: float = 60) -> bool:
    """Whether all these processes end within some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not [pid for pid in pids if _command(pid)]:
            return True
        time.sleep(0.1)
    return False


def pause(rng: random.Random, most: float) -> None:
    time.sleep(rng.uniform(0, most))


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[bool]:
    """A file system of this size at `folder`; yields False where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    mounted = bool(mount) and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def other_machine() -> list[str]:
    """A command prefix that runs what follows under another host name and process table; [] where that is refused."""
    prefix = ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"]
    try:
        allowed = subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        allowed = False
    return prefix if allowed else []


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def told(ended: Ended, codes: Mapping[int, str]) -> str:
    """'' if the process ended as `codes` allow and without a traceback, else what is wrong."""
    if re.search(r"^Traceback \(most recent call last\)", ended.said, re.MULTILINE):
        return f"traceback, exit code {ended.code}:\n{ended.said[-3000:]}"
    if ended.code not in codes:
        return f"exit code {ended.code}:\n{ended.said[-3000:]}"
    return ""
