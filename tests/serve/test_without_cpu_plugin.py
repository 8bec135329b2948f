"""Without the folder of the CPU build's plugin, servers are started and asked as with it."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.serve.cpu_plugin import PLUGIN

SCRIPT = """
import importlib.metadata, json, sys
from pathlib import Path

importlib.metadata.entry_points = lambda **_: importlib.metadata.EntryPoints(())  # the plugin is not installed
from harness.core.code_digest import code_digest
from harness.evaluate.fingerprint import ANSWER_CODE
from harness.serve import client, session
from harness.serve.server import ServerPlan, server_command, server_environment
from harness.workflows.compose import config_for

plan = ServerPlan(Path("base"), Path("prompt"), {"thinking": False}, {"candidate": Path("adapter")}, 8, "bfloat16")
found = {}
for device in ("cuda", "cpu"):
    config = config_for(["model=pretrained", "model.path=base", f"serve.device={device}"]).serve
    found[device] = [server_command(plan, config, 8000), sorted(server_environment(config, "key").items())]
found["code"] = code_digest(*ANSWER_CODE)
found["loaded"] = [name for name in sys.modules if name.startswith("harness.serve.vllm_cpu")]
print(json.dumps(found))
"""


def described_by(package: Path) -> Any:
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=package.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    source = Path(harness.__file__).parent
    shutil.copytree(source, tmp_path / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conf", "data", "tasks"):
        (tmp_path / name).symlink_to(source.parent / name)
    return tmp_path / "harness"


def test_the_server_is_started_with_the_same_command(package: Path) -> None:
    whole = described_by(package)
    shutil.rmtree(package / "serve" / "vllm_cpu")
    without = described_by(package)
    assert "--gpu-memory-utilization" in whole["cuda"][0]
    assert (without["cuda"], without["cpu"]) == (whole["cuda"], whole["cpu"])
    assert whole["loaded"] == without["loaded"] == []
    assert without["code"] != whole["code"]  # nobody takes the answers of one server for those of the other


def test_the_plugin_is_named_as_it_is_installed() -> None:
    project = tomllib.loads((Path(harness.__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["vllm.general_plugins"] == {"harness_cpu_lora": PLUGIN}
