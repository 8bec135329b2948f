"""W&B's aliases follow the files. The server is a stand-in: there is none to ask here."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_run

from harness.checkpoint.alias import registry_folder
from harness.registry import wandb_registry
from harness.registry.promotion import promote
from harness.registry.protocol import AuditInfo
from harness.registry.wandb_registry import WandbRegistry

ACT = AuditInfo("production", "ada", "")
TRACKED = "name: bank\ntracker: {kind: wandb, mode: online, project: models, samples_per_task: 1}\n"


@dataclass
class Version:
    metadata: dict[str, str]
    qualified_name: str
    aliases: list[str] = field(default_factory=list)
    saved: int = 0

    def save(self) -> None:
        self.saved += 1


class Server:
    """W&B's public API as far as it is used."""

    default_entity = "team"

    def __init__(self, *versions: Version):
        self.versions = versions
        self.asked: list[str] = []

    def artifacts(self, type_name: str, name: str) -> tuple[Version, ...]:
        self.asked.append(f"{type_name} {name}")
        return self.versions


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "first", 220, config=TRACKED)


@pytest.fixture
def registry(run: Path) -> WandbRegistry:
    made = WandbRegistry(registry_folder(run.parent))
    made.create(ACT)
    return made


def served(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    import wandb

    def api() -> tuple[Any, Any]:
        return server, wandb

    monkeypatch.setattr(wandb_registry, "_api", api)


def weights_of(run: Path) -> str:
    from harness.model.load import weights_sha256

    return weights_sha256(run / "checkpoint")


def test_the_alias_moves_to_the_version_with_these_weights(
    run: Path, registry: WandbRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Version({"sha256": "other"}, "team/models/bank-model:v0", ["production"])
    mine = Version({"sha256": weights_of(run)}, "team/models/bank-model:v1", ["latest"])
    server = Server(other, mine)
    served(monkeypatch, server)
    promote(registry, run, None, ACT)
    assert server.asked == ["model team/models/bank-model"]
    assert (mine.aliases, mine.saved) == (["latest", "production"], 1)
    assert not any(link.broken for link in registry.verify())


def test_an_alias_that_somebody_moved_in_wandb_shows(
    run: Path, registry: WandbRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Version({"sha256": weights_of(run)}, "team/models/bank-model:v1")
    served(monkeypatch, Server(mine))
    promote(registry, run, None, ACT)
    mine.aliases = []
    assert any("lacks the alias; run: harness registry publish" in link.broken for link in registry.verify())
    assert registry.publish() == ["team/models/bank-model:v1"]
    assert mine.aliases == ["production"]


def test_offline_the_files_move_and_a_line_says_that_wandb_does_not(
    run: Path, registry: WandbRegistry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.track.wandb_tracker.logged_in", lambda: False)
    entry = promote(registry, run, None, ACT)
    current = registry.current("production")
    assert current == entry
    said = capsys.readouterr().err
    assert "the alias moved in the registry but not in W&B" in said
    assert "harness registry publish" in said


def test_a_run_that_was_never_uploaded(
    run: Path, registry: WandbRegistry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served(monkeypatch, Server())
    promote(registry, run, None, ACT)
    assert "has no version with these weights" in capsys.readouterr().err
