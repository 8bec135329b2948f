"""Sources: every format gives the rows a person would write down, and nothing that cannot be read as a row is lost."""

import csv
import gzip
import importlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.config.data import DataConfig, SourceConfig
from harness.core.errors import DataError, NetworkFault
from harness.data.files import read_records
from harness.data.licences import LicencePolicy
from harness.data.row import DataRow, exchanges, from_turns, joined_exchanges
from harness.data.sources import Malformed, find_sources, read_rows_of, require_usable

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
QUESTION, ANSWER = "What is a bond?", "A loan that can be traded."
PARTS = [{"type": "text", "text": QUESTION}]
PLAIN = {"instruction": QUESTION, "input": "", "output": ANSWER}
ALPACA = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nShorten this.\n\n### Input:\nA long\n\ntext.\n\n### Response:\n"
)


def read(path: Path, **source: Any) -> tuple[list[DataRow], list[Malformed]]:
    """Rows and what is none, of a source with this path."""
    config = DataConfig(sources={"mine": SourceConfig(path=str(path), licence="CC0-1.0", **source)})
    found = list(read_rows_of(find_sources(config)[0]))
    return [f for f in found if isinstance(f, dict)], [f for f in found if isinstance(f, Malformed)]


def texts(rows: list[DataRow]) -> list[dict[str, str]]:
    return [{key: row[key] for key in ("instruction", "input", "output")} for row in rows]


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": QUESTION, "input": "", "output": ANSWER},
        {"instruction": QUESTION, "context": "", "response": ANSWER, "category": "open_qa"},
        {"prompt": QUESTION, "response": ANSWER},
        {"prompt": QUESTION, "completion": ANSWER},
        {"inputs": QUESTION, "targets": ANSWER, "task": "flan"},
        {"prompt": f"### Instruction:\n{QUESTION}\n\n### Response:", "response": ANSWER},
        {"question": QUESTION, "answer": ANSWER},
        {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]},
        {"messages": [{"role": "user", "content": PARTS}, {"role": "assistant", "content": ANSWER}]},
        {"prompt": [{"role": "user", "content": QUESTION}], "completion": [{"role": "assistant", "content": ANSWER}]},
        {"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]},
        {"instruction": QUESTION, "instances": [{"input": "", "output": ANSWER}]},
        {"prompt": {"role": "prompter", "text": QUESTION, "replies": [{"role": "assistant", "text": ANSWER}]}},
    ],
)  # fmt: skip
def test_formats_are_recognised(tmp_path: Path, record: dict[str, Any]) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(record) + "\n")
    rows, faults = read(tmp_path / "rows.jsonl")
    assert faults == []
    assert texts(rows) == [PLAIN]
    assert "messages" not in rows[0]


def test_an_alpaca_wrapper_is_taken_apart(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": ALPACA, "response": "Text."}))
    rows, _ = read(tmp_path / "rows.jsonl")
    assert texts(rows) == [{"instruction": "Shorten this.", "input": "A long\n\ntext.", "output": "Text."}]


def test_a_prompt_that_only_mentions_the_wrapper_stays_whole(tmp_path: Path) -> None:
    prompt = "What does '### Instruction: x ### Response:' mean in a prompt?"
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": prompt, "response": "A heading."}))
    assert read(tmp_path / "rows.jsonl")[0][0]["instruction"] == prompt


def test_best_ranked_replies_of_a_tree(tmp_path: Path) -> None:
    def node(role: str, text: str, *replies: Any, **values: Any) -> dict[str, Any]:
        return {"role": role, "text": text, "replies": list(replies), **values}

    last = node("assistant", "a2", node("prompter", "q3"), rank=0)
    second = node("prompter", "q2", node("assistant", "removed", deleted=True, rank=0), last)
    tree = node("prompter", "q1", node("assistant", "worse", rank=1), node("assistant", "a1", second, rank=0))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"message_tree_id": "t", "prompt": tree}))
    rows, _ = read(tmp_path / "rows.jsonl")
    assert [m["content"] for m in json.loads(rows[0]["messages"])] == ["q1", "a1", "q2", "a2"]
    assert (rows[0]["instruction"], rows[0]["input"], rows[0]["output"]) == ("q1", "a1\n\nq2", "a2")


