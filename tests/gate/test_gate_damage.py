"""Damaged evidence never passes: items, files and identities are spoilt at random on one side of a sound comparison."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from evaluation_folders import Folder, answers, guard, policy, sample, samples
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import EvidenceFault, HarnessError
from harness.gate.comparison import compare
from harness.gate.verdict import decide
from harness.results.evidence import read_evidence

VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, "1.0", [1.0], [1.0, 0.0], {}, float("nan"), float("inf"), float("-inf"), 10**400]
)


def outcome(baseline: Path, candidate: Path) -> str:
    """The verdict's name, or 'refused'; anything but a HarnessError is a crash and fails the test."""
    try:
        return decide(policy(), compare(read_evidence(baseline), read_evidence(candidate))).verdict
    except HarnessError:
        return "refused"


def written(root: Path, tasks: Sequence[Folder], ours: bool) -> list[Path]:
    return [
        folder.write(root / name) if ours else folder.write_lm_eval(root / name)
        for folder, name in zip(tasks, "ab", strict=True)
    ]


def results_of(folder: Path) -> tuple[Path, dict[str, Any]]:
    (path,) = folder.glob("results_*.json")
    return path, json.loads(path.read_text())


def speaking() -> Folder:
    rows = samples(answers(90, 100))
    for row in rows:
        row["filtered_resps"] = ["größer – 大"]
    return Folder({"quiz": rows})


@pytest.mark.parametrize("ours", [True, False])
def test_whole_evidence_passes(tmp_path: Path, ours: bool) -> None:
    assert outcome(*written(tmp_path, [speaking(), speaking()], ours)) == "PASS"


@pytest.mark.parametrize("name", ['"acc"', "a\\b", "a\nb"])
def test_a_metric_whose_name_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    for side in written(tmp_path, [speaking(), speaking()], ours=False):
        (path,) = side.glob("samples_*.jsonl")
        path.write_text(path.read_text().replace('"acc"', json.dumps(name)))
    with pytest.raises(EvidenceFault, match="no quotes, backslashes or control characters"):
        compare(read_evidence(tmp_path / "a"), read_evidence(tmp_path / "b"))


@settings(max_examples=150, deadline=None)
@given(st.data(), st.booleans())
def test_damaged_items_never_pass(data: st.DataObject, ours: bool) -> None:
    harmed = speaking()
    rows = harmed.tasks["quiz"]
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(rows) - 1))
        kind = data.draw(st.sampled_from(["drop", "repeat", "numbered", "oftener", "new", "field", "value", "absent"]))
        if kind == "drop":
            del rows[index]
        elif kind == "repeat":
            rows.insert(index, dict(rows[index]))
        elif kind == "numbered":
            rows.insert(index, rows[index] | {"repeat": data.draw(st.sampled_from([0, 1, -1, 2**70, "x", True]))})
        elif kind == "oftener":
            rows[index] = rows[index] | {"resps": [["one", "two"]]}
        elif kind == "new":
            rows.append(sample(1000 + len(rows), 1.0))
        elif kind == "field":
            name = data.draw(st.sampled_from(["doc_hash", "prompt_hash", "metrics"]))
            rows[index] = rows[index] | {name: data.draw(st.sampled_from(["", "x", None, 3, [], {}]))}
        elif kind == "value":
            rows[index] = rows[index] | {"acc": data.draw(VALUES)}
        else:
            name = data.draw(st.sampled_from(["doc_hash", "prompt_hash", "metrics", "acc"]))
            rows[index] = {key: value for key, value in rows[index].items() if key != name}
    # A row dropped after it was repeated or added would leave the evidence whole.
    if sorted(map(repr, rows)) == sorted(map(repr, speaking().tasks["quiz"])):
        return
    sides = [speaking(), harmed] if data.draw(st.booleans()) else [harmed, speaking()]
    with TemporaryDirectory() as root:
        assert outcome(*written(Path(root), sides, ours)) != "PASS"


