"""scripts/setup_env.py: what it decides, its search for an interpreter, and its steps, with stand-in commands."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_env", root / "scripts" / "setup_env.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


setup_env = load(ROOT)

PYPROJECT: dict[str, Any] = {
    "build-system": {"requires": ["hatchling"]},
    "project": {
        "name": "tuning-harness",
        "description": "words",
        "dependencies": ["numpy>=2"],
        "optional-dependencies": {
            "engine": ["transformers>=5.16.1,<5.20"],
            "cpu": ["tuning-harness[engine]", "torch==2.13.0+cpu"],
            "dev": ["pytest>=9"],
        },
    },
}


def stand_in(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def answering(version: str, has_venv: bool = True) -> str:
    return f"echo /opt/python:{version}:{has_venv}"


def test_the_real_pyproject_pins_torch_for_both_builds() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    torch = {build: [line for line in extras[build] if line.startswith("torch==")] for build in ("cpu", "gpu")}
    assert [len(lines) for lines in torch.values()] == [1, 1]
    assert torch["cpu"] == [f"{torch['gpu'][0]}+cpu"]


def stamp_of(pyproject: dict[str, Any], python: str = "3.11.7", build: str = "cpu", root: str = "/a") -> dict[str, Any]:
    result: dict[str, Any] = setup_env.wanted_stamp(pyproject, python, build, Path(root))
    return result


def test_the_stamp_follows_what_decides_the_install_and_nothing_else() -> None:
    base = stamp_of(PYPROJECT)
    for same in (
        stamp_of({**PYPROJECT, "tool": {"ruff": {"line-length": 120}}}),
        stamp_of({**PYPROJECT, "project": {**PYPROJECT["project"], "description": "other words"}}),
        stamp_of(PYPROJECT, python="3.11.9"),
    ):
        assert setup_env.pending(base, same) == ""
    others = [
        stamp_of(PYPROJECT, python="3.12.1"),
        stamp_of(PYPROJECT, build="gpu"),
        stamp_of(PYPROJECT, root="/b"),
        stamp_of({**PYPROJECT, "build-system": {"requires": ["hatchling>=2"]}}),
        stamp_of({**PYPROJECT, "tool": {"hatch": {"version": {"path": "elsewhere"}}}}),
        stamp_of({**PYPROJECT, "project": {**PYPROJECT["project"], "dependencies": ["numpy>=3"]}}),
        stamp_of({**PYPROJECT, "project": {**PYPROJECT["project"], "optional-dependencies": {}}}),
        stamp_of({**PYPROJECT, "project": {**PYPROJECT["project"], "entry-points": {"group": {"a": "b:c"}}}}),
    ]
    assert len({json.dumps(stamp) for stamp in (base, *others)}) == 1 + len(others)
    assert all(setup_env.pending(base, other) for other in others)


def test_the_stamp_follows_the_version_of_the_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    before = stamp_of(PYPROJECT)
    monkeypatch.setattr(setup_env, "SETUP_VERSION", setup_env.SETUP_VERSION + 1)
    assert setup_env.pending(before, stamp_of(PYPROJECT)) == "make"


@pytest.mark.parametrize(
    ("change", "todo"),
    [
        ({}, ""),
        ({"versions": "torch 2"}, ""),
        ({"sha256": "other dependencies"}, "update"),
        ({"python": "3.12"}, "make"),
        ({"build": "gpu"}, "make"),
        ({"root": "/moved"}, "make"),
        ({"setup": 0}, "make"),
        ({"setup": 0, "sha256": "other dependencies"}, "make"),
    ],
)
def test_a_finished_venv_is_kept_only_for_the_same_python_build_and_place(change: dict[str, object], todo: str) -> None:
    stamp = stamp_of(PYPROJECT)
    assert setup_env.pending({**stamp, **change}, stamp) == todo


def test_an_interrupted_install_leaves_no_stamp_and_is_rebuilt(tmp_path: Path) -> None:
    path = tmp_path / "setup.json"
    assert setup_env.read_stamp(path) == {}
    assert setup_env.pending({}, stamp_of(PYPROJECT)) == "make"
    for torn in ("", '{"sha256": "x', "[1]", "\0\0"):
        path.write_text(torn, encoding="utf-8")
        assert setup_env.read_stamp(path) == {}


def test_probe_runs_the_command(tmp_path: Path) -> None:
    version = "{}.{}.{}".format(*sys.version_info[:3])
    assert setup_env.probe(sys.executable) == (str(Path(sys.executable).resolve()), version, "")
    broken = stand_in(tmp_path, "shim", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    assert setup_env.probe(str(broken))[2] == "does not run (pyenv: python3.12: command not found)"
    assert setup_env.probe(str(stand_in(tmp_path, "silent", "exit 4")))[2] == "does not run (exit code 4)"
    assert setup_env.probe("true")[2] == "does not run (exit code 0)"
    assert setup_env.probe(str(tmp_path / "absent"))[2] == "not found"
    assert setup_env.probe(str(tmp_path))[2].startswith("does not run")


def test_the_first_usable_interpreter_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "shim": stand_in(tmp_path, "shim", "exit 127"),
        "old": stand_in(tmp_path, "old", answering("3.10.9")),
        "new": stand_in(tmp_path, "new", answering("3.14.0")),
        "bare": stand_in(tmp_path, "bare", answering("3.12.1", has_venv=False)),
        "good": stand_in(tmp_path, "good", answering("3.13.0")),
    }
    monkeypatch.setattr(setup_env, "CANDIDATES", [str(path) for path in names.values()])
    assert setup_env.choose_interpreter({}) == ("/opt/python", "3.13.0")


def test_the_one_asked_for_comes_first_then_the_one_of_a_finished_venv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, kept, found = (
        str(stand_in(tmp_path, name, answering(version)))
        for name, version in (("asked", "3.11.1"), ("kept", "3.12.2"), ("found", "3.13.3"))
    )
    monkeypatch.setattr(setup_env, "CANDIDATES", [found, asked])
    assert setup_env.choose_interpreter({"PYTHON": asked}, kept)[1] == "3.11.1"
    assert setup_env.choose_interpreter({}, kept)[1] == "3.12.2"
    assert setup_env.choose_interpreter({})[1] == "3.13.3"


def test_an_interpreter_asked_for_that_will_not_do_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = stand_in(tmp_path, "good", answering("3.13.0"))
    monkeypatch.setattr(setup_env, "CANDIDATES", [str(good)])
    assert setup_env.choose_interpreter({"PYTHON": "no-such-python"})[1] == "3.13.0"
    said = capsys.readouterr().out
    assert f"PYTHON is not usable (no-such-python: not found); taking {good}: Python 3.13.0" in said


def test_no_usable_interpreter_names_what_was_found_and_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = stand_in(tmp_path, "old", answering("3.10.9"))
    monkeypatch.setattr(setup_env, "CANDIDATES", [str(old), str(tmp_path / "absent")])
    with pytest.raises(setup_env.SetupError) as caught:
        setup_env.choose_interpreter({"PYTHON": str(old)})
    message = str(caught.value)
    assert message.count(f"{old}: ") == 1
    assert caught.value.code == 3
    assert f"{old}: Python 3.10.9" in message
    assert f"{tmp_path / 'absent'}: not found" in message
    assert "Python 3.11, 3.12 or 3.13" in message


def test_a_python_without_venv_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = stand_in(tmp_path, "bare", answering("3.12.1", has_venv=False))
    monkeypatch.setattr(setup_env, "CANDIDATES", [str(bare)])
    with pytest.raises(setup_env.SetupError, match=r"apt-get install python3\.12-venv"):
        setup_env.choose_interpreter({})


def test_the_build_asked_for_is_taken_and_an_unknown_one_refused() -> None:
    for build in ("cpu", "gpu"):
        assert setup_env.choose_build({"HARNESS_BUILD": build}) == (build, f"HARNESS_BUILD={build}")
    with pytest.raises(setup_env.SetupError, match="say cpu or gpu") as caught:
        setup_env.choose_build({"HARNESS_BUILD": "tpu"})
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("body", "build", "why"),
    [
        ("echo 'GPU 0: NVIDIA L4 (UUID: GPU-1)'", "gpu", "nvidia-smi lists GPU 0: NVIDIA L4"),
        (
            "echo 'GPU 0: NVIDIA L4 (UUID: GPU-1)'; echo 'GPU 1: NVIDIA L4 (UUID: GPU-2)'",
            "gpu",
            "nvidia-smi lists GPU 0: NVIDIA L4 and 1 more",
        ),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "cpu", "nvidia-smi lists no GPU"),
        ("echo 'No devices found.'", "cpu", "nvidia-smi lists no GPU"),
    ],
)
def test_the_build_follows_nvidia_smi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, build: str, why: str
) -> None:
    stand_in(tmp_path, "nvidia-smi", body)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert setup_env.choose_build({}) == (build, why)


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ("ERROR: No matching distribution found for torch==2.13.0+cpu", "missing"),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n"
            "ERROR: No matching distribution found for torch==2.13.0+cpu",
            "network",
        ),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk"),
        ("ERROR: ResolutionImpossible: for help visit", "missing"),
        ("error: No solution found when resolving dependencies", "missing"),
        ("error: connection-timeout", "network"),
        ("error: metadata-generation-failed", "other"),
    ],
)
def test_a_failure_is_diagnosed(tmp_path: Path, output: str, kind: str) -> None:
    failed = setup_env.CommandFailed("pip install", output, tmp_path / "setup.log")
    assert (failed.cause, failed.code) == (kind, 3)
    advice = setup_env.ADVICE.get(kind)
    assert str(failed).splitlines()[-1] == (advice or f"The whole log: {tmp_path / 'setup.log'}")


def test_a_failure_shows_the_last_lines_without_noise_and_the_log(tmp_path: Path) -> None:
    noise = "WARNING: Location 'file:///x/' is ignored: it is neither a file nor a directory."
    output = "\n".join([*(f"line {number}" for number in range(50)), "ERROR: metadata-generation-failed", noise])
    failed = setup_env.CommandFailed("pip install", output, tmp_path / "setup.log")
    lines = str(failed).splitlines()
    assert lines[0].startswith("pip install failed")
    assert lines[-2] == failed.last_line == "ERROR: metadata-generation-failed"
    assert lines[-1].endswith(str(tmp_path / "setup.log"))
    assert len(lines) == 32
    assert noise not in str(failed)


def test_pip_and_uv_are_kept_inside_the_venv() -> None:
    environ = {"PATH": "/bin", "PIP_USER": "1", "PYTHONPATH": "/x", "UV_SYSTEM_PYTHON": "1", "UV_PYTHON": "3.13"}
    kept = setup_env.child_environment({**environ, "PIP_INDEX_URL": "https://mirror.invalid/simple"})
    assert (kept["PATH"], kept["PIP_INDEX_URL"]) == ("/bin", "https://mirror.invalid/simple")
    assert not {"PIP_USER", "PYTHONPATH", "UV_SYSTEM_PYTHON"} & set(kept)
    assert kept["UV_PYTHON"] == str(setup_env.VENV_PYTHON)
    assert kept["PIP_NO_INPUT"] == "1"


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert setup_env.main(["--help"]) == 0
    assert "HARNESS_BUILD" in capsys.readouterr().out
    assert setup_env.main(["now"]) == 2


FAKE_PYTHON = """
case "$1 $2" in
"-I -c") echo "$0:3.11.7:True" ;;
"-m venv") echo "$@" >> "$CALLS"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
"-m pip") shift 2; exec pip "$@" ;;
"-c "*) echo "torch 2.13.0+cpu" ;;
esac
"""
FAKE_UV = """
echo "uv $@" >> "$CALLS"
if [ "$1" = venv ]; then mkdir -p "$6/bin"; cp "$5" "$6/bin/python"; fi
"""


class Project:
    """A folder with the script and a pyproject.toml, and a PATH of stand-ins that write down how they are called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin = folder / "bin"
        self.calls = folder / "calls"
        self.pyproject = folder / "pyproject.toml"
        self.bin.mkdir()
        (folder / "scripts").mkdir()
        (folder / "scripts" / "setup_env.py").write_bytes((ROOT / "scripts" / "setup_env.py").read_bytes())
        self.depend("numpy>=2")
        stand_in(self.bin, "python3", FAKE_PYTHON)
        self.pip("")
        monkeypatch.setenv("PATH", f"{self.bin}:/usr/bin:/bin")
        monkeypatch.setenv("CALLS", str(self.calls))
        monkeypatch.setenv("HARNESS_BUILD", "cpu")
        for name in ("PYTHON", "HARNESS_UV"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("ctypes.CDLL", str)  # the machine of a test may lack what vLLM loads
        self.module = load(folder)

    def depend(self, line: str) -> None:
        extras = '[project.optional-dependencies]\ncpu = ["torch==2.13.0+cpu"]\n'
        self.pyproject.write_text(f'[project]\nname = "a"\ndependencies = ["{line}"]\n{extras}', encoding="utf-8")

    def pip(self, body: str) -> None:
        stand_in(self.bin, "pip", f'echo "pip $@" >> "$CALLS"\n{body}')

    def set_up(self) -> tuple[int, list[str]]:
        """The exit code, and the calls that make .venv or install into it."""
        self.calls.write_text("")
        code: int = self.module.main([])
        return code, [line.replace(f"{self.bin.parent}/", "") for line in self.calls.read_text().splitlines()]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


MADE = "-m venv --upgrade-deps .venv"
TORCH = "pip install --no-compile --no-deps torch==2.13.0+cpu"
HARNESS = "pip install --no-compile --editable .[cpu,dev]"
UNWANTED = "pip uninstall torchvision torchaudio torchcodec"


def test_the_second_call_does_nothing_and_changed_dependencies_are_installed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.set_up() == (0, [MADE, TORCH, HARNESS, UNWANTED])
    assert "torch 2.13.0+cpu" in capsys.readouterr().out
    assert project.set_up() == (0, [])
    assert ".venv is up to date" in capsys.readouterr().out
    project.depend("numpy>=3")
    assert project.set_up() == (0, [TORCH, HARNESS, UNWANTED])


def test_a_venv_whose_python_is_gone_is_made_anew(project: Project) -> None:
    project.set_up()
    project.module.VENV_PYTHON.unlink()
    assert project.set_up() == (0, [MADE, TORCH, HARNESS, UNWANTED])


def test_the_call_after_an_interruption_starts_afresh(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.set_up()
    project.depend("numpy>=3")
    project.pip("kill -INT $PPID")
    assert project.set_up() == (130, [TORCH])
    assert "the next call starts it afresh" in capsys.readouterr().err
    project.pip("")
    assert project.set_up() == (0, [MADE, TORCH, HARNESS, UNWANTED])


def test_pytorch_s_index_is_named_for_torch_alone_where_no_other_has_it(project: Project) -> None:
    missing = 'echo "ERROR: No matching distribution found for torch==2.13.0+cpu"; exit 1'
    project.pip(f'case "$*" in *extra-index*) ;; *no-deps*) {missing} ;; esac')
    extra = TORCH.replace(" torch", f" --extra-index-url {setup_env.TORCH_CPU_INDEX} torch")
    assert project.set_up() == (0, [MADE, TORCH, extra, HARNESS, UNWANTED])


def test_an_index_out_of_reach_is_said_at_once(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.pip('echo "WARNING: Retrying (Retry(total=0"; echo "ERROR: No matching distribution found"; exit 1')
    assert project.set_up() == (3, [MADE, TORCH])
    said = capsys.readouterr().err
    assert f"{TORCH} failed" in said
    assert "The package index could not be reached" in said


def test_a_missing_system_library_is_named_before_anything_is_installed(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", absent)
    assert project.set_up() == (3, [])
    said = capsys.readouterr().err
    assert "libnuma.so.1" in said
    assert "apt-get install libnuma1" in said


def test_uv_does_the_work_where_it_is_on_path(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(project.bin, "uv", FAKE_UV)
    made = "uv venv --allow-existing --seed --python bin/python3 .venv"
    assert project.set_up() == (0, [made, *(f"uv {line}" for line in (TORCH, HARNESS, UNWANTED))])
    assert project.set_up() == (0, [])
    project.depend("numpy>=3")
    monkeypatch.setenv("HARNESS_UV", "0")
    assert project.set_up() == (0, [TORCH, HARNESS, UNWANTED])


@pytest.mark.parametrize("fault", ["echo 'error: no such wheel'; exit 2", "#!/no/such/python"])
def test_pip_starts_over_where_uv_fails(project: Project, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    uv = stand_in(project.bin, "uv", fault)
    if fault.startswith("#!"):
        uv.write_text(fault)
    assert project.set_up() == (0, [MADE, TORCH, HARNESS, UNWANTED])
    said = capsys.readouterr().out
    assert re.search(r"uv failed \(.*(no such wheel|No such file).*\); pip starts over", said)