@pytest.mark.parametrize(
    ("turns", "why"),
    [
        ([], "empty"),
        ([{"role": "user", "content": "hi"}], "alternate"),
        ([{"role": "assistant", "content": "hi"}, {"role": "user", "content": "hi"}], "alternate"),
        ([{"role": "user", "content": "hi"}, {"role": "tool", "content": "x"}], "calls a tool"),
        ([{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}], "no text"),
        ([{"role": "user", "content": "hi"}, "x"], "not a JSON object"),
    ],
)
def test_a_conversation_that_is_none_says_why(tmp_path: Path, turns: Any, why: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": turns}))
    rows, faults = read(tmp_path / "rows.jsonl")
    assert rows == []
    assert why in faults[0].reason
    assert faults[0].where == "line 1"


CELLS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1).filter(str.strip)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(pairs=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5))
@pytest.mark.parametrize("kind", ["jsonl", "json", "pretty", "csv", "parquet", "jsonl.gz", "named json"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str, pairs: list[tuple[str, str]]) -> None:
    rows, faults = read(write(tmp_path, kind, [{"instruction": q, "output": a} for q, a in pairs]))
    assert faults == []
    assert [(row["instruction"], row["output"]) for row in rows] == pairs


def write(folder: Path, kind: str, records: list[dict[str, str]]) -> Path:
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), folder / "rows.parquet")
        return folder / "rows.parquet"
    if kind == "csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, ["instruction", "output"])
        writer.writeheader()
        writer.writerows(records)
        lines = text.getvalue()
    elif kind in ("json", "pretty"):
        lines = json.dumps(records, indent=2 if kind == "pretty" else None)
    name = {"pretty": "rows.json", "named json": "rows.json"}.get(kind, f"rows.{kind}")
    data = lines.encode()
    (folder / name).write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    return folder / name


def test_a_list_longer_than_the_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.data.files._CHUNK", 7)
    records = [{"instruction": f"question {n}", "output": "]},{[" * n + "x"} for n in range(40)]
    (tmp_path / "rows.json").write_text(json.dumps(records))
    assert [record.values for record in read_records(tmp_path / "rows.json", set())] == records


@pytest.mark.parametrize("text", ["[", '[{"instruction": "a", "output": "b"}', '[{"a": 1},', "{", "", "nothing"])
def test_a_damaged_json_file_is_no_short_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(DataError, match=r"rows\.json"):
        read(tmp_path / "rows.json")


@pytest.mark.parametrize(
    ("written", "reason"),
    [(b'"\xff"', "column output is not UTF-8 text"), (b'"\\ud800"', "column output is not UTF-8 text")],
)
def test_a_row_of_a_json_list_that_is_no_text_costs_itself_alone(tmp_path: Path, written: bytes, reason: str) -> None:
    """A streaming parser that refuses the file here, or puts '?' for what it cannot read, would lose or change data."""
    rows = [b'{"instruction": "%d", "output": %s}' % (n, written if n == 1 else b'"b"') for n in range(3)]
    (tmp_path / "rows.json").write_bytes(b"[" + b", ".join(rows) + b"]")
    read_rows, faults = read(tmp_path / "rows.json")
    assert [row["instruction"] for row in read_rows] == ["0", "2"]
    assert (faults[0].where, faults[0].reason) == ("row 2", reason)


def test_numbers_beside_the_text_of_a_json_list_do_not_matter(tmp_path: Path) -> None:
    """What pandas and Python write: NaN, and whole numbers of any size."""
    record = '{"instruction": "a", "output": "b", "score": NaN, "id": 123456789012345678901234567890}'
    (tmp_path / "rows.json").write_text(f"[{record}]")
    rows, faults = read(tmp_path / "rows.json")
    assert (len(rows), faults) == (1, [])


