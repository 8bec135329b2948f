import subprocess
import sys
from pathlib import Path

import pytest

from harness.config import TrackerConfig
from harness.errors import MissingDependency
from harness.track import tracker
from harness.track.redact import REMOVED, without_secrets


def test_no_tracker_imports_no_wandb(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from harness.config import TrackerConfig
from harness.track.tracker import Artifact, open_tracker
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
    monkeypatch.setattr(tracker, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"tuning-harness\[engine\]"):
        tracker.check_tracker(TrackerConfig(kind="wandb"))
    tracker.check_tracker(TrackerConfig(kind="none"))


@pytest.mark.parametrize(
    "name",
    ["api_key", "hub_token", "apiKey", "HF_TOKEN", "password", "client-secret", "authorization", "s3Secret"],
)
def test_names_of_secrets(name: str) -> None:
    assert without_secrets({"a": {name: "x"}}) == {"a": {name: REMOVED}}


@pytest.mark.parametrize("name", ["max_new_tokens", "special_tokens", "tokens_per_s", "keys", "tokenizer", "author"])
def test_settings_that_only_sound_like_secrets_stay(name: str) -> None:
    assert without_secrets({name: 7}) == {name: 7}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("hf_abcdefghijkl", REMOVED),
        ("call with Bearer abc.def", f"call with {REMOVED}"),
        ("https://me:pw@host/x", f"https://{REMOVED}@host/x"),
        ("e" * 64, "e" * 64),
        ("hf_hub", "hf_hub"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
    ],
)
def test_values_that_are_secrets(text: str, kept: str) -> None:
    assert without_secrets({"value": [text]}) == {"value": [kept]}


def test_values_of_secret_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIC_PASSWORD", "correct horse")
    assert without_secrets({"command": "login 'correct horse' now"}) == {"command": f"login '{REMOVED}' now"}
