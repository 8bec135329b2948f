"""The pure functions of scripts/setup_env.py, and its search for an interpreter with stand-in commands."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_env", ROOT / "scripts" / "setup_env.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


setup_env = load()

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
    return f"""echo '["/opt/python", [{version}], {"true" if has_venv else "false"}]'"""


def test_requirements_resolve_extras_that_name_other_extras() -> None:
    asked = setup_env.requirements(PYPROJECT["project"], ["cpu", "dev"])
    assert sorted(asked) == ["numpy>=2", "pytest>=9", "torch==2.13.0+cpu", "transformers>=5.16.1,<5.20"]


def test_requirements_of_extras_that_name_each_other_end() -> None:
    project = {"name": "a-b", "optional-dependencies": {"x": ["a-b[y]", "one"], "y": ["a-b[x]", "two"]}}
    assert sorted(setup_env.requirements(project, ["x"])) == ["one", "two"]


def test_the_real_pyproject_pins_torch_for_both_builds() -> None:
    project = setup_env.read_pyproject(ROOT / "pyproject.toml")["project"]
    torch = {
        build: setup_env.requirement_of(setup_env.requirements(project, [build]), "torch") for build in setup_env.BUILDS
    }
    assert torch["cpu"] == f"{torch['gpu']}+cpu"


def test_requirement_of_tells_names_apart_and_refuses_none_or_two() -> None:
    assert setup_env.requirement_of(["torchvision", "torch==2"], "torch") == "torch==2"
    for asked in (["torchvision"], ["torch", "torch>=2"]):
        with pytest.raises(setup_env.SetupError, match="exactly once"):
            setup_env.requirement_of(asked, "torch")


def test_fingerprint_follows_what_decides_the_install_and_nothing_else() -> None:
    def of(pyproject: dict[str, Any], python: str = "3.11", build: str = "cpu", root: str = "/a") -> str:
        result: str = setup_env.fingerprint(pyproject, python, build, Path(root))
        return result

    base = of(PYPROJECT)
    assert base == of({**PYPROJECT, "tool": {"ruff": {"line-length": 120}}})
    assert base == of({**PYPROJECT, "project": {**PYPROJECT["project"], "description": "other words"}})
    others = [
        of(PYPROJECT, python="3.12"),
        of(PYPROJECT, build="gpu"),
        of(PYPROJECT, root="/b"),
        of({**PYPROJECT, "build-system": {"requires": ["hatchling>=2"]}}),
        of({**PYPROJECT, "project": {**PYPROJECT["project"], "dependencies": ["numpy>=3"]}}),
        of({**PYPROJECT, "project": {**PYPROJECT["project"], "optional-dependencies": {}}}),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_fingerprint_follows_the_version_of_the_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    before = setup_env.fingerprint(PYPROJECT, "3.11", "cpu", Path("/a"))
    monkeypatch.setattr(setup_env, "SETUP_VERSION", setup_env.SETUP_VERSION + 1)
    assert setup_env.fingerprint(PYPROJECT, "3.11", "cpu", Path("/a")) != before


@pytest.mark.parametrize(
    ("change", "rebuild"),
    [
        ({}, False),
        ({"sha256": "other dependencies"}, False),
        ({"python": "3.12"}, True),
        ({"build": "gpu"}, True),
        ({"root": "/moved"}, True),
        ({"setup": 0}, True),
    ],
)
def test_a_finished_venv_is_kept_only_for_the_same_python_build_and_place(
    change: dict[str, object], rebuild: bool
) -> None:
    stamp = {"setup": setup_env.SETUP_VERSION, "python": "3.11", "build": "cpu", "root": "/a", "sha256": "x"}
    assert setup_env.must_rebuild({**stamp, **change}, "3.11", "cpu", Path("/a")) is rebuild


def test_an_interrupted_install_leaves_no_stamp_and_is_rebuilt(tmp_path: Path) -> None:
    path = tmp_path / "setup.json"
    assert setup_env.read_stamp(path) == {}
    assert setup_env.must_rebuild({}, "3.11", "cpu", tmp_path)
    for torn in ("", '{"sha256": "x', "[1]", "\0\0"):
        path.write_text(torn, encoding="utf-8")
        assert setup_env.read_stamp(path) == {}


def test_a_stamp_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "setup.json"
    setup_env.write_stamp(path, {"sha256": "x"})
    assert setup_env.read_stamp(path) == {"sha256": "x"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["setup.json"]


def test_candidates_start_with_the_one_asked_for_and_repeat_none() -> None:
    assert setup_env.candidates({}) == list(setup_env.CANDIDATES)
    assert setup_env.candidates({"PYTHON": "python3.12"})[:2] == ["python3.12", "python3"]
    assert len(setup_env.candidates({"PYTHON": "python3.12"})) == len(setup_env.CANDIDATES)


def test_probe_runs_the_command(tmp_path: Path) -> None:
    own = setup_env.probe(sys.executable)
    assert own.version == sys.version_info[:3]
    assert own.supported
    broken = stand_in(tmp_path, "shim", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    assert setup_env.probe(str(broken)).fault == "does not run (pyenv: python3.12: command not found)"
    assert setup_env.probe(str(stand_in(tmp_path, "silent", "exit 4"))).fault == "does not run (exit code 4)"
    assert setup_env.probe(str(tmp_path / "absent")).fault == "not found"
    assert setup_env.probe(str(tmp_path)).fault.startswith("does not run")


def test_the_first_usable_interpreter_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "shim": stand_in(tmp_path, "shim", "exit 127"),
        "old": stand_in(tmp_path, "old", answering("3, 10, 9")),
        "new": stand_in(tmp_path, "new", answering("3, 14, 0")),
        "bare": stand_in(tmp_path, "bare", answering("3, 12, 1", has_venv=False)),
        "good": stand_in(tmp_path, "good", answering("3, 13, 0")),
    }
    monkeypatch.setattr(setup_env, "CANDIDATES", [str(path) for path in names.values()])
    assert setup_env.choose_interpreter({}).command == str(names["good"])


def test_an_interpreter_asked_for_that_will_not_do_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = stand_in(tmp_path, "good", answering("3, 13, 0"))
    monkeypatch.setattr(setup_env, "CANDIDATES", [str(good)])
    assert setup_env.choose_interpreter({"PYTHON": "no-such-python"}).command == str(good)
    assert "PYTHON is not usable (no-such-python: not found)" in capsys.readouterr().out


def test_no_usable_interpreter_names_what_was_found_and_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = stand_in(tmp_path, "old", answering("3, 10, 9"))
    monkeypatch.setattr(setup_env, "CANDIDATES", [str(old), str(tmp_path / "absent")])
    with pytest.raises(setup_env.SetupError) as caught:
        setup_env.choose_interpreter({})
    message = str(caught.value)
    assert caught.value.code == 3
    assert f"{old}: Python 3.10.9" in message
    assert f"{tmp_path / 'absent'}: not found" in message
    assert "Python 3.11, 3.12 or 3.13" in message


def test_a_python_without_venv_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = stand_in(tmp_path, "bare", answering("3, 12, 1", has_venv=False))
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
        ("error: metadata-generation-failed", "other"),
    ],
)
def test_diagnose(output: str, kind: str) -> None:
    assert setup_env.diagnose(output) == kind


def test_a_failure_shows_the_last_lines_without_noise_and_the_log(tmp_path: Path) -> None:
    noise = "WARNING: Location 'file:///x/' is ignored: it is neither a file nor a directory."
    output = "\n".join([*(f"line {number}" for number in range(50)), noise, "ERROR: metadata-generation-failed"])
    message = setup_env.failure_message("pip install", output, tmp_path / "setup.log")
    lines = message.splitlines()
    assert lines[0].startswith("pip install failed")
    assert lines[-2] == "ERROR: metadata-generation-failed"
    assert lines[-1].endswith(str(tmp_path / "setup.log"))
    assert len(lines) == 32
    assert noise not in message


def test_child_environment_keeps_pip_inside_the_venv() -> None:
    environ = {"PATH": "/bin", "PIP_USER": "1", "PYTHONPATH": "/x", "PIP_INDEX_URL": "https://mirror.invalid/simple"}
    assert setup_env.child_environment(environ) == {
        "PATH": "/bin",
        "PIP_INDEX_URL": "https://mirror.invalid/simple",
    }


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert setup_env.main(["--help"]) == 0
    assert "HARNESS_BUILD" in capsys.readouterr().out
    assert setup_env.main(["now"]) == 2