def test_a_damaged_json_list_says_which_row(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[{"instruction": "a", "output": "b"},\n {"instruction": "a" "output": "b"}]')
    with pytest.raises(DataError, match=r"rows\.json is damaged: row 2 is not JSON: Expecting ',' delimiter"):
        read(tmp_path / "rows.json")


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not a readable Parquet"):
        read(tmp_path / "rows.parquet")


def test_bytes_that_are_no_text_cost_their_row_alone(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"instruction,output\na,b\nc,\xff\nd,e\n")
    rows, faults = read(tmp_path / "rows.csv")
    assert [row["instruction"] for row in rows] == ["a", "d"]
    assert (faults[0].where, faults[0].reason) == ("line 3", "column output is not UTF-8 text")


def test_a_lone_surrogate_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "output": "\\ud800"}')
    rows, faults = read(tmp_path / "rows.jsonl")
    assert rows == []
    assert faults[0].reason == "column output is not UTF-8 text"


def test_cells_too_many_or_too_few(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("instruction,output\na,b,c\nd\ne,f\n")
    rows, faults = read(tmp_path / "rows.csv")
    assert [row["instruction"] for row in rows] == ["e"]
    assert [fault.where for fault in faults] == ["line 2", "line 3"]


FLAN = ["question", "answer", "rationale"]


def test_flan_tables_have_no_header(tmp_path: Path) -> None:
    (tmp_path / "flan.tsv").write_text('Is "it"\\nso?\tyes\tIt is.\nIs that?\tno\tIt is not.\n')
    with pytest.raises(DataError, match=r"If it is a row, name the columns: data\.sources\.<name>\.fields"):
        read(tmp_path / "flan.tsv")
    rows, _ = read(tmp_path / "flan.tsv", fields=FLAN)
    assert texts(rows)[0] == {"instruction": 'Is "it"\nso?', "input": "", "output": "It is.\n\nThe answer is yes."}
    assert len(rows) == 2


def test_columns_of_an_unknown_table_must_be_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b,c,d\n1,2,3,4\n")
    with pytest.raises(DataError, match=r"data\.sources\.<name>\.columns"):
        read(tmp_path / "rows.csv")
    rows, _ = read(tmp_path / "rows.csv", columns={"instruction": "a", "output": "d"})
    assert texts(rows) == [{"instruction": "1", "input": "", "output": "4"}]
    rows, _ = read(tmp_path / "rows.csv", fields=["instruction", "x", "y", "output"])
    assert [row["instruction"] for row in rows] == ["a", "1"]


def test_another_delimiter_is_recognised_and_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("Instruction;Input;Output\n1,5 kg?;;Yes, 1,5 kg.\n")
    found, _ = read(tmp_path / "rows.csv")
    assert texts(found) == [{"instruction": "1,5 kg?", "input": "", "output": "Yes, 1,5 kg."}]
    columns = {"instruction": "Instruction", "input": "Input", "output": "Output"}
    rows, _ = read(tmp_path / "rows.csv", csv={"delimiter": ";"}, columns=columns)
    assert texts(rows) == [{"instruction": "1,5 kg?", "input": "", "output": "Yes, 1,5 kg."}]


def test_defaults_fill_what_is_absent(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("dialogue,note\nHello.,Patient says hello.\n")
    columns = {"input": "dialogue", "output": "note"}
    rows, _ = read(tmp_path / "rows.csv", columns=columns, defaults={"instruction": "Write the note.", "topic": "n"})
    assert texts(rows) == [{"instruction": "Write the note.", "input": "Hello.", "output": "Patient says hello."}]
    assert rows[0]["topic"] == "n"


def test_a_folder_is_read_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.jsonl").write_text(json.dumps(PLAIN) + "\n{cut\n")
    (tmp_path / "deep" / "a.csv").write_text("instruction,output\nq,a\n")
    (tmp_path / "README.md").write_text("# rows")
    rows, faults = read(tmp_path)
    assert [row["instruction"] for row in rows] == [QUESTION, "q"]
    assert len({row["id"] for row in rows}) == 2
    assert faults[0].file.endswith("b.jsonl")


def test_a_source_without_a_licence_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(PLAIN))
    sources = {name: SourceConfig(path=str(tmp_path / "rows.jsonl")) for name in ("mine", "other")}
    with pytest.raises(DataError, match=r"data\.sources\.mine\.licence.*data\.sources\.other\.licence"):
        find_sources(DataConfig(sources=sources))
    found = find_sources(DataConfig(sources=sources, allow_unlicensed=["mine", "other"]))
    assert [origin.licence for origin in found] == ["unknown", "unknown"]


def test_a_licence_that_forbids_the_use(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(PLAIN))
    source = SourceConfig(path=str(tmp_path / "rows.jsonl"), licence="CC-BY-NC-4.0")
    origins = find_sources(DataConfig(sources={"alpaca": source}))
    with pytest.raises(DataError, match=r"alpaca.*commercial.*intended_use"):
        require_usable(origins, LicencePolicy())
    require_usable(origins, LicencePolicy(intended_use="research"))


def test_a_local_copy_of_a_hub_dataset(tmp_path: Path) -> None:
    folder = tmp_path / "owner" / "set"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text((json.dumps(PLAIN) + "\n") * 3)
    config = DataConfig(sources={"mine": SourceConfig(hub="owner/set", licence="CC0-1.0", limit=2)})
    origin = find_sources(config, hub_dir=tmp_path)[0]
    rows = [row for row in read_rows_of(origin) if isinstance(row, dict)]
    assert texts(rows) == [PLAIN, PLAIN]
    before = origin.digest()
    (folder / "train.jsonl").write_text(json.dumps(PLAIN) + "\n")
    assert origin.digest() != before


@pytest.mark.parametrize("layer", ["httpx", "huggingface_hub.errors", "datasets.exceptions"])
def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, layer: str) -> None:
    import datasets

    names = {"httpx": "ConnectError", "huggingface_hub.errors": "OfflineModeIsEnabled"}
    error = getattr(importlib.import_module(layer), names.get(layer, "DatasetNotFoundError"))("no way")

    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    source = SourceConfig(hub="owner/set", licence="CC0-1.0")
    with pytest.raises(NetworkFault, match=r"owner/set cannot be fetched.*hub_dir"):
        list(read_rows_of(find_sources(DataConfig(sources={"mine": source}))[0]))


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "owner" / "set"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text(json.dumps(PLAIN) + "\n")
    source = SourceConfig(hub="owner/set", licence="CC0-1.0", split="tset")
    with pytest.raises(DataError, match="split tset"):
        list(read_rows_of(find_sources(DataConfig(sources={"mine": source}), tmp_path)[0]))


TURNS = st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4)


