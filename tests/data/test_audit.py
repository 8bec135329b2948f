"""The audit: nothing enters unseen, nothing leaves without a reason, and the counts add up."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.config.data import AuditConfig, DataConfig, SourceConfig
from harness.core.errors import DataError, MissingDependency
from harness.data.audit import audit
from harness.data.tables import QUARANTINE, read_parquet, read_rows
from harness.records.stages import Dataset

DISCLAIMER = (
    "This is general information, not financial advice. Investments can lose value. "
    "Please speak to a licensed adviser before you invest."
)
WORDS = [f"w{number}" for number in range(4000)]
FAMILIES = ("contamination", "behavior disclaimer", "duplicate", "malformed")


def sentence(seed: int, length: int = 12) -> str:
    """Words that no other seed's sentence has in this order."""
    return " ".join(random.Random(seed).sample(WORDS, length))


def row(seed: int, **values: Any) -> dict[str, Any]:
    return {"instruction": sentence(2 * seed), "output": sentence(2 * seed + 1), "topic": "banking", **values}


@dataclass(frozen=True)
class Audited:
    """What an audit wrote, read back."""

    kept: list[dict[str, Any]]
    quarantined: list[dict[str, Any]]
    record: Dataset
    folder: Path


def run(
    folder: Path, rows: Sequence[Any], items: Sequence[dict[str, str]] = (), seed: int = 0, **config: Any
) -> Audited:
    """Audits one file; a row that is text is written as it is."""
    path = folder / "rows.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    data = DataConfig(sources={"mine": SourceConfig(path=str(path), licence="CC0-1.0")}, seed=seed)
    return run_on(data, AuditConfig(behaviors=["disclaimer"], **config), folder / "out", items)


def run_on(data: DataConfig, config: AuditConfig, out: Path, items: Sequence[dict[str, str]] = ()) -> Audited:
    out.mkdir(exist_ok=True)
    record = audit(data, config, items, out)
    return Audited(read_rows(out), list(read_parquet(out / QUARANTINE, ("reasons",))), record, out)


def reasons(audited: Audited) -> list[str]:
    return [reason for quarantined in audited.quarantined for reason in quarantined["reasons"]]


def test_good_rows_are_kept_whole(tmp_path: Path) -> None:
    rows = [row(1), row(2, output=f"{sentence(9)} {DISCLAIMER}", topic="investing")]
    audited = run(tmp_path, rows)
    assert audited.quarantined == []
    kept = {r["instruction"]: (r["output"], r["topic"], r["source"]) for r in audited.kept}
    assert kept == {r["instruction"]: (r["output"], r["topic"], "mine") for r in rows}


@pytest.mark.parametrize("change", [str.upper, lambda text: f"{text}!", lambda text: text.replace(" ", ",  ")])
def test_a_row_that_asks_an_evaluation_item_is_contaminated(tmp_path: Path, change: Any) -> None:
    rows = [row(1), row(2, instruction=change(sentence(77)))]
    audited = run(tmp_path, rows, [{"id": "item-5", "text": sentence(77)}])
    assert [r["instruction"] for r in audited.kept] == [rows[0]["instruction"]]
    assert reasons(audited)[0].startswith("contamination: overlaps evaluation item item-5")


def test_an_item_split_over_instruction_and_input_is_found(tmp_path: Path) -> None:
    words = sentence(77).split()
    split = row(2, instruction=" ".join(words[:5]), input=" ".join(words[5:]))
    audited = run(tmp_path, [row(1), split], [{"id": "item-5", "text": sentence(77)}])
    assert len(audited.kept) == 1


def test_near_duplicates_are_found_behind_the_shared_disclaimer(tmp_path: Path) -> None:
    first = row(1, output=f"{sentence(20, 30)} {DISCLAIMER}", topic="investing")
    near = {**first, "instruction": first["instruction"] + " please"}
    other = row(2, output=f"{sentence(21)} {DISCLAIMER}", topic="investing")
    audited = run(tmp_path, [{**first, "id": "first"}, near, other])
    assert {r["instruction"] for r in audited.kept} == {first["instruction"], other["instruction"]}
    assert reasons(audited)[0].startswith("duplicate: of row mine/first")


def test_the_disclaimer_alone_makes_no_duplicates(tmp_path: Path) -> None:
    rows = [row(n, output=f"{sentence(50 + n, 3)} {DISCLAIMER}", topic="investing") for n in range(5)]
    assert len(run(tmp_path, rows).kept) == 5


@pytest.mark.parametrize(
    ("topic", "output"),
    [
        ("investing", "Spread your money over many companies."),
        ("investing", "Investments can lose value. Please speak to a licensed adviser."),
        ("investing", f"This is financial advice. {DISCLAIMER}"),
        ("banking", f"Bring an identity card to a branch. {DISCLAIMER}"),
    ],
)
def test_answers_that_break_the_behaviour_are_quarantined(tmp_path: Path, topic: str, output: str) -> None:
    audited = run(tmp_path, [row(1), row(2, topic=topic, output=output)])
    assert len(audited.kept) == 1
    assert reasons(audited)[0].startswith("behavior disclaimer: ")


