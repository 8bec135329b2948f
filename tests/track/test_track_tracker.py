import subprocess
import sys
from pathlib import Path

import pytest

from harness.config.experiment import TrackerConfig
from harness.core.errors import MissingDependency
from harness.track import open as opening


def test_no_tracker_imports_no_wandb(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from harness.config.experiment import TrackerConfig
from harness.track.open import open_tracker
from harness.track.tracker import Artifact
run = open_tracker(TrackerConfig(), folder=Path("out"), group="g", stage="train", run_name="r", settings={"a": 1})
run.metrics({"loss": 1.0}, 1)
run.summary({"s/t/m": 1.0})
run.table("t", ["a"], [[1]])
run.artifact(Artifact("a", "model", Path("nowhere"), ""))
run.finish(0)
assert "wandb" not in sys.modules
assert not list(Path().iterdir())
"""
    root = str(Path(__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={"PYTHONPATH": root})


def test_a_missing_wandb_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"tuning-harness\[engine\]"):
        opening.check_tracker(TrackerConfig(kind="wandb"))
    opening.check_tracker(TrackerConfig(kind="none"))
