"""The reference pages are those that the code would give, and every field says what it decides."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import BaseModel

from harness.config.group import Group
from harness.records.base import Record

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "reference.py"
HEAVY = ("torch", "transformers", "vllm", "lm_eval", "wandb", "datasets", "pyarrow", "peft", "accelerate")
LONGEST = 200


def defined() -> list[type[BaseModel]]:
    """Every group and record of the package, by the source files that define one."""
    found: set[type[BaseModel]] = set()
    for path in sorted((ROOT / "harness").rglob("*.py")):
        if re.search(r"^class \w+\((?:Group|Record|Measured)\)", path.read_text(), re.M):
            module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            values = [value for value in vars(module).values() if isinstance(value, type)]
            found |= {value for value in values if issubclass(value, Group | Record) and value not in (Group, Record)}
    return sorted(found, key=lambda model: model.__name__)


def test_every_part_of_the_package_was_looked_at() -> None:
    names = {model.__name__ for model in defined()}
    assert {
        "Config",
        "TrainConfig",
        "QualityConfig",
        "DedupeConfig",
        "Verdict",
        "Measured",
        "Chain",
        "HistoryEntry",
    } <= names


@pytest.mark.parametrize("model", defined(), ids=lambda model: model.__name__)
def test_every_field_says_what_it_decides(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        told = field.description
        assert told, f"{name}: write a docstring under the field"
        assert told.endswith("."), f"{name}: a sentence ends with a full stop"
        assert len(told) < LONGEST, name
        assert "\n" not in told, f"{name}: one line"
        assert told.rstrip(".").lower().replace(" ", "_") not in (name, f"the_{name}"), f"{name}: repeats the name"


def test_pages_are_fresh_and_need_nothing_heavy() -> None:
    script = (
        "import runpy, sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {HEAVY}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"sys.argv = [{str(SCRIPT)!r}, '--check']\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_page_is_named_with_the_command(tmp_path: Path) -> None:
    """In a copy of the script whose pages stand elsewhere: none is there yet."""
    (tmp_path / "scripts").mkdir()
    copy = tmp_path / "scripts" / "reference.py"
    copy.write_text(SCRIPT.read_text())
    environment = {"PYTHONPATH": str(ROOT)}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(copy), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    first = run("--check")
    assert first.returncode == 1
    assert "docs/reference/configuration.md" in first.stdout
    assert "python scripts/reference.py" in first.stdout
    assert run().returncode == 0
    assert run("--check").returncode == 0
    page = tmp_path / "docs" / "reference" / "cli.md"
    page.write_text(page.read_text() + "more\n")
    stale = run("--check")
    assert (stale.returncode, "cli.md" in stale.stdout, "records.md" in stale.stdout) == (1, True, False)


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("configuration.md", "| `train.lora.r` | whole number ≥ 1 | `16` |"),
        ("configuration.md", "| `data.sources.<name>.path` |"),
        ("configuration.md", "| `audit.dedupe.jaccard` | number ≥ 0.3 and ≤ 1 | `0.7` |"),
        ("configuration.md", "| `train.schedule` | `linear` \\| `cosine` \\| `constant` | `cosine` |"),
        ("configuration.md", "| `model=smollm2_135m` (default) |"),
        ("cli.md", "harness mirror [SUITE ...] --to DIR [--verify] [key=value ...]"),
        ("records.md", "| `schema` | `1` | `1` |"),
    ],
)
def test_what_a_reader_looks_for(page: str, told: str) -> None:
    assert told in (ROOT / "docs" / "reference" / page).read_text()