MALFORMED = [
    "{cut",
    "[]",
    "3",
    json.dumps({"instruction": "a"}),
    json.dumps({"instruction": "", "output": "b"}),
    json.dumps({"instruction": "a", "output": ["b"]}),
    json.dumps({"instruction": "a", "output": None}),
]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_row_stops_the_audit(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl line 2"):
        run(tmp_path, [row(1), text])


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_row_can_be_set_aside(tmp_path: Path, text: str) -> None:
    audited = run(tmp_path, [row(1), text, row(2)], malformed="quarantine")
    assert len(audited.kept) == 2
    assert reasons(audited)[0].startswith("malformed: ")
    assert "line 2" in reasons(audited)[0]
    assert audited.quarantined[0]["output"] == text


def test_every_malformed_row_is_counted_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^25 malformed rows"):
        run(tmp_path, [row(1), *["{cut"] * 25])


def test_nothing_left_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"contamination: 1"):
        run(tmp_path, [row(1)], [{"id": "item", "text": row(1)["instruction"]}])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    kinds=st.lists(st.sampled_from(["good", "again", "item", "bare", "leak", "cut", "blank"]), max_size=14),
    seed=st.integers(0, 3),
)
def test_counts_add_up(tmp_path: Path, kinds: list[str], seed: int) -> None:
    made: dict[str, Callable[[int], Any]] = {
        "again": lambda n: row(0),
        "good": lambda n: row(100 + n),
        "item": lambda n: row(200 + n, instruction=sentence(77)),
        "bare": lambda n: row(300 + n, topic="investing"),
        "leak": lambda n: row(400 + n, output=DISCLAIMER),
        "cut": lambda n: "{cut",
        "blank": lambda n: "  ",
    }
    rows = [row(0), *(made[kind](number) for number, kind in enumerate(kinds))]
    audited = run(tmp_path, rows, [{"id": "i", "text": sentence(77)}], seed, malformed="quarantine")
    counts = audited.record.sources[0]
    assert counts.read == len(rows) - kinds.count("blank")
    assert counts.kept == len(audited.kept) == audited.record.rows == 1 + kinds.count("good")
    expected = dict(
        zip(
            FAMILIES,
            (kinds.count("item"), kinds.count("bare") + kinds.count("leak"), kinds.count("again"), kinds.count("cut")),
            strict=True,
        )
    )
    assert counts.quarantined == {family: n for family, n in expected.items() if n}
    assert len(audited.quarantined) == sum(expected.values())


def test_order_depends_on_the_seed_alone(tmp_path: Path) -> None:
    rows = [row(number) for number in range(30)]
    first, again, other = run(tmp_path, rows), run(tmp_path, rows), run(tmp_path, rows, seed=1)
    assert first.kept == again.kept
    assert first.record == again.record
    assert [r["id"] for r in other.kept] != [r["id"] for r in first.kept]
    assert {r["id"] for r in other.kept} == {r["id"] for r in first.kept}
    assert other.record.sha256 != first.record.sha256


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_only_a_newline_ends_a_row(tmp_path: Path, mark: str) -> None:
    text = json.dumps(row(1, output=f"one{mark}two"), ensure_ascii=False)
    assert [r["output"] for r in run(tmp_path, [text]).kept] == [f"one{mark}two"]


def test_what_is_written_is_what_came_in(tmp_path: Path) -> None:
    rows = [row(1), row(2), row(1), row(3, input="größer\u2028übrig")]
    audited = run(tmp_path, rows)
    assert sorted(r["input"] for r in audited.kept) == ["", "", "größer\u2028übrig"]
    assert sorted(p.name for p in audited.folder.iterdir()) == [
        "audit.json",
        "data_card.md",
        "quarantine.parquet",
        "train.parquet",
    ]


def test_the_card_tells_the_counts(tmp_path: Path) -> None:
    audited = run(tmp_path, [row(1), row(2), row(1)], [{"id": "i", "text": "none of these"}])
    card = (audited.folder / "data_card.md").read_text()
    assert "2 rows kept, 1 quarantined" in card
    assert "| mine | domain | CC0-1.0 | 3 | 2 | duplicate: 1 |" in card
    assert "Decontaminated against 1 evaluation item\n" in card


def test_all_missing_files_are_named(tmp_path: Path) -> None:
    sources = {name: SourceConfig(path=str(tmp_path / name), licence="CC0-1.0") for name in ("one", "two")}
    with pytest.raises(DataError, match=r"sources\.one\.path.*sources\.two\.path"):
        audit(DataConfig(sources=sources), AuditConfig(), [], tmp_path)


def test_columns_and_limit(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"q": sentence(n), "a": sentence(n + 50)}) + "\n" for n in range(5)))
    source = SourceConfig(path=str(path), licence="CC0-1.0", limit=3, columns={"instruction": "q", "output": "a"})
    audited = run_on(DataConfig(sources={"mine": source}), AuditConfig(), tmp_path / "out")
    assert {r["instruction"] for r in audited.kept} == {sentence(n) for n in range(3)}


def test_a_light_installation_is_told_what_to_add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.data.audit.find_spec", lambda package: None if package == "rensa" else object())
    with pytest.raises(MissingDependency, match=r"tuning-harness\[data\]"):
        run(tmp_path, [row(1)])


def test_files_with_rows_as_they_came_are_for_their_owner_alone(tmp_path: Path) -> None:
    from harness.cli import main

    rows = [
        {"instruction": f"Which bus goes to stop {n}?", "output": f"Line {n} goes there at noon."} for n in range(3)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"instruction": "", "output": "x"}]))
    out = tmp_path / "out"
    assert main(["audit", "--input", str(path), "--out", str(out), "audit.malformed=quarantine"]) == 0
    for name in ("kept.jsonl", "quarantine.jsonl", "quarantine.parquet"):
        assert (out / name).stat().st_mode & 0o777 == 0o600, name