@given(turns=TURNS, system=st.one_of(st.none(), CELLS))
def test_exchanges_and_back(turns: list[tuple[str, str]], system: str | None) -> None:
    spoken = [turn for q, a in turns for turn in (("user", q), ("assistant", a))]
    row = from_turns([("system", system), *spoken] if system else spoken)
    assert isinstance(row, dict)
    row = {"id": "1", "source": "s", "topic": "", **row}
    parts = exchanges(row)
    assert [(part["instruction"], part["output"]) for part in parts] == turns
    assert joined_exchanges(row, parts) == row


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the public rows of ../shared/data")
@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("replay/dolly_hhrlhf_1000.jsonl", 1000),
        ("replay/instruction_triples_1100.json", 1100),
        ("replay/self_instruct_seed_tasks.jsonl", 175),
        ("replay/flan_strategyqa.tsv", 2061),
        ("replay/flan_qasc.tsv", 1084),
        ("replay/oasst_en_100_trees.jsonl", 100),
    ],
)
def test_public_sets_are_read_whole(path: str, count: int) -> None:
    rows, faults = read(SHARED / path, **({"fields": FLAN} if path.endswith(".tsv") else {}))
    assert faults == []
    assert len(rows) == count
    assert not any("### Response" in row["instruction"] for row in rows)
