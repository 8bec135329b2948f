"""Big samples files are read in blocks of lines: with the same outcome as line by line, whatever stands in them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_folders import lines, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import EvidenceFault
from harness.core.store import sha256_file
from harness.results import samples as reading
from harness.results.blocks import BlockReader, digest
from harness.results.samples import read_samples

CHANGES: list[dict[str, Any]] = [
    {"acc": float("nan")},
    {"acc": None},
    {"acc": True},
    {"filter": "strict"},
    {"metrics": ["acc", "f1"], "f1": 0.5},
    {"resps": [["a"], ["b"]], "arguments": [["q", " a"], ["q", " b"]]},
    {"resps": [["a", "b"]], "acc": [0, 1]},
    {"doc": {"slice": "rare"}},
    {"doc_hash": "ü"},
    {"doc_id": "7"},
    {"target_hash": 3},
    {"repeat": 0},
]


def found(path: Path) -> Any:
    """Everything that is read, or the fault that is told."""
    try:
        read = read_samples(path, ["slice"])
    except EvidenceFault as fault:
        return str(fault)
    columns = {name: (vars(column) | {"path": None}) for name, column in read.columns.items()}
    return read.sha256, columns


def one_by_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patched:
        patched.setattr("harness.results.blocks.BlockReader.read", lambda *_: 0)
        return found(path)


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 59), st.sampled_from(CHANGES)), max_size=3),
    cut=st.none() | st.integers(1, 400),
    joined=st.none() | st.integers(0, 58),
    block=st.sampled_from([1, 700, 5000, 2**18]),
)
def test_blocks_read_what_lines_read(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[int, dict[str, Any]]],
    cut: int | None,
    joined: int | None,
    block: int,
) -> None:
    rows = [sample(n, float(n % 2), doc={"slice": "odd" if n % 2 else None}) for n in range(60)]
    for number, change in changes:
        rows[number] = rows[number] | change
    text = lines(rows)
    if joined is not None:  # two rows on one line, and an empty line
        parts = text.splitlines(keepends=True)
        parts[joined] = parts[joined].rstrip("\n")
        text = "".join([*parts, "\n"])
    path = tmp_path_factory.mktemp("rows") / "samples_quiz.jsonl"
    path.write_bytes(text.encode()[: -cut if cut else None])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK", block)
        np.testing.assert_equal(found(path), one_by_one(path, patch))


HASHES = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(60)]
ODD_HASHES = ["", *("f" * n for n in (63, 65)), "ü" * 64, "ü" * 32, "~" * 64, "\x7f" * 64, "\x00" * 64, "\ud800" * 64]


@pytest.mark.parametrize("odd", [None, *ODD_HASHES])
@pytest.mark.parametrize("name", ["doc_hash", "prompt_hash", "target_hash"])
def test_hashes_are_read_in_blocks_as_in_lines(tmp_path: Path, name: str, odd: str | None) -> None:
    """Texts of the length of a hash are taken all at once; any other among them is read like the rest."""
    rows = [
        sample(n, float(n % 2), doc_hash=one, prompt_hash=one[::-1], target_hash=HASHES[0])
        for n, one in enumerate(HASHES)
    ]
    if odd is not None:
        rows[40][name] = odd
    path = tmp_path / "samples_quiz.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK", 4096)
        read = found(path)
        np.testing.assert_equal(read, one_by_one(path, patch))
    if odd is None:
        column = read[1]["acc"]
        assert column["prompts"].tolist() == [digest(one[::-1]) for one in sorted(HASHES)]
        assert column["items"].tolist() == [one.encode() for one in sorted(HASHES)]


def test_a_file_of_like_rows_is_taken_in_blocks_and_digested_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "samples_quiz.jsonl"
    path.write_text(lines([sample(n, float(n % 2)) for n in range(500)]))
    monkeypatch.setattr(reading, "BLOCK", 4096)
    taken: list[int] = []
    monkeypatch.setattr(reading._Reader, "_read_row", counted(reading._Reader._read_row, taken))
    read = read_samples(path, [])
    assert len(read.columns["acc"]) == 500
    assert len(taken) < 50
    assert read.sha256 == sha256_file(path)


def counted(method: Any, calls: list[int]) -> Any:
    def call(*arguments: Any) -> None:
        calls.append(1)
        method(*arguments)

    return call


def test_a_damaged_row_far_into_a_file_is_named_by_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = lines([sample(n, 1.0) for n in range(300)]).splitlines(keepends=True)
    rows[250] = json.dumps({"doc_id": 250}) + "\n"
    path = tmp_path / "samples_quiz.jsonl"
    path.write_text("".join(rows))
    monkeypatch.setattr(reading, "BLOCK", 4096)
    with pytest.raises(EvidenceFault, match="line 251"):
        read_samples(path, [])


def test_rows_of_alternating_filters_make_few_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "samples_quiz.jsonl"
    filters = ("none", "strict")
    path.write_text(lines([sample(n, float(n % 2), filter=one) for n in range(50) for one in filters]))
    made: list[int] = []
    monkeypatch.setattr(BlockReader, "__init__", counted(BlockReader.__init__, made))
    monkeypatch.setattr(reading, "BLOCK", path.stat().st_size // 4)
    read = read_samples(path, [])
    assert 1 <= len(made) <= 4  # one a piece of the file, not one a change of filter
    assert [len(read.columns[name]) for name in ("acc", "acc,strict")] == [50, 50]


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\n", "\x00", "\ud800"])
def test_requests_of_any_name_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "samples_quiz.jsonl"
    rows = [sample(n, 1.0, arguments={name: ["Question?"]}) for n in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read_samples(path, []).columns["acc"]) == 3


@pytest.mark.parametrize(
    "change",
    [{"filter": "\ud800"}, *({"metrics": [name], name: 1.0} for name in ('a"b', "a\\b", "a\n", "\x00", "\ud800"))],
)
def test_names_that_no_sample_has_are_named_by_their_line(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "samples_quiz.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [sample(0, 1.0), sample(1, 1.0) | change]))
    with pytest.raises(EvidenceFault, match="line 2"):
        read_samples(path, [])
