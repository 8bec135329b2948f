"""Where an extra is not installed, a command says which one it needs; there is no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[1] / "lineage" / "golden" / "release_1" / "made" / "first"
WITHOUT = """
import importlib.util, sys
gone = sys.argv[1].split(",")
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in gone:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
there = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name.split(".")[0] in gone else there(name, *more)
from harness.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("safetensors", "engine", ["gate", str(RUN), str(RUN)]),
        ("safetensors", "engine", ["compare", str(RUN), str(RUN)]),
        ("pyarrow", "data", ["verify", str(RUN)]),
        ("lm_eval", "engine", ["evaluate", "--describe", "suite=general"]),
    ],
)
def test_the_extra_is_named(package: str, extra: str, command: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, package, *command], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 3, done.stderr[-500:]
    assert f"'{package}'" in done.stderr
    assert f"pip install 'tuning-harness[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
