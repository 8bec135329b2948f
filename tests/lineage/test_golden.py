"""Run folders and registries of earlier releases are read as they are; those of later releases are refused in words.

`golden/release_<n>/` was written by that release and is never made anew: `made/first` is a run, `registry` its
promotion. A change that breaks them needs a new version number and a reader of the old one.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.checkpoint.history import HistoryEntry, write_history
from harness.cli import main
from harness.core.errors import ExitCode
from harness.core.store import sha256_file
from harness.lineage.verify import broken_links
from harness.registry.files import FileRegistry

GOLDEN = Path(__file__).parent / "golden"
RELEASES = sorted(path.name for path in GOLDEN.iterdir())
RECORDS = (
    "run.json",
    "evidence.json",
    "compare.json",
    "verdict.json",
    "checkpoint/prompt_contract.json",
    "data/audit.json",
    "data/stage.json",
    "eval/candidate/evaluation.json",
    "eval/candidate/stage.json",
)


@pytest.fixture(params=RELEASES)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / request.param, tmp_path / "golden"))


def test_a_run_of_an_earlier_release_is_verified(golden: Path) -> None:
    assert main(["verify", str(golden / "made" / "first")]) == ExitCode.DONE


def test_a_registry_of_an_earlier_release_is_verified(golden: Path) -> None:
    registry = FileRegistry(golden / "registry")
    assert broken_links(registry.verify()) == []
    current = registry.current("production")
    assert current is not None
    assert main(["verify", str(registry.model_folder(current))]) == ExitCode.DONE


def test_a_run_of_an_earlier_release_can_be_promoted(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--registry", str(golden / "new")]
    assert main(["registry", "init", *place]) == ExitCode.DONE
    assert main(["promote", str(golden / "made" / "first"), *place]) == ExitCode.DONE
    assert str(golden / "new") in capsys.readouterr().err


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("version", [99, 0, "1", None])
def test_a_record_of_an_unknown_version_is_refused(
    golden: Path, name: str, version: object, capsys: pytest.CaptureFixture[str]
) -> None:
    run = golden / "made" / "first"
    changed(run / name, lambda record: record.update({version_key(record, name): version, "of_later_releases": 1}))
    renewed(run, name)
    assert main(["verify", str(run)]) == ExitCode.INVALID
    told = " ".join(capsys.readouterr())
    assert f"is of version {version!r}" in told
    assert "pip install -U" in told


def test_a_history_of_a_later_version_is_refused(golden: Path) -> None:
    registry = FileRegistry(golden / "registry")
    entries = registry.history()
    later = HistoryEntry.model_construct(**(dict(entries[-1]) | {"schema_version": 99})).sealed()
    write_history(registry.folder, [*entries[:-1], later])
    assert any("is of version 99" in told for told in broken_links(registry.verify()))


def version_key(record: dict[str, Any], name: str) -> str:
    return "schema_version" if "schema_version" in record or name.endswith("prompt_contract.json") else "schema"


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def renewed(run: Path, name: str) -> None:
    """The digests of the changed file in the records that hold them, so that only its version is wrong."""
    stage, _, file = name.rpartition("/")
    if stage and file != "stage.json":
        changed(run / stage / "stage.json", lambda m: m["outputs"].update({file: sha256_file(run / name)}))
    if name != "run.json":
        changed(run / "run.json", lambda r: r["outputs"].update({name: sha256_file(run / name)}))
