"""Public clinical notes as training data: the configurations fit the files."""

from pathlib import Path

import pytest

from harness.data.tables import read_rows
from harness.workflows.compose import config_for
from harness.workflows.run import audit_alone

CLINICAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "clinical"


@pytest.mark.skipif(not CLINICAL.is_dir(), reason="needs the public clinical notes beside the checkout")
@pytest.mark.parametrize(
    ("data", "file", "count"),
    [("mts_dialog", "MTS-Dialog-ValidationSet.csv", 100), ("aci_bench", "aci_bench_valid.csv", 20)],
)
def test_every_note_becomes_a_row(data: str, file: str, count: int, tmp_path: Path) -> None:
    path = f"data.sources.clinical.path={CLINICAL / file}"
    record = audit_alone(
        config_for(["experiment=clinical_notes", f"data={data}", path, "audit.behaviors=[]"]), tmp_path
    )
    assert next(source.read for source in record.sources if source.source == "clinical") == count
    rows = [row for row in read_rows(tmp_path) if row["source"] == "clinical"]
    assert len(rows) == count
    assert all(row["input"] and row["output"] and row["instruction"].startswith("Write the ") for row in rows)