@settings(max_examples=60, deadline=None)
@given(st.data(), st.booleans())
def test_damaged_files_never_pass(data: st.DataObject, ours: bool) -> None:
    with TemporaryDirectory() as root:
        sides = written(Path(root), [speaking(), speaking()], ours)
        file = data.draw(st.sampled_from(sorted(sides[data.draw(st.integers(0, 1))].iterdir())))
        content = file.read_bytes()
        kind = data.draw(st.sampled_from(["cut", "delete", "noise", "empty"]))
        if kind == "delete":
            file.unlink()
        else:
            at = data.draw(st.integers(0, len(content) - 3)) if kind != "empty" else 0
            rest = b"" if kind != "noise" else b"\xff\x00\n{" + content[at:]
            file.write_bytes(content[:at] + rest)
        assert outcome(*sides) != "PASS"


PARTS = ["n-samples", "versions", "results", "configs", "higher_is_better", "n-shot", "group_subtasks"]
ODD: st.SearchStrategy[Any] = st.sampled_from([None, 3, -1, True, "x", [], [3], 10**400, {"effective": "x"}])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PARTS), ODD, st.booleans(), st.booleans())
def test_damaged_results_are_refused(part: str, odd: Any, inside: bool, first: bool) -> None:
    """A part, or its entry of the task, is another on one side; lm-eval itself knows the direction of acc."""
    with TemporaryDirectory() as root:
        sides = written(Path(root), [speaking(), speaking()], ours=False)
        path, found = results_of(sides[0 if first else 1])
        known: dict[str, Any] = {
            "results": {"effective": "x"},
            "configs": {"effective": "x"},
            "group_subtasks": [],
            "n-shot": None,
        }
        harmless = (inside and known.get(part, "") == odd) or (part == "higher_is_better" and isinstance(odd, dict))
        path.write_text(json.dumps(found | {part: found[part] | {"quiz": odd} if inside else odd}))
        told = outcome(*sides)
    assert harmless or told != "PASS"


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_score_that_no_item_has_on_either_side_never_passes(data: st.DataObject) -> None:
    sides = [speaking(), speaking()]
    odd: Any = data.draw(st.sampled_from([None, "1.0", {}, "absent"]))
    for row in (row for side in sides for row in side.tasks["quiz"]):
        row |= {"metrics": ["acc", "safe"], "safe": odd}
        if odd == "absent":
            del row["safe"]
    with TemporaryDirectory() as root:
        assert outcome(*written(Path(root), sides, data.draw(st.booleans()))) == "INVALID"


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 99), min_size=1), st.booleans())
def test_items_without_the_cluster_key_never_pass(lacking: set[int], both: bool) -> None:
    gate = policy(guard(margin="20 points", cluster="passage"))
    sides = [speaking(), speaking()]
    for side in sides:
        for number, row in enumerate(side.tasks["quiz"]):
            row["doc"] = {"passage": f"p{number // 2}"}
    for side in sides if both else sides[:1]:
        for number in lacking:
            side.tasks["quiz"][number]["doc"] = {}
    with TemporaryDirectory() as root:
        folders = written(Path(root), sides, ours=True)
        evidence = [read_evidence(folder, gate.fields) for folder in folders]
    assert decide(gate, compare(evidence[0], evidence[1], gate)).verdict == "INVALID"


IDENTITY: list[dict[str, Any]] = [
    {"version": "9"},
    {"num_fewshot": 1},
    {"generation": "x"},
    {"scored": 99},
    {"scored": 99, "failed": 1},
    {"asked": 101},
]


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(IDENTITY), st.booleans())
def test_evidence_made_in_another_way_never_passes(change: dict[str, Any], first: bool) -> None:
    other = speaking()
    other.identities = {"quiz": change}
    with TemporaryDirectory() as root:
        sides = written(Path(root), [other, speaking()] if first else [speaking(), other], True)
        assert outcome(*sides) == "INVALID"


@pytest.mark.parametrize("change", [{"filter": "\ud800"}, {"metrics": ['a"b']}, {"metrics": ["\ud800"]}])
def test_edited_samples_are_told_as_edited_whatever_they_hold(tmp_path: Path, change: dict[str, Any]) -> None:
    path = speaking().write(tmp_path / "a")
    with (path / "samples_quiz.jsonl").open("a") as file:
        file.write(json.dumps(sample(100, 1.0) | change) + "\n")
    with pytest.raises(EvidenceFault, match="was edited"):
        read_evidence(path)
