"""W&B without an account, and without the settings of the machine that runs the tests."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    with warnings.catch_warnings():
        # wandb keeps a TemporaryDirectory for media until the interpreter collects it.
        warnings.filterwarnings("ignore", "Implicitly cleaning up", ResourceWarning)
        yield
