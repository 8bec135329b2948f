"""Run folders that somebody forged: whatever was changed, nothing outside is touched, and nothing is promoted."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import guard, policy
from run_folders import write_run

from harness.checkpoint.alias import registry_folder, resolved
from harness.checkpoint.history import write_history
from harness.checkpoint.origin import origins
from harness.config.gate import WaiverConfig
from harness.core.errors import DataError, EvidenceFault, HarnessError, PromotionRefused
from harness.core.store import sha256_file, write_json
from harness.lineage.verify import broken_links, verify_evidence
from harness.model.load import require_safetensors
from harness.registry.files import FileRegistry
from harness.registry.promotion import promote
from harness.registry.protocol import AuditInfo
from harness.report.write import write_report

ACT = AuditInfo("production", "ada", "try")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "first", 300)


@pytest.fixture
def registry(run: Path) -> FileRegistry:
    made = FileRegistry(registry_folder(run.parent))
    made.create(ACT)
    return made


def renewed(run: Path) -> None:
    """Every digest that a forger can compute is computed again."""
    record = json.loads((run / "run.json").read_text())
    record["outputs"] = {name: sha256_file(run / name) for name in record["outputs"]}
    write_json(run / "run.json", record)


def forged(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    chain = json.loads((run / "evidence.json").read_text())
    change(chain)
    write_json(run / "evidence.json", chain)
    renewed(run)


def refused(registry: FileRegistry, run: Path) -> str:
    before = sorted(path for path in registry.folder.rglob("*"))
    with pytest.raises(PromotionRefused) as caught:
        promote(registry, run, None, ACT)
    after = sorted(path for path in registry.folder.rglob("*") if path.name != ".lock")
    assert [path for path in after if path not in before and path.is_file()] == []
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["../../../../X", "/etc/hostname", "eval/../../X", "a\\..\\X", "\u202egnp.exe", "checkpoint/./x"]
)
def test_a_path_out_of_the_run(tmp_path: Path, run: Path, registry: FileRegistry, name: str) -> None:
    (tmp_path / "X").write_text("outside")

    def change(chain: dict[str, Any]) -> None:
        chain["steps"][-1]["files"][name] = sha256_file(tmp_path / "X")

    forged(run, change)
    assert broken_links(verify_evidence(run))
    assert "evidence.json names the file" in refused(registry, run)


def test_a_file_that_the_stage_never_had(run: Path, registry: FileRegistry) -> None:
    (run / "notes.txt").write_text("secret")

    def change(chain: dict[str, Any]) -> None:
        chain["steps"][-1]["files"]["notes.txt"] = sha256_file(run / "notes.txt")

    forged(run, change)
    assert "do not list the same files: notes.txt" in refused(registry, run)


def test_an_absolute_folder(run: Path, registry: FileRegistry) -> None:
    forged(run, lambda chain: chain["steps"][0].update(folder="/etc"))
    assert "which is not a relative path" in refused(registry, run)


@pytest.mark.parametrize(
    "name", ["eval/candidate/notes.txt", "checkpoint/adapter_model.safetensors", "data/audit.json", "config.yaml"]
)
def test_a_link_in_place_of_a_file(tmp_path: Path, run: Path, registry: FileRegistry, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes((run / name).read_bytes() if (run / name).is_file() else b"key")
    secret.chmod(0o600)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(secret)
    renewed(run)
    with pytest.raises(HarnessError, match=r"symbolic link|changed after|evidence\.json"):
        promote(registry, run, None, ACT)
    assert not any(path.is_file() and path.read_bytes() == b"key" for path in registry.folder.rglob("*"))


def test_a_report_does_not_write_through_links(tmp_path: Path, run: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (run / "report").mkdir()
    for name in ("index.html", "summary.md", "junit.xml", "verdict.json"):
        (run / "report" / name).symlink_to(precious)
    write_report(run)
    assert precious.read_text() == "mine"
    assert (run / "report" / "index.html").read_text().startswith("<!")


def test_a_report_folder_that_is_a_link(tmp_path: Path, run: Path) -> None:
    (tmp_path / "other").mkdir()
    (run / "report").symlink_to(tmp_path / "other")
    with pytest.raises(HarnessError, match="symbolic link"):
        write_report(run)
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize("name", ["report/index.html", "report/MODEL_CARD.md"])
def test_a_report_or_model_card_that_was_edited_after_the_verdict(run: Path, registry: FileRegistry, name: str) -> None:
    write_report(run)
    (run / "report" / "MODEL_CARD.md").write_text("# Card\n")
    record = json.loads((run / "run.json").read_text())
    record["outputs"] |= {n: sha256_file(run / n) for n in ("report/index.html", "report/MODEL_CARD.md")}
    write_json(run / "run.json", record)
    assert broken_links(verify_evidence(run)) == []
    with (run / name).open("a") as file:
        file.write("approved by everybody\n")
    assert f"{name} changed after it was written" in refused(registry, run)


def test_a_report_that_is_written_again_is_no_edit(run: Path) -> None:
    page = write_report(run)
    record = json.loads((run / "run.json").read_text())
    record["outputs"]["report/index.html"] = sha256_file(page)
    write_json(run / "run.json", record)
    page.write_text("an older version's page")
    assert broken_links(verify_evidence(run))
    write_report(run)
    assert broken_links(verify_evidence(run)) == []


@pytest.mark.parametrize("recorded", ["run.json", ""], ids=["left-out-of-run.json", "no-run.json"])
def test_a_model_card_that_no_record_holds(run: Path, registry: FileRegistry, recorded: str) -> None:
    (run / "report").mkdir(exist_ok=True)
    (run / "report" / "MODEL_CARD.md").write_text("# Approved by everybody")
    if not recorded:
        (run / "run.json").unlink()
    assert "MODEL_CARD.md may have been edited" in refused(registry, run)


def test_a_configuration_taken_out_of_run_json(run: Path, registry: FileRegistry) -> None:
    record = json.loads((run / "run.json").read_text())
    del record["outputs"]["config.yaml"]
    write_json(run / "run.json", record)
    (run / "config.yaml").write_text("name: another\n")
    assert "config.yaml may have been edited" in refused(registry, run)


@pytest.mark.parametrize("name", ["eval", "checkpoint", "data"])
def test_a_link_on_the_way_to_a_stage(tmp_path: Path, run: Path, registry: FileRegistry, name: str) -> None:
    (run / name).rename(tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in refused(registry, run)


def test_a_stage_that_is_recorded_twice(run: Path, registry: FileRegistry) -> None:
    forged(run, lambda chain: chain["steps"].append(dict(chain["steps"][0])))
    assert "records this stage twice" in refused(registry, run)


def test_a_verdict_of_a_day_to_come(tmp_path: Path) -> None:
    """A waiver would hold for ever if the verdict could choose its day."""
    run = write_run(tmp_path / "runs" / "first", 300, decided_on=datetime.now(UTC).date() + timedelta(days=30))
    registry = FileRegistry(registry_folder(run.parent))
    registry.create(ACT)
    assert "is yet to come" in refused(registry, run)


@pytest.mark.parametrize("name", ["../../../outside", "/etc", "a/../../b", "C:x"])
def test_a_history_that_names_a_model_elsewhere(run: Path, registry: FileRegistry, name: str) -> None:
    promote(registry, run, None, ACT)
    first, entry = registry.history()
    write_history(registry.folder, [first, entry.model_copy(update={"model": name}).sealed()])
    with pytest.raises(EvidenceFault, match=r"history\.jsonl names the file"):
        resolved("production", registry.folder)
    assert any("names the file" in told for told in broken_links(registry.verify()))


def test_an_origin_outside(run: Path) -> None:
    (run / "checkpoint" / "origin.json").write_text(json.dumps({"made_from": "/etc"}))
    with pytest.raises(EvidenceFault, match="not a relative path"):
        origins(run / "checkpoint")


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "rng_state_0.pth", "random_states_0.pkl"])
def test_what_trainers_leave_beside_the_weights_is_no_forgery(tmp_path: Path, name: str) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / name).write_bytes(b"state")
    assert require_safetensors(tmp_path) == tmp_path


@pytest.mark.parametrize(
    "name",
    ["adapter_model.bin", "ADAPTER_MODEL.BIN", "new_embeddings.bin", "model.pth", "weights.pt", "lora.ckpt", "m.pkl"],
)
def test_pickled_weights_beside_the_weights(tmp_path: Path, name: str) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / name).write_bytes(b"pickle")
    with pytest.raises(DataError, match="weights as pickles"):
        require_safetensors(tmp_path)


def test_a_waiver_that_has_expired_since(tmp_path: Path) -> None:
    """The verdict was PASS on the day it was made; the promotion comes too late."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    waiver = WaiverConfig(name="pilot", reason="agreed", expires=yesterday)
    rules = [guard(), guard("*/missing/acc", on_missing=waiver)]
    run = write_run(tmp_path / "runs" / "first", 300, demands=policy(*rules), decided_on=yesterday)
    registry = FileRegistry(registry_folder(run.parent))
    registry.create(ACT)
    assert broken_links(verify_evidence(run)) == []
    told = refused(registry, run)
    assert "the verdict was PASS" in told
    assert "expired on" in told
