"""Answers of unusual length among the others of their source."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from test_audit import Audited, reasons, row, run, sentence

from harness.config.data import AuditConfig, DataConfig
from harness.data.filtering import FilterOutcome
from harness.data.settings import setting_errors
from harness.data.tally import Tally

USUAL = 120


def rows(*lengths: int) -> list[dict[str, Any]]:
    """Answers of 10 to 14 words, then those of the given lengths."""
    usual = [row(n, output=sentence(5000 + n, 10 + n % 5)) for n in range(USUAL)]
    return usual + [row(7000 + n, output=sentence(8000 + n, length)) for n, length in enumerate(lengths)]


def flags(audited: Audited) -> list[str]:
    found = pq.read_table(audited.folder / "train.parquet", columns=["flags"]).column("flags").to_pylist()
    return [flag for flags in found for flag in flags]


def test_far_longer_and_far_shorter_answers_are_flagged_and_kept(tmp_path: Path) -> None:
    audited = run(tmp_path, rows(400, 1))
    assert audited.record.rows == USUAL + 2
    flagged = {flag.split(": ")[1].split(" word")[0] for flag in flags(audited)}
    assert flagged == {"400", "1"}
    finding = next(f for f in audited.record.findings if f.code == "outlier")
    assert finding.kinds == {"long": 1, "short": 1}


def test_they_can_be_dropped_and_limited(tmp_path: Path) -> None:
    audited = run(tmp_path, rows(400), outliers={"action": "drop"}, limits={"max_rows": {"outlier": 0}})
    assert [reason.split(":")[0] for reason in reasons(audited)] == ["outlier"]
    assert audited.record.broken_limits[0].startswith("outlier: 1 row found")


def test_small_sources_and_lengths_within_the_usual_spread_are_left_alone(tmp_path: Path) -> None:
    assert not flags(run(tmp_path, rows(20)))
    assert not flags(run(tmp_path, rows(400)[-50:]))


def test_two_broken_behaviours_in_one_row_are_one_row() -> None:
    tally = Tally({"behavior tone": "drop", "behavior disclaimer": "drop"})
    found = [FilterOutcome(code, "drop", "broken") for code in ("behavior tone", "behavior disclaimer")]
    tally.add({**row(1), "id": "1", "source": "s"}, found)
    assert (tally.rows_of("behavior"), tally.rows_of("behavior tone"), tally.rows_of("legal")) == (1, 1, 0)


@pytest.mark.parametrize("values", [{"spread": 0}, {"action": "redact"}, {"sprad": 2}])
def test_wrong_settings_are_told(values: dict[str, Any]) -> None:
    found = setting_errors(
        AuditConfig().model_dump() | {"outliers": values}, DataConfig(sources={"a": {"path": "x"}}).model_dump()
    )
    assert len(found) == 1
    assert found[0].startswith("audit.outliers.")
