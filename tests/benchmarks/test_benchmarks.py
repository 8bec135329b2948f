"""Every benchmark shows its help at once, and every command that the documentation quotes is one that it accepts."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = [
    f"benchmarks/{path.name}"
    for path in sorted((ROOT / "benchmarks").glob("*.py"))
    if '__name__ == "__main__"' in path.read_text()
]
SCRIPTS = [*BENCHMARKS, "scripts/fingerprint_texts.py"]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "benchmarks" / "README.md"]
COMMAND = re.compile(rf"python ({'|'.join(SCRIPTS)})([^`\n|]*)")
HEAVY = ("torch", "transformers", "vllm", "datasets", "pandas", "presidio_analyzer", "sklearn", "wandb", "trl", "ray")
PARSE = """
import importlib, json, sys
script = importlib.import_module(sys.argv[1])
for arguments in json.loads(sys.argv[2]):
    print(arguments)
    script.options(arguments)
"""


def quoted() -> dict[str, list[list[str]]]:
    """The arguments of each command in docs/ and the READMEs, by script; an ellipsis stands for more of the same."""
    commands: dict[str, list[list[str]]] = {}
    for page in PAGES:
        for script, arguments in COMMAND.findall(page.read_text()):
            commands.setdefault(script, []).append(shlex.split(arguments.replace("…", "")))
    return commands


def run(*command: str, folder: str = ".") -> "subprocess.CompletedProcess[str]":
    paths = [str(ROOT / folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_the_command_and_loads_nothing_heavy(script: str) -> None:
    done = run("-X", "importtime", script, "--help")  # lists each imported module on standard error
    assert done.returncode == 0, done.stderr
    assert Path(script).name in done.stdout
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "argparse" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_documentation_quotes_only_scripts_that_exist() -> None:
    named = {name for page in PAGES for name in re.findall(r"(?<!/)\b(?:benchmarks|scripts)/\w+\.py", page.read_text())}
    assert len(named) > 8
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


@pytest.mark.parametrize("script", sorted(quoted()))
def test_every_quoted_command_is_accepted(script: str) -> None:
    done = run("-c", PARSE, Path(script).stem, json.dumps(quoted()[script]), folder=str(Path(script).parent))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_index_lists_every_benchmark() -> None:
    index = (ROOT / "benchmarks" / "README.md").read_text()
    assert [script for script in BENCHMARKS if script not in index] == []
